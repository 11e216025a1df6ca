"""Pictures of a reward model beside that of its accuracies."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax.evals.parts import tables

_AFTER, _GOLD, _CHANCE = tables.OURS, "#b8862d", "#b3402f"
_SOUNDS = {"silence": tables.SILENCE, "swapped": "#7fa3bd", "flat": "#d9c9a3"}
_ACROSS = 4  # panels beside each other

Row = dict[str, Any]


def plots(result: Row) -> dict[str, Callable[[], Figure]]:
  """By name what draws a figure; those for which there is nothing are left out."""
  out = {"reliability": reliability, "sound": sound}
  if result["own"]:
    out["own"] = own
  if result["best_of_n"]["curve"]:
    out["best_of_n"] = best_of_n
  if result["optimised"]:
    out["optimised"] = optimised
  return {name: functools.partial(draw, result) for name, draw in out.items()}


def reliability(result: Row) -> Figure:
  """Share of wins against the probability that was told, a panel a dimension."""
  entries = result["dimensions"]
  figure, panels = _panels(len(entries))
  for axes, (name, one) in zip(panels, entries.items(), strict=False):
    told = one["calibration"]
    axes.plot([0, 100], [0, 100], color=_CHANCE, ls="dashed", lw=1)
    for key, colour in (("before", tables.SILENCE), ("after", _AFTER)):
      if told[key] is None:
        continue
      x, y = (
        [100 * row[k] for row in told[key]["bins"]] for k in ("probability", "share")
      )
      label = {"before": "as it is", "after": "calibrated"}[key]
      label += f", ECE {told[key]['ece']:.3f}"
      axes.plot(x, y, "o-", color=colour, ms=3.5, lw=1.2, label=label)
    axes.set_title(f"{_plain(name)} (n {told['n']})", loc="left", fontsize=9)
    axes.legend(frameon=False, fontsize=7, loc="upper left")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
  figure.supxlabel("told that the second is chosen, %", fontsize=9)
  figure.supylabel("second chosen, %", fontsize=9)
  return figure


def sound(result: Row) -> Figure:
  """Accuracy lost with other sound, in points."""
  entries = result["dimensions"]
  controls = [*next(iter(entries.values()))["sound"]]
  figure = Figure(figsize=(1.8 + 1.3 * len(entries), 3.6), layout="constrained")
  axes, place = figure.subplots(), np.arange(len(entries))
  width = 0.8 / len(controls)
  for k, control in enumerate(controls):
    drops = [one["sound"][control]["drop"] for one in entries.values()]
    value_C, low_C, high_C = (
      np.asarray([100 * drop[key] for drop in drops])
      for key in ("value", "low", "high")
    )
    at_C = place + (k - (len(controls) - 1) / 2) * width
    axes.bar(at_C, value_C, width * 0.9, color=_SOUNDS[control], label=control)
    ends = np.maximum([value_C - low_C, high_C - value_C], 0)
    axes.errorbar(at_C, value_C, ends, fmt="none", ecolor="#222222", capsize=2, lw=1)
  axes.axhline(0, color="#222222", lw=0.8)
  needs = [one["sound"][controls[0]]["needs_audio"] for one in entries.values()]
  axes.set_xticks(
    place,
    [
      _plain(name, "\n") + ("\n(heard)" if need else "")
      for name, need in zip(entries, needs, strict=True)
    ],
  )
  axes.set_ylabel("accuracy lost, points")
  axes.set_title("what is lost with other sound", loc="left", fontsize=10)
  _open(axes)
  figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
  return figure


def own(result: Row) -> Figure:
  """Partial correlations of heads with gold dimensions."""
  heads = result["own"]["heads"]
  names = [*heads]
  value_CG = np.asarray(
    [[heads[c]["partial"][g] for g in names] for c in names], np.float64
  )
  figure = Figure(figsize=(2.4 + 0.9 * len(names),) * 2, layout="constrained")
  axes = figure.subplots()
  axes.imshow(value_CG, cmap="RdBu", vmin=-1, vmax=1)
  for (i, j), value in np.ndenumerate(value_CG):
    told = "–" if np.isnan(value) else f"{value:.2f}"
    colour = "white" if abs(value) > 0.6 else "#222222"
    axes.text(j, i, told, ha="center", va="center", fontsize=9, color=colour)
  labels = [_plain(name, "\n") for name in names]
  axes.set_xticks(range(len(names)), labels, fontsize=8)
  axes.set_yticks(range(len(names)), labels, fontsize=8)
  axes.set_xlabel("gold, given all other gold dimensions")
  axes.set_ylabel("head")
  axes.set_title("partial rank correlation", loc="left", fontsize=10)
  return figure


def best_of_n(result: Row) -> Figure:
  """Gains of proxy and gold over one candidate, each by its own axis, against √KL."""
  points = result["best_of_n"]["curve"]["points"]
  figure = Figure(figsize=(5.2, 3.6), layout="constrained")
  axes = figure.subplots()
  x = [point["kl"] ** 0.5 for point in points]
  beside = axes.twinx()
  for where, what, colour in ((axes, "proxy", tables.OURS), (beside, "gold", _GOLD)):
    value, low, high = (
      [point[what]["gain"][key] for point in points] for key in ("value", "low", "high")
    )
    where.plot(x, value, "o-", color=colour, ms=3.5)
    where.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    where.set_ylabel(f"{what}, gain over n = 1", color=colour)
    where.spines["top"].set_visible(False)
    where.set_ylim(*_from_zero([*low, *high]))
  told = [k for k, point in enumerate(points) if point["n"].bit_count() == 1]
  names = [f"{x[k]:.2f}\nn {points[k]['n']}" for k in told]
  axes.set_xticks([x[k] for k in told], names)
  axes.set_xlabel("√KL from one draw")
  name = _plain(result["best_of_n"]["dimension"])
  axes.set_title(f"best of n by {name}", loc="left", fontsize=10)
  return figure


def optimised(result: Row) -> Figure:
  """Proxy and gold of runs against √KL, a panel a run."""
  runs = result["optimised"]
  figure = Figure(figsize=(4.6 * len(runs), 3.4), layout="constrained")
  panels = figure.subplots(1, len(runs), squeeze=False)[0]
  for axes, (run, points) in zip(panels, runs.items(), strict=True):
    beside = axes.twinx()
    for where, what, colour in ((axes, "proxy", tables.OURS), (beside, "gold", _GOLD)):
      known = sorted(
        (point["root_kl"], *(point[what][key] for key in ("value", "low", "high")))
        for point in points
        if point[what]["value"] is not None
      )
      x, value, low, high = zip(*known, strict=True) if known else [()] * 4
      where.plot(x, value, "o-", color=colour, ms=3.5)
      where.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
      where.set_ylabel(what, color=colour)
      where.spines["top"].set_visible(False)
    axes.set_xlabel("√KL to the reference")
    axes.set_title(epath.Path(run).name, loc="left", fontsize=10)
  return figure


def _from_zero(values: Sequence[float]) -> tuple[float, float]:
  """Limits in which 0 stands at one fifth, so that both axes' zeros are one line."""
  most = max(max(values), -4 * min(values), 1e-9) * 1.1
  return -most / 4, most


def _panels(count: int) -> tuple[Figure, list[Any]]:
  rows = -(-count // _ACROSS)
  across = min(count, _ACROSS)
  figure = Figure(figsize=(0.6 + 2.5 * across, 0.5 + 2.5 * rows), layout="constrained")
  panels = figure.subplots(rows, across, squeeze=False).ravel()
  for axes in panels[count:]:
    axes.set_visible(False)
  for axes in panels[:count]:
    _open(axes)
  return figure, [*panels[:count]]


def _open(axes: Any) -> None:
  axes.spines[["top", "right"]].set_visible(False)


def _plain(name: str, space: str = " ") -> str:
  return name.replace("_", space)
