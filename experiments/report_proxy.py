"""The reward that an arm maximised beside gold scores of the same replies (simulated).

What was maximised is a proxy: it can rise while what it stands for falls.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import report_files
from experiments.report_policies import difference_of, sign
from stepaudio_jax.data.world import gold
from stepaudio_jax.evals.parts import intervals

PART = 5  # the first and the last fifth of the steps are compared

Row = dict[str, Any]


def scored(rows: Sequence[Row], truths: Mapping[str, Row], at: str) -> list[Row]:
  """Sampled replies with {"gold": {dimension: 1…5}, "gold_mean"} beside the rewards."""
  out = []
  for row in rows:
    truth = report_files.truth(truths, row["dialogue_id"], at)
    scores = gold.score(truth, row["text"])
    mean = sum(scores.values()) / len(scores)
    out.append(row | {"gold": scores, "gold_mean": mean, "task": truth["task"]})
  return out


def by_step(
  rows: Sequence[Row], value: Callable[[Row], float | None]
) -> dict[int, float | None]:
  """Step → mean over its replies that have a value; None where none has."""
  found: dict[int, list[float]] = {}
  for row in rows:
    one = value(row)
    found.setdefault(row["step"], []).extend([] if one is None else [one])
  return {step: sum(x) / len(x) if x else None for step, x in sorted(found.items())}


def ends(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
  """Rows of the first and of the last fifth of the steps, at least one step each."""
  steps = sorted({row["step"] for row in rows})
  count = max(1, len(steps) // PART)
  first, last = set(steps[:count]), set(steps[-count:])
  return [r for r in rows if r["step"] in first], [r for r in rows if r["step"] in last]


def dimensions(rows: Sequence[Row]) -> list[Row]:
  """Learned rewards that have a gold namesake: both at the two ends, and agreement."""
  early, late = ends(rows)
  out = []
  for name in (n for n in gold.DIMENSIONS if n in rows[0]["reward"]):

    def proxy(row: Row, name: str = name) -> float | None:
      return row["reward"][name]

    def truth(row: Row, name: str = name) -> float:
      return row["gold"][name]

    out.append(
      {
        "name": name,
        "proxy": [_mean(part, proxy) for part in (early, late)],
        "gold": [_mean(part, truth) for part in (early, late)],
        "agreement": [agreement(part, proxy, truth) for part in (early, late)],
      }
    )
  return out


def agreement(
  rows: Sequence[Row],
  proxy: Callable[[Row], float | None],
  truth: Callable[[Row], float],
) -> dict[str, Any] | None:
  """Share of pairs of replies to a prompt that the proxy puts in gold's order.

  Pairs that gold finds equal say nothing and are left out; equal proxies count half.
  The 95 % interval is by bootstrap over prompts. None: no such pair.
  """
  groups: dict[tuple[int, str], list[Row]] = {}
  for row in rows:
    if proxy(row) is not None:
      groups.setdefault((row["step"], row["prompt_id"]), []).append(row)
  names, hits = [], []
  for (_, prompt), group in groups.items():
    for a, b in itertools.combinations(group, 2):
      real = truth(a) - truth(b)
      if real:
        hits.append((1 + float(np.sign(real) * np.sign(proxy(a) - proxy(b)))) / 2)
        names.append(prompt)
  if not hits:
    return None
  low, high = intervals.clustered(hits, [1] * len(hits), names)
  share = sum(hits) / len(hits)
  return {"share": share, "low": low, "high": high, "n": len(hits)}


def gold_gain(rows: Sequence[Row]) -> dict[str, Any]:
  """Gold mean on held-out prompts, last step against first, paired by prompt."""
  first, last = min(r["step"] for r in rows), max(r["step"] for r in rows)
  means = []
  for step in (first, last):
    found: dict[str, list[float]] = {}
    for row in rows:
      if row["step"] == step:
        found.setdefault(row["prompt_id"], []).append(row["gold_mean"])
    means.append({name: sum(x) / len(x) for name, x in found.items()})
  before, after = means
  names = sorted(before.keys() & after.keys())
  gain = difference_of([after[name] - before[name] for name in names])
  return {
    "start": sum(before[name] for name in names) / len(names),
    "end": sum(after[name] for name in names) / len(names),
    "gain": gain["mean"],
    "low": gain["low"],
    "high": gain["high"],
    "sign": gain["sign"],
  }


def moved(objective: Mapping[str, Any], gold_: Mapping[str, Any]) -> str:
  """What an arm's proxy and gold did on held-out prompts, in a sentence."""
  words = {"up": "rose", "down": "fell", "unclear": "did not clearly move"}
  if objective["gain"] is None:
    return f"No reply had a reward; gold {words[gold_['sign']]}."
  ours, theirs = sign(objective), gold_["sign"]
  if ours == theirs == "unclear":
    return "Neither its own objective nor gold clearly moved."
  if ours == theirs:
    return f"Its own objective {words[ours]}, and so did gold."
  return f"Its own objective {words[ours]}, gold {words[theirs]}."


def _mean(rows: Sequence[Row], value: Callable[[Row], float | None]) -> float | None:
  found = [v for v in map(value, rows) if v is not None]
  return sum(found) / len(found) if found else None
