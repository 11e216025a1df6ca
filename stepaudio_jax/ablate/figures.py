"""One picture a question: offline on the left, trained beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepaudio_jax.ablate import runs

OFFLINE = {
  "spearman": "Spearman in group",
  "kendall": "Kendall in group",
  "best_changes": "best reply changes",
  "correlation": "advantages correlate",
  "cosine": "gradient cosine",
}
_OURS, _THIN, _ZERO = "#2c6e9b", "#9fb9cb", "#b3402f"

Row = dict[str, Any]


def figure(name: str, question: Row) -> Figure:
  """What a question found, as far as it was asked offline and trained.

  Differences of rewards are in the rewards' own units; those of length, KL and entropy
  in percent of the control's. Thick: 95 % over seeds; thin: over prompts.
  """
  panels = []
  if "offline" in question:
    panels.append(("offline, beside the whole reward", _offline(question["offline"])))
  metrics = question.get("effects", {}).get("metrics", {})
  for title, wanted in (
    ("held-out reward, difference", (runs.WHOLE, runs.REWARD)),
    ("gold (simulated), difference", (runs.GOLD,)),
  ):
    some = {key: row for key, row in metrics.items() if key.startswith(wanted)}
    panels += [(title, _dots(some))] if some else []
  manner = {key: metrics[key] for key in runs.MANNER if key in metrics}
  if manner:
    panels.append(("manner, % of the control's", _dots(manner, relative=True)))
  rows = max((len(dots) for _, dots in panels), default=1)
  size = (3.6 * max(len(panels), 1), 1.3 + 0.32 * rows)
  out = Figure(figsize=size, layout="constrained")
  axes = np.atleast_1d(out.subplots(1, max(len(panels), 1)))
  for place, (title, dots) in zip(axes, panels, strict=False):
    _draw(place, title, dots)
  out.suptitle(name, x=0.01, ha="left", fontsize=11)
  return out


# (label, mean, (low, high) over seeds or prompts offline, (low, high) thin)
Dot = tuple[str, float, Sequence[float] | None, Sequence[float] | None]


def _offline(row: Row) -> list[Dot]:
  return [
    (label, row[key]["mean"], (row[key]["low"], row[key]["high"]), None)
    for key, label in OFFLINE.items()
    if key in row and row[key]["mean"] is not None
  ]


def _dots(metrics: Mapping[str, Row], relative: bool = False) -> list[Dot]:
  out = []
  for name, row in metrics.items():
    if row["mean"] is None or (relative and not row["control"]):
      continue
    scale = 100 / abs(row["control"]) if relative else 1.0
    ends = [
      None if part["low"] is None else (part["low"] * scale, part["high"] * scale)
      for part in (row, row["prompts"])
    ]
    out.append((name.rpartition("/")[2], row["mean"] * scale, *ends))
  return out


def _draw(axes: Any, title: str, dots: Sequence[Dot]) -> None:
  for y, (_, mean, thick, thin) in enumerate(dots):
    if thick:
      axes.plot(thick, (y, y), color=_OURS, lw=1.6, zorder=2)
    if thin:
      axes.plot(thin, (y + 0.22, y + 0.22), color=_THIN, lw=1.2, zorder=1)
    axes.plot([mean], [y], "o", color=_OURS, ms=4.5, zorder=3)
  axes.axvline(0, color=_ZERO, lw=0.9, ls="dashed", zorder=0)
  labels = [label.replace("_", " ") for label, *_ in dots]
  axes.set_yticks(range(len(dots)), labels, fontsize=8)
  axes.set_ylim(len(dots) - 0.4, -0.6)
  axes.tick_params(axis="x", labelsize=8)
  axes.set_title(title, loc="left", fontsize=9)
  axes.spines[["top", "right"]].set_visible(False)
