"""Tables for the terminal: Markdown in columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.pages import words


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Names on the left, numbers on the right."""
  cells = [[_cell(str(value)) for value in row] for row in [head, *rows]]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
  return "\n".join(_line(row, widths) for row in [cells[0], rule, *cells[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
  first, *others = zip(cells, widths, strict=True)
  padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
  return f"| {' | '.join(padded)} |"


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")


def ends(part: Mapping[str, Any], key: str, digits: int = 2) -> str:
  """A number of `part` and its interval: 0.81 [0.75, 0.86]"""
  value = words.number(part[key], digits)
  if part["low"] is None:
    return value
  low, high = (words.number(part[end], digits) for end in ("low", "high"))
  return f"{value} [{low}, {high}]"
