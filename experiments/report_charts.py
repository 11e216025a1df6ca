"""Shapes for the report's inline SVG: curves with their ticks, and waveforms.

Every shape lives in a box of WIDTH × HEIGHT that the page stretches to its own size
(lines keep their thickness); words and numbers stay outside, as HTML.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT = 1000, 400
SMOOTHED_ROWS = 9  # of metrics.jsonl, half of them before and half after
WAVE_BARS = 110

LOSSES = re.compile(r"train/(loss|loss_.+|ctc)")
ACCURACIES = re.compile(r"train/(accuracy|accuracy_.+)")


def panels(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """The loss panel and the accuracy panel of a stage's metrics.jsonl rows."""
  last_step = rows[-1]["step"]
  losses, accuracies = _series(rows, LOSSES), _series(rows, ACCURACIES)
  top = max((v for one in losses.values() for v in one if v is not None), default=1.0)
  ticks = nice_ticks(top)
  loss = _panel("Loss", losses, rows, ticks, lambda v: f"{v:.2f}")
  whole = [0.0, 0.25, 0.5, 0.75, 1.0]
  right = _panel("Accuracy", accuracies, rows, whole, lambda v: f"{100 * v:.0f}\u00a0%")
  return [p | {"last_step": last_step} for p in (loss, right) if p["lines"]]


def nice_ticks(top: float) -> list[float]:
  """0 and two to five round numbers above it, the last one not below `top`."""
  size = 10.0 ** math.floor(math.log10(top)) if top > 0 else 1.0
  steps = (size * factor for factor in (0.25, 0.5, 1.0, 2.0, 2.5, 5.0))
  step = next(s for s in steps if math.ceil(top / s - 1e-9) <= 5)
  return [step * k for k in range(max(2, math.ceil(top / step - 1e-9)) + 1)]


def smoothed(values: Sequence[float | None]) -> list[float | None]:
  """Centred running mean over SMOOTHED_ROWS; a hole in the values stays a hole."""
  half = SMOOTHED_ROWS // 2
  out = []
  for k, value in enumerate(values):
    near = [v for v in values[max(0, k - half) : k + half + 1] if v is not None]
    out.append(None if value is None else sum(near) / len(near))
  return out


def path(xs: Sequence[float], ys: Sequence[float | None]) -> str:
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


def _panel(
  title: str,
  series: dict[str, list[float | None]],
  rows: Sequence[dict[str, Any]],
  ticks: list[float],
  shown: Callable[[float], str],
) -> dict[str, Any]:
  top = ticks[-1]
  xs = [WIDTH * row["step"] / max(rows[-1]["step"], 1) for row in rows]

  def heights(values: Sequence[float | None]) -> list[float | None]:
    return [None if v is None else HEIGHT * (1 - v / top) for v in values]

  lines = []
  for name, values in series.items():
    calm = smoothed(values)
    last = next(v for v in reversed(calm) if v is not None)
    lines.append(
      {
        "name": name.removeprefix("train/"),
        "label": _label(name, alone=len(series) == 1),
        "raw": path(xs, heights(values)),
        "smooth": path(xs, heights(calm)),
        "last": shown(last),
      }
    )
  marks = [
    {"label": _tick(t, title), "y": HEIGHT * (1 - t / top), "up": 100 * t / top}
    for t in ticks
  ]
  return {"title": title, "lines": lines, "ticks": marks}


def _label(name: str, *, alone: bool) -> str:
  """What a legend calls a metric; a loss or accuracy that is alone is of tokens."""
  kind, _, part = name.removeprefix("train/").partition("_")
  if part:
    return part.replace("_", " ")
  if kind == "ctc":
    return "CTC"
  if not alone:
    return "all"
  return "nats per token" if kind == "loss" else "of tokens"


def _tick(value: float, title: str) -> str:
  return f"{100 * value:.0f}\u00a0%" if title == "Accuracy" else f"{value:g}"
