r"""Proxy and gold against √KL: RLHF from the SFT start with nothing to hold it.

  python -m experiments.overoptimisation --run runs/quickstart \
    --workdir runs/overoptimisation [--steps 800] [--every 40] [--minutes 60]

RUN is a finished quick start: its SFT start, reward model and prompts. RLHF with β = 0
goes on far longer than there, and every so many steps an exam is held on the same
held-out prompts (heldout.jsonl). The proxy is the objective that is maximised; gold is
what the truth behind the synthetic speech says of the very same replies. It is read
here, once the training is over; RL cannot reach it. Training stops after --minutes of
steps, at a checkpoint, and what there is by then is told. DIR gets
overoptimisation.json, .md and .png. Killed, the same command goes on.

On 2 CPU cores a step takes 1.8 s and an exam 10 s.
"""

import argparse
import json
import math
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import rlhf
from experiments import behind_quickstart
from stepaudio_jax import logs, train_rl
from stepaudio_jax.core import entry, errors, files
from stepaudio_jax.data.world import build, gold
from stepaudio_jax.evals.parts import intervals

Row = dict[str, Any]


def run(
  quickstart: Path,
  workdir: Path,
  *,
  steps: int,
  every: int,
  minutes: float,
  smoke: bool = False,
  seed: int = 0,
) -> Row:
  """Trains as long as there is time and returns what is in overoptimisation.json.

  Raises:
    ValueError: `quickstart` holds no finished quick start, or numbers that cannot be.
  """
  needed = ("sft", "rm", "world/truth-heldout.jsonl", "world/prompts-train.jsonl")
  behind_quickstart.check(quickstart, needed)
  if min(steps, every, minutes) <= 0:
    raise ValueError(f"steps={steps}, every={every}, minutes={minutes}: above 0")
  entry.compilation_cache(workdir.resolve() / "xla_cache")
  c = recipe(quickstart, workdir, steps, every, smoke, seed)
  train(c, workdir / "rlhf", minutes)
  truths = {
    row["id"]: row
    for row in build.read_jsonl(quickstart / "world" / "truth-heldout.jsonl")
  }
  exams = workdir / "rlhf" / "heldout.jsonl"
  rows = build.read_jsonl(exams) if exams.exists() else []
  if not rows:
    raise ValueError(f"{exams} has no exam yet: give it more than {minutes:g} minutes")
  result = summary(scored(rows, truths, c.rewards.learned.to_dict()))
  write(workdir, result)
  print(page(result))
  return result


def recipe(
  quickstart: Path, d: Path, steps: int, every: int, smoke: bool, seed: int
) -> ConfigDict:
  """The quick start's RLHF without its KL, held longer and examined more often."""
  c = rlhf.get_config(f"algorithm=grpo{',smoke' if smoke else ''}")
  c.kl.beta = 0.0
  c.init, c.reward_model = (str(quickstart.resolve() / name) for name in ("sft", "rm"))
  c.correction.kind = "none"
  c.total_steps, c.seed = steps, seed
  c.heldout.every_steps = c.checkpoint.every_steps = every
  c.log.every_steps, c.log.prompts = 5, 2
  prompts = quickstart.resolve() / "world" / "prompts-{split}.jsonl"
  c.data.options.prompts.path = str(prompts)
  c.data.cache = str(d / "cache")
  return c


