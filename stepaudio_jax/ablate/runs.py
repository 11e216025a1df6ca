"""What finished runs say of themselves: numbers by prompt, to be paired."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax import logs
from stepaudio_jax.ablate import arms, intervals
from stepaudio_jax.ablate.arms import Arm

# Of held-out replies, beside their rewards.
MANNER = ("tokens", "kl", "entropy")
REWARD, WHOLE, GOLD, ACCURACY = "reward/", "objective", "gold/", "gold/accuracy"
GOLD_MEAN = "gold/mean"

Row = dict[str, Any]
ByPrompt = dict[str, dict[str, float]]  # {metric: {prompt: value}}


def measured(folder: epath.Path, weights: Mapping[str, float]) -> ByPrompt:
  """What a run ended with, on the prompts that it never learnt from.

  Args:
    weights: of the whole reward, whatever the run was rewarded by.

  Returns:
    By "objective" (the whole reward's weighted sum), "reward/<dimension>", "tokens",
    "kl", "entropy" and, where the gold listener was asked, "gold/<dimension>",
    "gold/mean" and "gold/accuracy": means over a prompt's replies. A prompt all of
    whose replies lack a value has none.
  """
  rows = logs.read_metrics(folder / "heldout.jsonl")
  last = max(row["step"] for row in rows)
  found: dict[str, dict[str, list[float]]] = {}
  for row in rows:
    if row["step"] == last:
      for name, value in _values(row, weights).items():
        found.setdefault(name, {}).setdefault(_asked(row), []).append(value)
  heard = {
    name: {prompt: _mean(some) for prompt, some in by_prompt.items()}
    for name, by_prompt in found.items()
  }
  return heard | gold(folder)


def _asked(row: Row) -> str:
  return f"{row['prompt_id']} turn {row['turn']}" if "turn" in row else row["prompt_id"]


def _values(row: Row, weights: Mapping[str, float]) -> dict[str, float]:
  reward = {name: _number(value) for name, value in row["reward"].items()}
  whole = sum(w * reward[name] for name, w in weights.items() if w)
  out = {WHOLE: whole} | {f"{REWARD}{name}": r for name, r in reward.items()}
  return out | {name: _number(row[name]) for name in MANNER}


def gold(folder: epath.Path) -> ByPrompt:
  """What the world's gold listener says, by dialogue; {} where it was not asked.

  An answer that cannot be read is wrong; an item that could not be asked is left out.
  """
  path = folder / arms.EVALUATION / "world.items.jsonl"
  if not path.with_name("world.json").exists():
    return {}
  out: ByPrompt = {}
  for line in path.read_text().splitlines():
    item = json.loads(line)
    if item["condition"] != "audio" or item["failed"]:
      continue
    scores = {f"{GOLD}{name}": value for name, value in item["scores"].items()}
    scores |= {GOLD_MEAN: _mean([*scores.values()])}
    scores |= {ACCURACY: float(item["correct"] is True)}
    for name, value in scores.items():
      out.setdefault(name, {})[item["id"]] = value
  return out


def _number(value: float | None) -> float:
  return float("nan") if value is None else value


def _mean(values: Sequence[float]) -> float:
  known = [value for value in values if np.isfinite(value)]
  return float(np.mean(known)) if known else float("nan")


def effects(
  found: Mapping[str, ByPrompt],
  control: Sequence[Arm],
  asked: Sequence[Arm],
  draws: int,
) -> Row:
  """A question's runs against the control's, paired by seed and prompt.

  The interval to judge by is over seeds: runs of one seed differ by what chance does to
  training, too, and only other seeds show how much. Beside it stands one over prompts,
  which says how sure the difference is for these very runs and no others; with many
  prompts it is far narrower, and taken alone would find effects everywhere.

  Args:
    found: `measured` by the names of runs that are done.
    control, asked: by seed, in the same order.

  Returns:
    By metric: `intervals.over_seeds` of the difference, its means "by_seed", "prompts"
    {"low", "high"}, "control" and "arm" (means), "pairs" of prompts, and how many are
    "missing" on either side.
  """
  pairs = [
    (found[a.name], found[b.name], a.seed)
    for a, b in zip(control, asked, strict=True)
    if a.name in found and b.name in found
  ]
  out: Row = {"seeds": [seed for *_, seed in pairs], "metrics": {}}
  if pairs:
    names = [
      name for name in pairs[0][0] if all(name in p[k] for p in pairs for k in (0, 1))
    ]
    out["metrics"] = {name: _effect(name, pairs, draws) for name in names}
  return out


def _effect(name: str, pairs: Sequence[tuple], draws: int) -> Row:
  prompts = sorted({key for one, two, _ in pairs for key in (*one[name], *two[name])})
  both_2SP = np.asarray(
    [
      [[side[name].get(key, np.nan) for key in prompts] for side in (one, two)]
      for one, two, _ in pairs
    ]
  ).swapaxes(0, 1)
  known_SP = np.isfinite(both_2SP).all(0)
  gap_SP = np.where(known_SP, both_2SP[1] - both_2SP[0], 0.0)
  with np.errstate(invalid="ignore"):
    by_seed_S = gap_SP.sum(1) / known_SP.sum(1)
    sides = np.where(known_SP, both_2SP, 0.0).sum((1, 2)) / known_SP.sum()
  stat_P2 = np.stack([gap_SP.sum(0), known_SP.sum(0) * 1.0], 1)
  over_prompts = intervals.resampled(stat_P2, intervals.ratio, draws)
  return {
    **intervals.over_seeds(by_seed_S.tolist()),
    "by_seed": {
      str(seed): _or_none(x) for (*_, seed), x in zip(pairs, by_seed_S, strict=True)
    },
    "prompts": {end: over_prompts[end] for end in ("low", "high")},
    "control": _or_none(sides[0]),
    "arm": _or_none(sides[1]),
    "pairs": int(known_SP.sum()),
    "missing": int((~known_SP).sum()),
  }


def _or_none(value: float) -> float | None:
  return float(value) if np.isfinite(value) else None


def means(found: ByPrompt) -> dict[str, float | None]:
  """{metric: its mean over prompts}."""
  return {name: _or_none(_mean([*values.values()])) for name, values in found.items()}
