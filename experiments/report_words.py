"""Numbers and lists as the report writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

_GAP = "\u00a0"  # no line is broken between a number and its unit


def percent(share: float | None) -> str:
  return "–" if share is None else f"{100 * share:.0f}{_GAP}%"


def number(value: float | None, digits: int = 2) -> str:
  """A zero has no sign: −0.00 is written 0.00."""
  return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
  """+0.21; −0.04; 0.00"""
  if value is None:
    return "–"
  text = number(abs(value), digits)
  return text if not float(text) else f"{'+' if value > 0 else '−'}{text}"


def points(share: float | None) -> str:
  """A difference of two shares, in percentage points: +2.1"""
  return signed(None if share is None else 100 * share, 1)


def span(part: Mapping[str, Any]) -> str:
  """+0.02 to +0.11"""
  return f"{signed(part['low'])} to {signed(part['high'])}"


def point_span(part: Mapping[str, Any]) -> str:
  return f"{points(part['low'])} to {points(part['high'])}"


def counts(task: Mapping[str, Any]) -> str:
  """A share and its interval: 61 % (58 to 64)"""
  low, high = (number(100 * task[end], 0) for end in ("low", "high"))
  return f"{percent(task['accuracy'])} ({low} to {high})"


def listed(names: Sequence[str]) -> str:
  """a, b and c"""
  *most, last = [name.replace("_", " ") for name in names]
  return f"{', '.join(most)} and {last}" if most else last


def duration(seconds: float) -> str:
  """2.1 s; 38 s; 7 min 38 s; 1 h 02 min"""
  if seconds < 9.95:
    return f"{seconds:.1f}{_GAP}s"
  whole = round(seconds)
  if whole < 60:
    return f"{whole}{_GAP}s"
  minutes, rest = divmod(whole, 60)
  if minutes < 60:
    return f"{minutes}{_GAP}min {rest:02d}{_GAP}s"
  return f"{minutes // 60}{_GAP}h {minutes % 60:02d}{_GAP}min"


def size(count: int) -> str:
  """Bytes in decimal units."""
  for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if count >= scale:
      return f"{count / scale:.1f}{_GAP}{unit}"
  return f"{count}{_GAP}B"
