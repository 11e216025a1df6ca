"""How well gaps between rewards predict raters' choices, and how that is shown."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepaudio_jax.evals.parts import intervals, tables

LEVELS = (1, 2, 3)

Row = dict[str, Any]


def entry(rows: Sequence[Row], clusters: Sequence[str]) -> Row:
  """One dimension's summary.

  Args:
    rows: of each comparison its "labels", and for both replies "reward", "silence"
      and "tokens", and "gold", see evals/reward_model.py.
    clusters: of each comparison, what it shares with others: their errors go together.

  Returns:
    Accuracies of the decided choices by model, silence, length and gold (None where
    the data lacks it), differences from both baselines, strengths and ties.

  Raises:
    ValueError: nobody has decided anything.
  """
  label_NJ = padded([row["labels"] for row in rows])
  decided_NJ = ~np.isnan(label_NJ) & (label_NJ != 0)
  if not decided_NJ.any():
    raise ValueError(f"no decided choice in {len(rows)} comparisons")
  gap_N, silent_N, longer_N = (
    np.diff(np.asarray([row[key] for row in rows], np.float64))[:, 0]
    for key in ("reward", "silence", "tokens")
  )
  model, silence, longer, shorter = (
    right(g, label_NJ) for g in (gap_N, silent_N, longer_N, -longer_N)
  )
  rule = "longer" if np.nanmean(longer) >= np.nanmean(shorter) else "shorter"
  length = longer if rule == "longer" else shorter
  known = all(row["gold"] is not None for row in rows)
  gold = right(np.asarray([row["gold"] for row in rows]), label_NJ) if known else None
  heard, ceiling = share(model, clusters), known and share(gold, clusters)
  return {
    **heard,
    "n": int(decided_NJ.sum()),
    "n_ties": int((label_NJ == 0).sum()),
    "silence": share(silence, clusters),
    "length": {**share(length, clusters), "rule": rule},
    "over_silence": _difference(model, silence, clusters),
    "over_length": _difference(model, length, clusters),
    "ceiling": ceiling or None,
    "way": _way(heard["accuracy"], ceiling["accuracy"]) if ceiling else None,
    "strength": {
      str(level): _strength(model, gap_N, label_NJ, level, clusters)
      for level in (0, *LEVELS)
    },
  }


def right(gap_N: np.ndarray, label_NJ: np.ndarray) -> np.ndarray:
  """1 where the sign of the gap is that of the choice, ½ where the gap is 0.

  NaN where nothing was decided: a tie, or no label.
  """
  same_NJ = 0.5 + 0.5 * np.sign(gap_N)[:, None] * np.sign(label_NJ)
  return np.where(label_NJ == 0, np.nan, same_NJ)


def share(right_NJ: np.ndarray, clusters: Sequence[str]) -> Row:
  """Accuracy with its interval."""
  counted_NJ = ~np.isnan(right_NJ)
  total_N, count_N = np.nansum(right_NJ, axis=1), counted_NJ.sum(axis=1)
  low, high = intervals.share(total_N, count_N, clusters)
  return {"accuracy": float(total_N.sum() / count_N.sum()), "low": low, "high": high}


def _difference(ours: np.ndarray, theirs: np.ndarray, clusters: Sequence[str]) -> Row:
  total_N, count_N = np.nansum(ours - theirs, 1), (~np.isnan(ours)).sum(axis=1)
  low, high = intervals.clustered(total_N, count_N, clusters)
  return {"mean": float(total_N.sum() / count_N.sum()), "low": low, "high": high}


def _way(accuracy: float, ceiling: float) -> float | None:
  return (accuracy - 0.5) / (ceiling - 0.5) if ceiling > 0.5 else None


def _strength(
  right_NJ: np.ndarray,
  gap_N: np.ndarray,
  label_NJ: np.ndarray,
  level: int,
  clusters: Sequence[str],
) -> Row:
  chosen_NJ = np.abs(label_NJ) == level
  gaps = np.broadcast_to(np.abs(gap_N)[:, None], label_NJ.shape)[chosen_NJ]
  told: Row = dict.fromkeys(("accuracy", "low", "high"))
  if level and len(gaps):
    told = share(np.where(chosen_NJ, right_NJ, np.nan), clusters)
  gap = float(gaps.mean()) if len(gaps) else None
  return {"n": int(chosen_NJ.sum()), **told, "gap": gap}


def padded(labels: Sequence[Sequence[int | None]]) -> np.ndarray:
  out = np.full((len(labels), max(map(len, labels))), np.nan)
  for row, given in zip(out, labels, strict=True):
    row[: len(given)] = [np.nan if label is None else label for label in given]
  return out


def accuracy_table(entries: dict[str, Row]) -> str:
  """Markdown of the entries by dimension."""
  head = "dimension|choices|ties|accuracy|length alone|silence|over silence|ceiling|way"
  rows = [
    [
      name,
      str(one["n"]),
      str(one["n_ties"]),
      _percent(one),
      f"{tables.percent(one['length']['accuracy'])} ({one['length']['rule']})",
      _percent(one["silence"]),
      _percent(one["over_silence"], "mean"),
      tables.percent(one["ceiling"] and one["ceiling"]["accuracy"]),
      tables.percent(one["way"]),
    ]
    for name, one in entries.items()
  ]
  return tables.table(head.split("|"), rows)


def strength_table(entries: dict[str, Row]) -> str:
  """Markdown: accuracy on weak to strong choices, the mean gap on ties and others."""
  head = ["dimension", *(f"accuracy at ±{n}" for n in LEVELS)]
  head += [f"gap at {'ties' if n == 0 else f'±{n}'}" for n in (0, *LEVELS)]
  rows = [
    [
      name,
      *(_percent(one["strength"][str(n)]) for n in LEVELS),
      *(_points(one["strength"][str(n)]["gap"]) for n in (0, *LEVELS)),
    ]
    for name, one in entries.items()
  ]
  return tables.table(head, rows)


def accuracy_bars(title: str, entries: dict[str, Row]) -> Figure:
  """Model, silence and length beside each other; ticks where the ceilings are."""
  figure = Figure(figsize=(1.8 + 1.3 * len(entries), 3.8), layout="constrained")
  axes, place = figure.subplots(), np.arange(len(entries))
  shown = list(entries.values())
  for offset, colour, label, bars in (
    (-0.27, tables.OURS, "reward model", shown),
    (0.0, tables.SILENCE, "on silence", [one["silence"] for one in shown]),
    (0.27, "#d9c9a3", "length alone", [one["length"] for one in shown]),
  ):
    tables.bars(axes, place + offset, bars, colour, label, width=0.25)
  ceilings = [
    (k, 100 * one["ceiling"]["accuracy"])
    for k, one in enumerate(shown)
    if one["ceiling"]
  ]
  for number, (k, height) in enumerate(ceilings):
    label = None if number else "ceiling"
    axes.hlines(height, k - 0.42, k + 0.42, "#222222", "dotted", label=label)
  axes.axhline(50, color="#b3402f", ls="dashed", lw=1.2, label="chance")
  axes.set_xticks(place, [name.replace("_", "\n") for name in entries])
  axes.set_ylim(0, 100)
  axes.set_ylabel("choices predicted, %")
  axes.set_title(title, loc="left", fontsize=10)
  axes.spines[["top", "right"]].set_visible(False)
  figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
  return figure


def _percent(one: Row, key: str = "accuracy") -> str:
  return tables.percent(one[key], one["low"], one["high"])


def _points(value: float | None) -> str:
  return "–" if value is None else f"{value:.2f}"
