"""Shapes for the report's inline SVG: curves with their ticks, and waveforms.

Every shape lives in a box of WIDTH × HEIGHT that the page stretches to its own size
(lines keep their thickness); words and numbers stay outside, as HTML.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepaudio_jax.pages import charts

WIDTH, HEIGHT = 1000, 400
SMOOTHED_ROWS = 9  # of metrics.jsonl, half of them before and half after
COLOURS = 7  # of report_style.css
WAVE_BARS = 110

LOSSES = re.compile(r"train/(loss|loss_.+|ctc|bradley_terry)")
ACCURACIES = re.compile(r"train/(accuracy|accuracy_.+)")
_LABELS = {"train/ctc": "CTC", "train/bradley_terry": "Bradley–Terry"}

Values = Sequence[float | None]


def panels(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The loss panel and the accuracy panel of a stage's metrics.jsonl rows."""
  steps = [row["step"] for row in rows]
  losses, accuracies = _series(rows, LOSSES), _series(rows, ACCURACIES)
  top = max((v for one in losses.values() for v in one if v is not None), default=1.0)
  whole = [0.0, 0.25, 0.5, 0.75, 1.0]
  out = []
  if losses:
    out.append(panel("Loss", _named(losses), steps, ticks=charts.nice_ticks(top)))
  if accuracies:
    out.append(panel("Accuracy", _named(accuracies), steps, ticks=whole, shown=percent))
  return out


def percent(value: float) -> str:
  return f"{100 * value:.0f}\u00a0%"


def panel(
  title: str,
  series: Mapping[str, Values],
  steps: Sequence[int],
  *,
  ticks: Sequence[float] | None = None,
  colours: Mapping[str, int] | None = None,
  shown: Callable[[float], str] | None = None,
  window: int = SMOOTHED_ROWS,
) -> dict[str, Any]:
  """Lines over steps, each thin as it is and bold as its running mean.

  Args:
    series: {label: a value or a hole for every step}; one without values is left out.
    ticks: of the y axis; None is round numbers around the values.
    colours: {label: number of its colour}; None numbers the lines.
    shown: how the values and ticks are written; None is as plain numbers.
    window: rows of the running mean.
  """
  kept = {k: v for k, v in series.items() if any(x is not None for x in v)}
  if ticks is None:
    known = [x for values in kept.values() for x in values if x is not None]
    ticks = charts.nice_ticks(max(known, default=1.0), min(known, default=0.0))
  low, high = ticks[0], ticks[-1]
  xs = [WIDTH * step / max(steps[-1], 1) for step in steps]

  def heights(values: Values) -> Values:
    return [
      None if v is None else HEIGHT * (1 - (v - low) / (high - low)) for v in values
    ]

  lines = []
  for k, (label, values) in enumerate(kept.items()):
    calm = smoothed(values, window)
    last = next(v for v in reversed(calm) if v is not None)
    lines.append(
      {
        "label": label,
        "colour": colours[label] if colours else k % COLOURS,
        "raw": path(xs, heights(values)),
        "smooth": path(xs, heights(calm)),
        "last": (shown or _two_places)(last),
      }
    )
  marks = [
    {"label": (shown or _plain)(t), "y": y, "up": 100 - 100 * y / HEIGHT}
    for t, y in zip(ticks, heights(ticks), strict=True)
  ]
  return {"title": title, "lines": lines, "ticks": marks, "last_step": steps[-1]}


def smoothed(values: Values, window: int = SMOOTHED_ROWS) -> Values:
  """Centred running mean over `window` rows; a hole in the values stays a hole."""
  half = window // 2
  out = []
  for k, value in enumerate(values):
    near = [v for v in values[max(0, k - half) : k + half + 1] if v is not None]
    out.append(None if value is None else sum(near) / len(near))
  return out


def path(xs: Sequence[float], ys: Values) -> str:
  """An SVG path through the points; it is lifted where y is None."""
  words, pen = [], "M"
  for x, y in zip(xs, ys, strict=True):
    if y is None:
      pen = "M"
      continue
    words.append(f"{pen}{x:.1f} {y:.1f}")
    pen = "L"
  return " ".join(words)


def wave(samples_N: np.ndarray, bars: int = WAVE_BARS) -> str:
  """A waveform as upright strokes, as high as the peak of each part of the clip."""
  parts = np.array_split(np.abs(samples_N), bars)
  peaks = np.array([part.max(initial=0.0) for part in parts])
  highs = peaks / max(float(peaks.max()), 1e-9) * (HEIGHT / 2 - 10)
  xs = (np.arange(bars) + 0.5) * WIDTH / bars
  middle = HEIGHT / 2
  return " ".join(
    f"M{x:.1f} {middle - max(high, 4):.0f}V{middle + max(high, 4):.0f}"
    for x, high in zip(xs, highs, strict=True)
  )


def _series(
  rows: Sequence[dict[str, Any]], pattern: re.Pattern
) -> dict[str, list[float | None]]:
  """Metric → values; one that repeats another (of a single source) is left out."""
  names = dict.fromkeys(key for row in rows for key in row if pattern.fullmatch(key))
  found: dict[str, list[float | None]] = {}
  for name in sorted(names):
    values = [row.get(name) for row in rows]
    if values not in found.values() and any(v is not None for v in values):
      found[name] = values
  return found


def _named(series: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
  return {_label(name, alone=len(series) == 1): v for name, v in series.items()}


def _label(name: str, *, alone: bool) -> str:
  """What a legend calls a metric; a loss or accuracy that is alone is of tokens."""
  if name in _LABELS:
    return _LABELS[name]
  kind, _, part = name.removeprefix("train/").partition("_")
  if part:
    return part.replace("_", " ")
  if not alone:
    return "all"
  return "nats per token" if kind == "loss" else "of tokens"


def _two_places(value: float) -> str:
  return f"{value:.2f}"


def _plain(value: float) -> str:
  return f"{value:g}"
