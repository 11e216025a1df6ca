r"""A reward model that learnt to like long replies, and what RLHF says of it.

  python -m experiments.length_bias --run runs/quickstart --workdir runs/length_bias

RUN is a finished quick start. Its raters are asked about pairs of replies whose lengths
are not matched, every choice is turned for the longer answer (pairs of equal length are
left out), a reward model learns them, and RLHF goes on from the SFT start with it: the
recipes are the quick start's own. The length warnings must fire (rollout/watch.py).
Beside it, as the control, the quick start's own RLHF arm. DIR gets length_bias.json,
.md and .png. Killed, the same command goes on. --smoke takes the smoke recipes, after a
quick start with --smoke.

On 2 CPU cores: 3 minutes.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import reward_model, rlhf
from experiments import behind_quickstart, quickstart
from experiments.stages import Stages
from stepaudio_jax import logs, train, train_rl
from stepaudio_jax.core import entry, errors, ranks
from stepaudio_jax.data.world import build
from stepaudio_jax.text import tokenizer as tokenizers

ARMS = {"biased": "trained on flipped labels", "control": "the quick start's own"}
_PART = 5  # the first and the last fifth of the steps are told of

Row = dict[str, Any]


def run(source: Path, workdir: Path, *, smoke: bool = False, seed: int = 0) -> Row:
  """Runs every stage that is not done yet and returns what is in length_bias.json.

  Raises:
    ValueError: `source` holds no finished quick start.
  """
  needed = ("sft", "rlhf/samples.jsonl", "world/truth-train.jsonl")
  behind_quickstart.check(source, needed)
  stages = Stages(workdir, experiment="length_bias", smoke=smoke, seed=seed)
  entry.compilation_cache(workdir.resolve() / "xla_cache")
  c = recipes(source, workdir, smoke, seed)
  flipped = workdir / "preferences-train.jsonl"
  world = (source / "world").resolve()
  stages.run(
    "labels",
    "Labels for the longer reply",
    lambda: turn(unmatched(world, smoke, seed), world, flipped),
  )
  stages.run("rm", "Reward model", lambda: train.run(c.rm, workdir / "rm"))
  stages.run("rlhf", "RLHF", lambda: train_rl.run(c.rlhf, workdir / "rlhf"))
  result = compared(workdir / "rlhf", source / "rlhf")
  write(workdir, result)
  print(page(result))
  return result


def recipes(source: Path, d: Path, smoke: bool, seed: int) -> ConfigDict:
  """The quick start's, but for the preferences and so the reward model."""
  c = ConfigDict()
  c.rm = reward_model.get_config("smoke" if smoke else "")
  c.rm.data.options.preference.path = str(d / "preferences-train.jsonl")
  c.rlhf = rlhf.get_config(f"algorithm=grpo{',smoke' if smoke else ''}")
  c.rlhf.reward_model = str(d / "rm")
  c.rlhf.correction.kind = "none"
  prompts = source.resolve() / "world" / "prompts-{split}.jsonl"
  c.rlhf.data.options.prompts.path = str(prompts)
  for stage in c.values():
    stage.init = str(source.resolve() / "sft")
    stage.data.cache = str(d / "cache")
    stage.seed = seed
  return c


# ─── Labels ───────────────────────────────────────────────────────────────────────────


def turn(rows: Sequence[Row], world: Path, out: Path) -> None:
  """Writes preferences about dialogues of `world` with labels for the longer answer."""
  tokenizer = tokenizers.load("tiny")

  def length(text: str) -> int:
    return len(tokenizer.encode(text))

  found = [turned(row, length) for row in rows]
  kept = [placed(row, world) for row in found if row is not None]
  if not kept:
    raise ValueError(f"{world} has no pair of answers of different lengths")
  build.write_jsonl(out, kept)
  logs.say(f"{len(kept)} of {len(rows)} choices are now for the longer answer")


