"""From scored items to what a table shows: metrics with intervals, by group, drops."""

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepaudio_jax.evals.parts import intervals
from stepaudio_jax.evals.parts.items import Score

Row = dict[str, Any]
Metrics = Mapping[str, Callable[[Score], float]]


def summary(rows: Sequence[Row], metrics: Metrics, samples: int) -> Row:
  """Everything that one benchmark's items say.

  Args:
    rows: items as parts/suite.py writes them, whose "metrics" hold {name: number or
      None}; of several samples of an item the mean counts.
    metrics: their names, the one of the table first.
    samples: replies to each item.
  """
  free = [row for row in rows if row["budget"] is None]
  heard = [row for row in free if row["condition"] == "audio"]
  controls = [name for name in _seen(free, "condition") if name != "audio"]
  budgets = [budget for budget in _seen(rows, "budget") if budget is not None]
  main = next(iter(metrics))
  return {
    **counted(heard, metrics),
    "official": official(heard),
    "groups": by_group(heard, lambda some: counted(some, metrics)),
    "conditions": {
      name: _control(heard, [r for r in free if r["condition"] == name], metrics, main)
      for name in controls
    },
    "samples": _samples(heard, main, samples) if samples > 1 else None,
    "budgets": [
      _budget([row for row in rows if row["budget"] == budget], budget, metrics)
      for budget in budgets
    ]
    or None,
    "thinking": _thinking(heard),
    "chance": chance(heard),
  }


def counted(rows: Sequence[Row], metrics: Metrics) -> Row:
  """n, n_failed, n_unparsed and the metrics of some replies.

  A reply that failed or gives no answer counts 0; "answered" leaves both out.
  """
  return {
    "n": len({row["id"] for row in rows}),
    "n_failed": sum(row["failed"] is not None for row in rows),
    "n_unparsed": sum(row["failed"] is None and row["score"] is None for row in rows),
    "metrics": {name: metric(rows, name) for name in metrics},
  }


def metric(rows: Sequence[Row], name: str) -> Row:
  """Mean over items, its 95 % interval, and the mean over answered replies."""
  values = [*per_item(rows, name).values()]
  low, high = _interval(values)
  answered = [row["metrics"][name] for row in rows if row["score"] is not None]
  return {
    "mean": math.fsum(values) / len(values),
    "low": low,
    "high": high,
    "n": len(values),
    "answered": math.fsum(answered) / len(answered) if answered else None,
  }


def per_item(rows: Sequence[Row], name: str) -> dict[str, float]:
  """{id: mean over samples}; 0 where there is no answer."""
  found: dict[str, list[float]] = collections.defaultdict(list)
  for row in rows:
    found[row["id"]].append(row["metrics"][name] or 0.0)
  return {item: math.fsum(values) / len(values) for item, values in found.items()}


def _interval(values: Sequence[float]) -> intervals.Interval:
  """Of values from 0 to 1: Wilson's of right and wrong, else `intervals.bounded`."""
  if all(value in (0, 1) for value in values):
    return intervals.wilson(int(sum(values)), len(values))
  return intervals.bounded(values, 0, 1)


def by_group(rows: Sequence[Row], made: Callable[[list[Row]], Row]) -> Row:
  """{kind of group: {group: what is made of its rows}}, in the order of the files."""
  found: dict[str, dict[str, list[Row]]] = {}
  for row in rows:
    for kind, group in row["groups"].items():
      found.setdefault(kind, {}).setdefault(group, []).append(row)
  return {
    kind: {group: made(some) for group, some in groups.items()}
    for kind, groups in found.items()
  }


def official(rows: Sequence[Row]) -> Row | None:
  """Mean of the published rule over what it counts; None where there is no rule."""
  ruled = [row for row in rows if "official" in row and row["sample"] == 0]
  if not ruled:
    return None
  values = [row["official"] for row in ruled if row["official"] is not None]
  return {
    "mean": math.fsum(values) / len(values) if values else None,
    "n": len(values),
    "left_out": len(ruled) - len(values),
  }


