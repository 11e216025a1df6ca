"""Numbers as pages and tables write them; a dash stands for what is not known."""

from collections.abc import Mapping
from typing import Any

DASH = "–"
_GAP = "\u00a0"  # no line is broken between a number and its unit


def percent(share: float | None, digits: int = 1) -> str:
  """12.3"""
  return DASH if share is None else f"{100 * share:.{digits}f}"


def ends(part: Mapping[str, Any] | None) -> str:
  """Of a mean's interval, in percent: 10.0 to 15.0"""
  if part is None:
    return DASH
  return f"{percent(part['low'])} to {percent(part['high'])}"


def interval(part: Mapping[str, Any] | None) -> str:
  """A mean and its interval, in percent: 12.3 [10.0, 15.0]"""
  if part is None:
    return DASH
  return f"{percent(part['mean'])} [{percent(part['low'])}, {percent(part['high'])}]"


def points(share: float | None) -> str:
  """A difference of two shares, in percentage points: +2.1; −0.4; 0.0"""
  if share is None:
    return DASH
  text = f"{abs(100 * share):.1f}"
  return text if not float(text) else f"{'+' if share > 0 else '−'}{text}"


def gap(part: Mapping[str, Any] | None) -> str:
  """A difference and its interval: +2.1 [−0.4, +4.6]"""
  if part is None:
    return DASH
  low, high = (points(part[end]) for end in ("low", "high"))
  return f"{points(part['mean'])} [{low}, {high}]"


def sign(part: Mapping[str, Any] | None) -> str:
  """Where the interval of a difference lies: "up", "down" or, with 0, "unclear"."""
  if part is None or part["low"] <= 0 <= part["high"]:
    return "unclear"
  return "up" if part["low"] > 0 else "down"


def chance(p: float | None) -> str:
  """A p-value: 0.031; < 0.001"""
  if p is None:
    return DASH
  return f"<{_GAP}0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float | None, digits: int = 1) -> str:
  return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def tick(share: float) -> str:
  """A mark of an axis, in percent: 20; −2.5"""
  return f"{100 * share:g}".replace("-", "−")


def plain(name: str) -> str:
  return name.replace("_", " ")