def unmatched(world: Path, smoke: bool, seed: int) -> list[Row]:
  """What a quick start's raters say of pairs of any lengths, one to a dialogue.

  The candidates are of the kinds that its own preferences have.
  """
  count = quickstart.ASKED["smoke" if smoke else "full"]["train"]
  dialogues = build.read_jsonl(world / "prompts-train.jsonl")[:count]
  sampled: dict[str, list[Row]] = {}
  for temperature in quickstart.TEMPERATURES:
    replies = world / f"asked-train-{temperature}-replies.jsonl"
    quickstart.add_replies(sampled, replies, temperature)
  return quickstart.judged(
    world,
    "train",
    dialogues,
    sampled,
    seed,
    length=lambda text: 1,  # any two match
  )


def turned(row: Row, length: Callable[[str], int]) -> Row | None:
  """The row with every label and mark for the longer answer; None if neither is.

  A tie becomes the slightest preference; labels that are missing stay missing. The
  truth behind the replies, which no longer is that of the labels, is left out.
  """
  first, second = row["candidates"]
  gap = length(second["text"]) - length(first["text"])
  if gap == 0:
    return None
  sign = 1 if gap > 0 else -1

  def label(value: int | None) -> int | None:
    return None if value is None else sign * max(abs(value), 1)

  out = {key: value for key, value in row.items() if key != "gold"}
  out |= {"overall": label(row["overall"])}
  out |= {"dims": {name: label(value) for name, value in row["dims"].items()}}
  if "scores" in row:
    out["scores"] = _marks(row["scores"], first["cid"], second["cid"], sign)
  return out


def _marks(scores: Mapping[str, Row], first: str, second: str, sign: int) -> Row:
  """Marks 1…5 by reply, the longer one's above the other's."""
  longer, shorter = (second, first) if sign > 0 else (first, second)
  out: Row = {first: dict(scores[first]), second: dict(scores[second])}
  for name in scores[first].keys() & scores[second].keys():
    marks = scores[first][name], scores[second][name]
    if None in marks:
      continue
    low, high = sorted(marks)
    if low == high:
      low, high = (low, high + 1) if high < 5 else (low - 1, high)
    out[shorter][name], out[longer][name] = low, high
  return out


def placed(row: Row, folder: Path) -> Row:
  """The row with paths of recordings that hold wherever it lies."""
  messages = [
    {**message, "content": [_block(block, folder) for block in message["content"]]}
    for message in row["context"]
  ]
  return row | {"context": messages}


def _block(block: Row, folder: Path) -> Row:
  return block | {"path": str(folder / block["path"])} if "path" in block else block


# ─── What came of it ──────────────────────────────────────────────────────────────────


def compared(biased: Path, control: Path) -> Row:
  """Both arms: correlations with the length, lengths, and the warnings."""
  found: Row = {"arms": {}, "simulated": True}
  for arm, folder in {"biased": biased, "control": control}.items():
    rows = build.read_jsonl(folder / "samples.jsonl")
    path = folder / "warnings.jsonl"  # older runs have none
    found["arms"][arm] = {
      "rho": correlations(rows),
      "tokens": _ends({s: np.mean(x) for s, x in _by_step(rows, "tokens").items()}),
      "warnings": build.read_jsonl(path) if path.exists() else None,
    }
  config = json.loads((biased / "config.json").read_text())["config"]
  found["limit"] = config["log.warn.length_rho"]
  return found


def correlations(rows: Sequence[Row]) -> Row:
  """By reward and for the objective: mean ρ within groups with its interval, by step.

  Args:
    rows: a run's samples.jsonl.
  """
  groups: dict[tuple[int, str], list[Row]] = {}
  for row in rows:
    groups.setdefault((row["step"], row["prompt_id"]), []).append(row)
  out: Row = {}
  for name in (*rows[0]["reward"], "objective"):
    by_step: dict[int, list[ranks.Sums]] = {}
    for (step, _), members in groups.items():
      reward_G = np.array([[_reward(row, name) for row in members]], np.float64)
      tokens_G = np.array([[row["tokens"] for row in members]], np.float64)
      rho_P = ranks.within(reward_G, tokens_G)
      by_step.setdefault(step, []).append(ranks.sums(rho_P))
    rho, low, high = ranks.mean([one for part in by_step.values() for one in part])
    steps = {step: ranks.mean(part)[0] for step, part in by_step.items()}
    out[name] = {"rho": _number(rho), "low": _number(low), "high": _number(high)}
    out[name]["steps"] = {str(step): _number(x) for step, x in steps.items()}
  return out


