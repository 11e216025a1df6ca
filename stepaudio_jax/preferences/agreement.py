"""How far raters agree in each dimension: Krippendorff's α with its interval.

  python -m stepaudio_jax.preferences agreement all.jsonl --json agreement.json

α (ordinal) is 1 where raters agree and 0 where they do no better than chance; the
interval is a bootstrap's (95 %) over dialogues. Beside it: how often two raters of one
comparison give the same value, and how often, where both choose, the same side. Scores
of single replies have a table of their own.
"""

import argparse
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import agreement
from stepaudio_jax.data.panels import Panel
from stepaudio_jax.pages import words
from stepaudio_jax.preferences import files, tables


def flags(out: argparse.ArgumentParser) -> None:
  out.add_argument("path", metavar="FILE", help="of preferences, JSON Lines")
  out.add_argument("--json", metavar="OUT", dest="out", help="the same, as JSON")


def run(path: epath.PathLike, *, out: epath.PathLike | None = None) -> int:
  """Prints both tables.

  Raises:
    ValueError: rows that are wrong.
  """
  panel = Panel([entry.sample for entry in files.read([path])])
  report = measured(panel)
  print(told(report))
  if out:
    files.write_json(out, report)
  return 0


def measured(panel: Panel) -> dict[str, Any]:
  """Agreement by dimension, of `labels` (comparisons) and `scores` (replies).

  Of each: units with two values or more, their values, units with one (alone), how many
  values are different; α and its interval, which fine scales do not have; nominal and
  interval α; shares of pairs with the same value (same) and, of labels, on the same
  side (side). None where it cannot be known.
  """
  return {
    "raters": len(panel.raters),
    "comparisons": len(panel.dialogues),
    "dialogues": len({*panel.dialogues}),
    "repeated": panel.repeated,
    "labels": {name: _labels(panel, name) for name in panel.dimensions},
    "scores": {
      name: _measured(panel.scores(name), panel.dialogues * 2) for name in panel.scored
    },
  }


def _labels(panel: Panel, dimension: str) -> dict[str, Any]:
  value_NJ = panel.labels(dimension)
  side = agreement.same(agreement.sides(value_NJ))
  return _measured(value_NJ, panel.dialogues) | {"side": side}


def _measured(value_NJ: np.ndarray, dialogues: tuple[str, ...]) -> dict[str, Any]:
  different = len(np.unique(value_NJ[~np.isnan(value_NJ)]))
  coarse = different <= agreement.MOST_VALUES
  ends = coarse and agreement.alpha_interval(value_NJ, dialogues)
  low, high = ends or (None, None)
  return {
    **agreement.size(value_NJ),
    "different": different,
    "alpha": agreement.alpha(value_NJ),
    "low": low,
    "high": high,
    "nominal": agreement.alpha(value_NJ, "nominal"),
    "interval": agreement.alpha(value_NJ, "interval"),
    "same": agreement.same(value_NJ),
  }


def told(report: dict[str, Any]) -> str:
  """The report as tables."""
  parts = [
    f"{report['comparisons']} comparisons of {report['dialogues']} dialogues, "
    f"{report['raters']} raters"
  ]
  if report["repeated"]:
    parts[0] += (
      f"; {report['repeated']} rows left out, whose rater had been asked before"
    )
  for kind, what in (("labels", "choices"), ("scores", "scores")):
    if report[kind]:
      parts.append(_table(report[kind], what))
      parts += [
        f"No interval for {name}: {one['different']} different {what} are more than "
        f"{agreement.MOST_VALUES}."
        for name, one in report[kind].items()
        if one["different"] > agreement.MOST_VALUES
      ]
  if not any(one["units"] for one in report["labels"].values()):
    parts.append("No comparison has two raters: nothing can be said of agreement.")
  return "\n\n".join(parts)


def _table(found: dict[str, dict[str, Any]], what: str) -> str:
  head = [what, "units", "values", "rated once", "α ordinal [95 %]", "α nominal"]
  head += ["α interval", "same value, %", "same side, %"]
  rows = [
    [
      name,
      one["units"],
      one["values"],
      one["alone"],
      tables.ends(one, "alpha"),
      words.number(one["nominal"], 2),
      words.number(one["interval"], 2),
      words.percent(one["same"]),
      words.percent(one.get("side")),
    ]
    for name, one in found.items()
  ]
  return tables.table(head, rows)
