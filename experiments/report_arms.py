"""What the policy-gradient arms did, step by step and on held-out prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from experiments import report_charts, report_files, report_policies, report_proxy
from stepaudio_jax.data.world import gold

SMOOTHED_STEPS = 5  # of the arms' curves, which are short

# metrics.jsonl's name → title of its panel
_DYNAMICS = {
  "train/kl_k3": "KL to the SFT start, nats per token",
  "train/reply_tokens": "Reply length, tokens",
  "train/entropy": "Entropy, nats per token",
  "train/unclosed_share": "Share of replies whose thought never closed",
}

Row = dict[str, Any]


def arms(folder: epath.Path) -> dict[str, Row]:
  """Of every arm: its objective beside gold, by step and on held-out prompts."""
  truths = {
    split: report_files.truths(folder / "world" / f"truth-{split}.jsonl")
    for split in ("train", "heldout")
  }
  return {name: _arm(folder / name, truths) for name in report_policies.ARMS}


def _arm(folder: epath.Path, truths: Mapping[str, Mapping[str, Row]]) -> Row:
  path = folder / "samples.jsonl"
  rows = report_proxy.scored(report_files.samples(path), truths["train"], str(path))
  path = folder / "heldout.jsonl"
  held = report_proxy.scored(report_files.samples(path), truths["heldout"], str(path))
  exam, gain = report_files.exam(folder / "heldout.json"), report_proxy.gold_gain(held)
  colour = report_policies.COLOURS[folder.name]
  return {
    "title": report_policies.ARMS[folder.name],
    "colour": colour,
    "panels": _panels(rows, colour),
    "replies": len(rows),
    "unrewarded": sum(row["objective"] is None for row in rows),
    "tasks": sorted({row["task"] for row in rows}),
    "objective": _terms(report_files.config(folder)["config"]),
    "dimensions": report_proxy.dimensions(rows),
    "exam": exam,
    "gold": gain,
    "moved": report_proxy.moved(exam["objective"], gain),
  }


def _terms(config: Mapping[str, Any]) -> list[str]:
  """The terms of the objective on audio prompts, as "0.8 accuracy"."""
  out = []
  for prefix in ("rewards.rules.audio.", "rewards.learned."):
    names = [key for key in config if key.startswith(prefix)]
    out += [f"{config[key]:g} {key.removeprefix(prefix)}" for key in names]
  return out


def _panels(rows: Sequence[Row], colour: int) -> list[Row]:
  """Left what the arm was trained on, right what gold says of the same replies."""
  ours = report_proxy.by_step(rows, lambda row: row["objective"])
  mean = report_proxy.by_step(rows, lambda row: row["gold_mean"])
  correct = report_proxy.by_step(rows, lambda row: row["gold"]["correctness"])
  steps = [*ours]
  theirs = {
    f"mean of {len(gold.DIMENSIONS)}": [*mean.values()],
    "correctness": [*correct.values()],
  }
  return [
    report_charts.panel(
      "Its own objective",
      {"reward": [*ours.values()]},
      steps,
      colours={"reward": colour},
      window=SMOOTHED_STEPS,
    ),
    report_charts.panel(
      "Gold, the same replies",
      theirs,
      steps,
      colours=dict(zip(theirs, (4, 5), strict=True)),
      window=SMOOTHED_STEPS,
    ),
  ]


def dynamics(folder: epath.Path) -> list[Row]:
  """KL, length, entropy and unclosed thoughts of all arms over their steps.

  Raises:
    ValueError: a metric that an arm did not log.
  """
  rows = {name: report_files.metrics(folder / name) for name in report_policies.ARMS}
  titles = report_policies.ARMS
  colours = {titles[name]: report_policies.COLOURS[name] for name in titles}
  out = []
  for metric, title in _DYNAMICS.items():
    steps = [row["step"] for row in max(rows.values(), key=len)]
    series = {}
    for name, found in rows.items():
      by_step = {
        row["step"]: report_files.check(row, [metric], f"{name}/metrics.jsonl")[metric]
        for row in found
      }
      series[titles[name]] = [by_step.get(step) for step in steps]
    out.append(
      report_charts.panel(title, series, steps, colours=colours, window=SMOOTHED_STEPS)
    )
  return out