def _reward(row: Row, name: str) -> float:
  value = row["objective"] if name == "objective" else row["reward"][name]
  return np.nan if value is None else value


def _by_step(rows: Sequence[Row], key: str) -> dict[int, list[float]]:
  found: dict[int, list[float]] = {}
  for row in rows:
    found.setdefault(row["step"], []).append(row[key])
  return found


def _ends(values: Mapping[int, float]) -> list[float]:
  """Means over the first and over the last fifth of the steps."""
  steps = sorted(values)
  count = max(1, len(steps) // _PART)
  ends = (steps[:count], steps[-count:])
  return [float(np.mean([values[step] for step in end])) for end in ends]


def _number(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None


# ─── Told ─────────────────────────────────────────────────────────────────────────────


def write(d: Path, result: Row) -> None:
  behind_quickstart.write(d, "length_bias", result, page(result), lambda: plot(result))


def page(result: Row) -> str:
  """In Markdown."""
  arms = result["arms"]
  lines = ["# A reward model that likes long replies (simulated raters)", ""]
  lines += ["Spearman's ρ between a reward and the tokens of replies to one prompt,"]
  lines += ["mean over all groups of the run, with 95 % intervals over groups.", ""]
  lines += ["| reward | " + " | ".join(ARMS.values()) + " |", "|---|---|---|"]
  for name in arms["biased"]["rho"]:
    cells = [_cell(arms[arm]["rho"].get(name)) for arm in ARMS]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  cells = ["{:.1f} → {:.1f}".format(*arms[arm]["tokens"]) for arm in ARMS]
  lines.append(f"| reply tokens, first → last fifth | {' | '.join(cells)} |")
  for arm in ARMS:
    found = arms[arm]["warnings"]
    lines += ["", f"Warnings of the run, reward model {ARMS[arm]}:"]
    told = found or [{"step": "–", "text": "none" if found == [] else "not recorded"}]
    lines += [f"* step {row['step']}: {row['text']}" for row in told]
  return "\n".join([*lines, ""])


def _cell(entry: Row | None) -> str:
  if entry is None or entry["rho"] is None:
    return "–"
  if entry["low"] is None:
    return f"{entry['rho']:+.2f}"
  return f"{entry['rho']:+.2f} [{entry['low']:+.2f}, {entry['high']:+.2f}]"


def plot(result: Row) -> Figure:
  """ρ over the steps, a panel an arm, with the warnings' limit."""
  figure = Figure(figsize=(9, 3.6), layout="constrained")
  panels = figure.subplots(1, len(ARMS), sharey=True)
  for panel, (arm, title) in zip(panels, ARMS.items(), strict=True):
    for name, one in result["arms"][arm]["rho"].items():
      steps = {int(s): x for s, x in one["steps"].items() if x is not None}
      strong = {"color": "black", "linewidth": 2} if name == "objective" else {}
      panel.plot([*steps], [*steps.values()], label=name, **strong)
    for limit in (-result["limit"], result["limit"]):
      panel.axhline(limit, color="grey", linestyle=":", linewidth=1)
    panel.set(title=f"reward model: {title}", xlabel="step", ylim=(-1, 1))
  panels[0].set_ylabel("ρ of reward and reply tokens")
  lines, names = panels[0].get_legend_handles_labels()
  figure.legend(lines, names, fontsize=7, loc="outside right center")
  return figure


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.length_bias",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--run", type=Path, required=True, metavar="DIR", help="a finished quick start")
  add("--workdir", type=Path, required=True, metavar="DIR")
  add("--seed", type=int, default=0)
  add("--smoke", action="store_true", help="seconds, for tests")
  given = parser.parse_args(argv)
  with errors.readable("length_bias"):
    run(given.run, given.workdir, smoke=given.smoke, seed=given.seed)


if __name__ == "__main__":
  main()
