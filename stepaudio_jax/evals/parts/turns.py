"""Scores turn by turn: means with intervals, slopes over turns, tables and a plot."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepaudio_jax.evals.parts import intervals, tables
from stepaudio_jax.evals.parts.intervals import RESAMPLES

LEAST, MOST = 1.0, 5.0  # of every score; LEAST is that of a reply that never came
_SEED = 0  # fixed: the same scores always give the same interval

Row = dict[str, Any]


def curve(rows: Sequence[Row], name: str) -> Row:
  """A dimension over the turns of many dialogues.

  Args:
    rows: one of each dialogue and turn: its "id", "turn" (from 1), "scores" ({name:
      1…5}, or None where the reply cannot be read), "failed" (why it was never asked
      for, or None) and "asked" (the dimensions that the turn has).

  Returns:
    "turns": an `entry` for each turn that has the dimension, with "turn"; "all": that
    of all turns; "slope": see `slope`, None where only one turn has it.
  """
  rows = [row for row in rows if name in row["asked"]]
  numbers = sorted({row["turn"] for row in rows})
  by_turn = {turn: [row for row in rows if row["turn"] == turn] for turn in numbers}
  return {
    "turns": [{"turn": turn, **entry(by_turn[turn], name)} for turn in numbers],
    "all": entry(rows, name),
    "slope": slope(rows, name),
  }


def entry(rows: Sequence[Row], name: str) -> Row:
  """Mean of a dimension, a 95 % interval over dialogues, and counts.

  The interval is a bootstrap's; where all scores are equal, `intervals.bounded`.

  `mean` is over all: LEAST where nothing was asked or can be read. `mean_answered`
  leaves these out, and is None where nothing else is left.
  """
  scores = [score(row, name) for row in rows]
  names = [row["id"] for row in rows]
  low, high = intervals.clustered(scores, [1] * len(rows), names)
  if len({*scores}) == 1:  # resampling them would claim to be certain
    low, high = intervals.bounded(scores[:1] * len({*names}), LEAST, MOST)
  read = [row["scores"][name] for row in rows if not row["failed"]]
  answered = [one for one in read if one is not None]
  return {
    "n": len(rows),
    "n_failed": len(rows) - len(read),
    "n_unparsed": len(read) - len(answered),
    "mean": sum(scores) / len(scores),
    "low": low,
    "high": high,
    "mean_answered": sum(answered) / len(answered) if answered else None,
  }


def score(row: Row, name: str) -> float:
  """What a row counts: LEAST without a reply that can be read."""
  found = None if row["failed"] else row["scores"][name]
  return LEAST if found is None else found


def slope(rows: Sequence[Row], name: str) -> Row | None:
  """Least squares through the means of the turns, every turn alike.

  Returns:
    "per_turn", and "low" and "high" of its bootstrap 95 % interval over whole
    dialogues; None where fewer than two turns have the dimension.
  """
  turn_T, row_turn = np.unique([row["turn"] for row in rows], return_inverse=True)
  if len(turn_T) < 2:
    return None
  names, row_name = np.unique([row["id"] for row in rows], return_inverse=True)
  total_DT, count_DT = np.zeros((2, len(names), len(turn_T)))
  np.add.at(total_DT, (row_name, row_turn), [score(row, name) for row in rows])
  np.add.at(count_DT, (row_name, row_turn), 1)
  generator = np.random.default_rng(_SEED)
  drawn_RD = generator.multinomial(
    len(names), np.full(len(names), 1 / len(names)), RESAMPLES
  )
  slopes = _slopes(turn_T, drawn_RD @ total_DT, drawn_RD @ count_DT)
  low, high = np.nanpercentile(slopes, [2.5, 97.5])
  (found,) = _slopes(turn_T, total_DT.sum(0)[None], count_DT.sum(0)[None])
  return {"per_turn": float(found), "low": float(low), "high": float(high)}


def _slopes(
  turn_T: np.ndarray, total_RT: np.ndarray, count_RT: np.ndarray
) -> np.ndarray:
  """Of each row; NaN where it has fewer than two turns."""
  weight_RT = (count_RT > 0).astype(np.float64)
  mean_RT = total_RT / np.maximum(count_RT, 1)
  turns_R = np.maximum(weight_RT.sum(1, keepdims=True), 1)
  from_middle_RT = turn_T[None] - (weight_RT * turn_T).sum(1, keepdims=True) / turns_R
  rise_R = (weight_RT * from_middle_RT * mean_RT).sum(1)
  spread_R = (weight_RT * from_middle_RT**2).sum(1)
  return np.where(spread_R > 0, rise_R / np.where(spread_R > 0, spread_R, 1), np.nan)


def means_table(curves: dict[str, Row]) -> str:
  """Markdown: a row for each turn, a column for each dimension."""
  names = [*curves]
  numbers = sorted({one["turn"] for name in names for one in curves[name]["turns"]})
  cells = {
    (one["turn"], name): f"{interval(one)} ({counts(one)})"
    for name in names
    for one in curves[name]["turns"]
  }
  rows = [
    [str(turn), *(cells.get((turn, name), "–") for name in names)] for turn in numbers
  ]
  every = [f"{interval(curves[n]['all'])} ({counts(curves[n]['all'])})" for n in names]
  return tables.table(["turn", *names], [*rows, ["all", *every]])


def slope_table(curves: dict[str, Row]) -> str:
  """Markdown: slope and mean of each dimension beside those in silence."""
  rows = []
  for name, heard in curves.items():
    quiet = heard["silence"]
    read = heard["all"]["mean_answered"]
    rows.append([name, _slope(heard), interval(heard["all"])])
    rows[-1].append("–" if read is None else f"{read:.2f}")
    rows[-1] += [_slope(quiet), interval(quiet["all"])] if quiet else ["–", "–"]
  head = "dimension|slope per turn|mean|of what was read|slope in silence|in silence"
  return tables.table(head.split("|"), rows)


def interval(entry: Row) -> str:
  """ "3.20 [2.91, 3.48]"."""
  return f"{entry['mean']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def counts(entry: Row) -> str:
  """ "n 64, 2 unparsed, 1 failed": what is 0 is left out."""
  parts = [f"n {entry['n']}"]
  for key in ("unparsed", "failed"):
    parts += [f"{entry[f'n_{key}']} {key}"] if entry[f"n_{key}"] else []
  return ", ".join(parts)


def _slope(curve: Row) -> str:
  found = curve["slope"]
  if found is None:
    return "–"
  return f"{found['per_turn']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def panels(title: str, curves: dict[str, Row]) -> Figure:
  """One panel for each dimension: mean and interval against turn, and in silence."""
  columns = min(3, len(curves))
  lines = -(-len(curves) // columns)
  figure = Figure(figsize=(3.3 * columns, 2.5 * lines + 0.7), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
  for axes, (name, heard) in zip(grid.flat, curves.items(), strict=False):
    for curve, colour, label in (
      (heard["silence"], tables.SILENCE, "silence"),
      (heard, tables.OURS, "audio"),
    ):
      if curve:
        _line(axes, curve["turns"], colour, label)
    axes.set_title(name.replace("_", " "), loc="left", fontsize=9)
    axes.set_ylim(LEAST - 0.2, MOST + 0.2)
    axes.spines[["top", "right"]].set_visible(False)
  for axes in grid.flat[len(curves) :]:
    axes.set_visible(False)
  _whole_turns(grid[0, 0], curves.values())
  figure.supxlabel("turn", fontsize=9)
  figure.supylabel("score, 1 to 5", fontsize=9)
  figure.suptitle(title, fontsize=10)
  handles, labels = grid[0, 0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc="outside lower right", ncols=2, frameon=False, fontsize=8
  )
  return figure


def _line(axes: Any, entries: Sequence[Row], colour: str, label: str) -> None:
  turn, mean, low, high = (
    np.asarray([one[key] for one in entries], np.float64)
    for key in ("turn", "mean", "low", "high")
  )
  axes.fill_between(turn, low, high, color=colour, alpha=0.25, lw=0)
  axes.plot(turn, mean, "o-", color=colour, label=label, ms=3.5, lw=1.5)


def _whole_turns(axes: Any, curves: Iterable[Row]) -> None:
  last = max(one["turn"] for curve in curves for one in curve["turns"])
  axes.set_xlim(0.6, last + 0.4)
  axes.set_xticks(range(1, last + 1, max(1, last // 8)))