def train(c: ConfigDict, folder: Path, minutes: float) -> None:
  """Trains on, until the run has had so many minutes in all starts together."""
  clock = folder.parent / "minutes.json"
  before = json.loads(clock.read_text())["minutes"] if clock.exists() else 0.0
  done = logs.read_metrics(folder / "metrics.jsonl")
  if before >= minutes and done:
    logs.say(f"the run has had its {minutes:g} minutes")
    return
  # While a run is set up nobody else listens.
  handler = signal.signal(signal.SIGTERM, _leave)
  timer = _Timer(clock, before, minutes)
  try:
    train_rl.run(c, folder)
  except SystemExit as left:  # it has saved and left, as on any SIGTERM
    if left.code != 0 or not timer.rang:
      raise
  finally:
    timer.stop()
    signal.signal(signal.SIGTERM, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
  del number, frame
  raise SystemExit(0)


class _Timer:
  """Notes the minutes that go by, and ends the run once they are over."""

  def __init__(self, path: Path, before: float, minutes: float):
    self.rang, self._over = False, threading.Event()
    told = (path, before, minutes)
    self._thread = threading.Thread(target=self._tick, args=told, daemon=True)
    self._thread.start()

  def _tick(self, path: Path, spent: float, minutes: float) -> None:
    pause = min(5.0, minutes * 6)
    while not self._over.wait(pause):
      spent += pause / 60
      with files.aside(path) as partial:
        partial.write_text(json.dumps({"minutes": spent}))
      if spent >= minutes and not self.rang:
        self.rang = True
        os.kill(os.getpid(), signal.SIGTERM)

  def stop(self) -> None:
    self._over.set()
    self._thread.join()


# ─── Proxy and gold of the same replies ───────────────────────────────────────────────


def scored(
  rows: Sequence[Row], truths: Mapping[str, Row], weights: Mapping[str, float]
) -> list[Row]:
  """Exam rows with "gold" by dimension and their mean by the weights of the proxy.

  Raises:
    ValueError: a dialogue whose truth is not known.
  """
  shared = {name: weights[name] for name in gold.DIMENSIONS if weights.get(name)}
  unknown = sorted({row["dialogue_id"] for row in rows} - set(truths))
  if unknown or not shared:
    raise ValueError(f"no truth of {unknown[:3]}, or no weight of {gold.DIMENSIONS}")
  out = []
  for row in rows:
    found = gold.score(truths[row["dialogue_id"]], row["text"])
    mean = sum(weight * found[name] for name, weight in shared.items())
    proxy = row["objective"]
    whole = sum(weights.values())
    out.append(
      row
      | {"gold": found, "gold_mean": mean / sum(shared.values())}
      | {"proxy": None if proxy is None else proxy / whole}
    )
  return out


def summary(rows: Sequence[Row]) -> Row:
  """A point an exam, and how far gold has fallen from where it was highest.

  √KL is that of a whole reply: the mean over replies of k3 summed over the tokens.
  """
  by_step: dict[int, list[Row]] = {}
  for row in rows:
    by_step.setdefault(row["step"], []).append(row)
  points = [_point(step, part) for step, part in sorted(by_step.items())]
  best = max(points, key=lambda point: point["gold"]["mean"])
  last = points[-1]
  return {
    "simulated": True,
    "points": points,
    "best_step": best["step"],
    "fall": _apart(by_step[best["step"]], by_step[last["step"]], "gold_mean"),
    "gain": _apart(by_step[points[0]["step"]], by_step[last["step"]], "proxy"),
  }


def _point(step: int, rows: Sequence[Row]) -> Row:
  """One exam."""
  kl = float(np.mean([row["kl"] * row["tokens"] for row in rows]))
  return {
    "step": step,
    "replies": len(rows),
    "root_kl": math.sqrt(max(kl, 0.0)),
    "proxy": _mean(rows, "proxy"),
    "gold": _mean(rows, "gold_mean"),
    "dimensions": {
      name: float(np.mean([row["gold"][name] for row in rows]))
      for name in gold.DIMENSIONS
    },
    "tokens": float(np.mean([row["tokens"] for row in rows])),
    "entropy": float(np.mean([row["entropy"] for row in rows])),
    "masked": float(np.mean([row["proxy"] is None for row in rows])),
  }


def _mean(rows: Sequence[Row], key: str) -> Row:
  """Of the replies that have it, with an interval over prompts; None if none has."""
  known = [row for row in rows if row[key] is not None]
  if not known:
    return {"mean": None, "low": None, "high": None}
  values = [row[key] for row in known]
  asked = [row["prompt_id"] for row in known]
  low, high = intervals.clustered(values, [1.0] * len(values), asked)
  return {"mean": float(np.mean(values)), "low": low, "high": high}


def _apart(before: Sequence[Row], after: Sequence[Row], key: str) -> Row | None:
  """Mean change by prompt, with its interval; None where no prompt has both."""
  first, last = ({} for _ in range(2))
  for rows, found in ((before, first), (after, last)):
    for row in rows:
      if row[key] is not None:
        found.setdefault(row["prompt_id"], []).append(row[key])
  change = [
    np.mean(last[name]) - np.mean(first[name]) for name in first if name in last
  ]
  if not change:
    return None
  low, high = intervals.bootstrap(change)
  return {"mean": float(np.mean(change)), "low": low, "high": high, "n": len(change)}


# ─── Told ─────────────────────────────────────────────────────────────────────────────


def write(d: Path, result: Row) -> None:
  behind_quickstart.write(
    d, "overoptimisation", result, page(result), lambda: plot(result)
  )


def page(result: Row) -> str:
  """In Markdown."""
  lines = [
    "# Proxy and gold of RLHF without a KL (simulated listeners)",
    "",
    "Held-out replies; proxy: the learned rewards' weighted mean, of replies whose "
    "thought closed; gold: 1 to 5, the same weights, of all replies; 95 % intervals "
    "over prompts; √KL to the start in nats, of a whole reply.",
    "",
    "| step | √KL | proxy | gold | tokens | entropy | masked |",
    "|---|---|---|---|---|---|---|",
  ]
  for point in result["points"]:
    lines.append(
      f"| {point['step']} | {point['root_kl']:.2f} | {_cell(point['proxy'])} | "
      f"{_cell(point['gold'])} | {point['tokens']:.1f} | {point['entropy']:.3f} | "
      f"{point['masked']:.1%} |"
    )
  last = result["points"][-1]["step"]
  lines += [
    "",
    f"Proxy from the start to step {last}: {_cell(result['gain'], '+')}. Gold is "
    f"highest at step {result['best_step']}; from there to step {last}: "
    f"{_cell(result['fall'], '+')}, paired by prompt. The highest of several exams is "
    "chosen after the fact, so a fall is somewhat overstated.",
    "",
  ]
  return "\n".join(lines)


def _cell(entry: Row | None, sign: str = "") -> str:
  if entry is None or entry["mean"] is None:
    return "–"
  mean, low, high = (format(entry[k], f"{sign}.2f") for k in ("mean", "low", "high"))
  return f"{mean} [{low}, {high}]"


def plot(result: Row) -> Figure:
  """Both against √KL, each with its own scale."""
  figure = Figure(figsize=(6.4, 4), layout="constrained")
  left = figure.subplots()
  right = left.twinx()
  for panel, key, colour in ((left, "proxy", "C0"), (right, "gold", "C1")):
    told = [p for p in result["points"] if p[key]["mean"] is not None]
    x = [point["root_kl"] for point in told]
    mean = np.array([point[key]["mean"] for point in told])
    ends = [np.array([point[key][end] for point in told]) for end in ("low", "high")]
    away = [mean - ends[0], ends[1] - mean]
    panel.errorbar(x, mean, yerr=away, color=colour, marker="o", capsize=2)
    panel.set_ylabel(key, color=colour)
  left.set(xlabel="√KL to the SFT start (nats)", title="β = 0 (simulated listeners)")
  return figure


def _given(value: int | None, default: int) -> int:
  return default if value is None else value


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.overoptimisation",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--run", type=Path, required=True, metavar="DIR", help="a finished quick start")
  add("--workdir", type=Path, required=True, metavar="DIR")
  add("--steps", type=int, metavar="N", help="at most; 800, smoke 4")
  add("--every", type=int, metavar="N", help="steps between exams; 40, smoke 2")
  add("--minutes", type=float, default=60.0, metavar="M", help="at most, default 60")
  add("--seed", type=int, default=0)
  add("--smoke", action="store_true", help="seconds, for tests")
  given = parser.parse_args(argv)
  with errors.readable("overoptimisation"):
    run(
      given.run,
      given.workdir,
      steps=_given(given.steps, 4 if given.smoke else 800),
      every=_given(given.every, 2 if given.smoke else 40),
      minutes=given.minutes,
      smoke=given.smoke,
      seed=given.seed,
    )


if __name__ == "__main__":
  main()
