"""Places in a chart, in percent of its width or height, and round ticks."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stepaudio_jax.pages import words

SHARES = (0, 0.25, 0.5, 0.75, 1)
_LOGARITHMIC = 5  # from this ratio of the ends on, an axis counts doublings


class Point(NamedTuple):
  """A mean with its interval; one that stands `apart` is on no line."""

  x: float
  mean: float
  low: float
  high: float
  apart: bool = False


class Axis(NamedTuple):
  """From values to percent; `marks` are (percent, value)."""

  low: float
  high: float
  logarithmic: bool
  ticks: tuple[float, ...]

  def place(self, value: float) -> float:
    low, high = self.low, self.high
    if self.logarithmic:
      low, high, value = (math.log2(v) for v in (low, high, value))
    return 100 * (value - low) / (high - low)

  @property
  def marks(self) -> list[tuple[float, float]]:
    return [(self.place(tick), tick) for tick in self.ticks]


def linear(values: Sequence[float]) -> Axis:
  """An axis between round numbers around the values."""
  ticks = nice_ticks(max(values), min(values))
  return Axis(ticks[0], ticks[-1], False, tuple(ticks))


def lengths(values: Sequence[float]) -> Axis:
  """An axis of counts and lengths: by doublings where they lie far apart."""
  low, high = min(values), max(values)
  if low <= 0 or high / low < _LOGARITHMIC:
    return linear(values)
  low, high = low / 1.15, high * 1.15
  first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
  every = max(1, math.ceil((last - first) / 6))
  ticks = tuple(2.0**k for k in range(first, last + 1, every))
  return Axis(low, high, True, ticks)


def counts(values: Sequence[float]) -> Axis:
  """An axis of doublings with ticks at the values alone, which are 1 or more."""
  ticks = sorted({*values})
  high = ticks[-1] if len(ticks) > 1 else 2 * ticks[0]
  return Axis(ticks[0], high, True, tuple(ticks))


def panel(
  title: str,
  series: Mapping[str, Sequence[Point]],
  along: Callable[[Sequence[float]], Axis] = lengths,
  ticks: Sequence[float] = SHARES,
  shown: Callable[[float], str] = words.percent,
) -> dict[str, Any]:
  """Means over x with their intervals, one line a name, as places in percent.

  Args:
    along: makes the x axis of all x.
    ticks: of the y axis, which goes from the first to the last.
    shown: how means are written.
  """
  up = Axis(ticks[0], ticks[-1], False, tuple(ticks))
  axis = along([point.x for line in series.values() for point in line])
  lines = {}
  for name, points in series.items():
    dots = [_dot(axis, up, one, shown(one.mean)) for one in sorted(points)]
    line = [dot for dot in dots if not dot["point"]["apart"]]
    lines[name] = {"dots": dots, "strokes": [*itertools.pairwise(line)]}
  heights = [(100 - y, value) for y, value in up.marks]
  return {"title": title, "lines": lines, "marks": axis.marks, "heights": heights}


def _dot(axis: Axis, up: Axis, one: Point, label: str) -> dict[str, Any]:
  y, *ends = (100 - up.place(value) for value in (one.mean, one.low, one.high))
  place = {"x": axis.place(one.x), "y": y, "ends": ends}
  return place | {"point": one._asdict(), "label": label}


def nice_ticks(top: float, bottom: float = 0.0) -> list[float]:
  """Three to seven round numbers, the first not above bottom, the last not below top.

  Equal bounds get as much room as numbers near 1 need.
  """
  spread = top - bottom
  if spread <= 1e-9 * max(abs(top), 1.0):
    spread = 1.0
  size = 10.0 ** math.floor(math.log10(spread))
  steps = (size * factor for factor in (0.25, 0.5, 1.0, 2.0, 2.5, 5.0))
  step = next(s for s in steps if spread / s <= 5 + 1e-9)
  first = math.floor(bottom / step + 1e-9)
  last = max(first + 2, math.ceil(top / step - 1e-9))
  return [step * k for k in range(first, last + 1)]
