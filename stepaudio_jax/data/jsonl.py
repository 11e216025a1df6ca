"""JSON Lines files as random-access sequences; every row knows where it stands."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath


@dataclasses.dataclass(frozen=True)
class Row:
  """One raw sample.

  Attributes:
    value: the JSON object.
    at: "file:line", or whatever names the place in other kinds of files.
    folder: relative paths in the row start here.
  """

  value: dict[str, Any]
  at: str
  folder: str


class Rows(Sequence):
  """The non-blank lines of a file, parsed when asked for.

  Raises:
    ValueError: the file holds no row; later, a line that is no JSON object.
  """

  def __init__(self, path: epath.PathLike):
    path = epath.Path(path)
    if not path.exists():
      raise ValueError(f"there is no file {path}")
    self._path, self._folder = str(path), str(path.parent)  # told again for every row
    self._bytes = path.read_bytes()
    self._starts, self._lines = _rows(self._bytes)
    if not len(self._starts):
      raise ValueError(f"{self._path} is empty: it holds no rows")

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, index: int) -> Row:
    start = int(self._starts[index])
    end = self._bytes.find(b"\n", start)
    line = self._bytes[start : end if end >= 0 else None]
    at = f"{self._path}:{self._lines[index]}"
    return Row(_object(line, at), at, self._folder)


def _rows(content: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Byte offsets and line numbers (from 1) of the lines that are not blank."""
  starts, numbers, offset = [], [], 0
  for number, line in enumerate(content.split(b"\n"), 1):
    if line.strip():
      starts.append(offset)
      numbers.append(number)
    offset += len(line) + 1
  return np.asarray(starts, np.int64), np.asarray(numbers, np.int64)


def _object(line: bytes, at: str) -> dict[str, Any]:
  try:
    value = json.loads(line, parse_constant=_refused)
  except ValueError as error:
    raise ValueError(f"{at}: not JSON ({error}): {line[:80]!r}") from error
  if not isinstance(value, dict):
    raise ValueError(f"{at}: a {type(value).__name__} where an object is wanted")
  return value


def _refused(constant: str) -> None:
  raise ValueError(f"{constant} is no JSON number")