def _control(heard: list[Row], rows: list[Row], metrics: Metrics, main: str) -> Row:
  def drop_in(some: Sequence[Row]) -> Row:
    ids = {row["id"] for row in some}
    return drop(some, [row for row in rows if row["id"] in ids], main)

  return {
    **counted(rows, metrics),
    "groups": by_group(rows, lambda some: counted(some, metrics)),
    "drop": drop(heard, rows, main),
    "group_drops": by_group(heard, drop_in),
  }


def drop(heard: Sequence[Row], control: Sequence[Row], name: str) -> Row | None:
  """Mean loss of an item without its sound, with an interval over items.

  Items that could not be asked both ways are left out: a prompt that is too long with
  another's clip has not lost its sound. None where no item is left.
  """
  failed = {row["id"] for row in (*heard, *control) if row["failed"] is not None}
  with_sound, without = per_item(heard, name), per_item(control, name)
  lost = [
    value - without[item] for item, value in with_sound.items() if item not in failed
  ]
  if not lost:
    return None
  low, high = intervals.bounded(lost, -1, 1)
  return {"mean": math.fsum(lost) / len(lost), "low": low, "high": high, "n": len(lost)}


def _samples(rows: Sequence[Row], name: str, samples: int) -> Row:
  """pass@k and the vote of the majority."""
  found: dict[str, list[Row]] = collections.defaultdict(list)
  for row in rows:
    found[row["id"]].append(row)
  rights = [
    sum((row["metrics"][name] or 0.0) >= 1 for row in some) for some in found.values()
  ]
  sizes = sorted({1, samples, *(2**n for n in range(samples.bit_length()))})
  votes = [majority(some, name) for some in found.values()]
  voted = any(row["extracted"] is not None for row in rows)
  return {
    "k": samples,
    "pass": {
      str(k): _mean([pass_at(k, samples, right) for right in rights])
      for k in sizes
      if k <= samples
    },
    "majority": _mean(votes) if voted else None,
  }


def pass_at(k: int, n: int, right: int) -> float:
  """1 − C(n − c, k) / C(n, k), unbiased (Chen et al. 2021, arXiv:2107.03374, eq. 1)."""
  return 1 - math.comb(n - right, k) / math.comb(n, k)


def majority(rows: Sequence[Row], name: str) -> float:
  """What the most frequent extracted answer is worth; of several the one said first."""
  said = [row for row in rows if row["extracted"] is not None]
  if not said:
    return 0.0
  answers = [row["extracted"].strip().casefold() for row in said]
  winner = collections.Counter(answers).most_common(1)[0][0]
  return said[answers.index(winner)]["metrics"][name] or 0.0


def _budget(rows: Sequence[Row], budget: int, metrics: Metrics) -> Row:
  return {"budget": budget, "think_tokens": _thinking(rows), **counted(rows, metrics)}


def _thinking(rows: Sequence[Row]) -> Row | None:
  """Tokens of the thoughts."""
  tokens = [row["think_tokens"] for row in rows if row["think_tokens"] is not None]
  return _mean(tokens, intervals.bootstrap) if tokens else None


def _mean(
  values: Sequence[float],
  interval: Callable[[Sequence[float]], intervals.Interval] = _interval,
) -> Row:
  low, high = interval(values)
  mean = math.fsum(values) / len(values)
  return {"mean": mean, "low": low, "high": high, "n": len(values)}


def chance(rows: Sequence[Row]) -> float | None:
  """Accuracy of guesses among the choices; None where an item has none."""
  if not all(row["choices"] for row in rows):
    return None
  return math.fsum(1 / len(row["choices"]) for row in rows) / len(rows)


def _seen(rows: Sequence[Row], key: str) -> list[Any]:
  return list(dict.fromkeys(row[key] for row in rows))
