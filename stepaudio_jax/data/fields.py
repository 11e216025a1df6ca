"""Reading fields of raw rows: every error names the row and the choices."""

import math
from collections.abc import Collection
from typing import Any

from stepaudio_jax.data.jsonl import Row

_ABSENT = object()


def text(row: Row, key: str, default: Any = _ABSENT) -> Any:
  """A non-empty string, or `default` where the key is absent or null."""
  return _typed(row, key, default, "a non-empty string", _is_text)


def mapping(row: Row, key: str, default: Any = _ABSENT) -> Any:
  return _typed(row, key, default, "an object", lambda value: isinstance(value, dict))


def rows(row: Row, key: str, default: Any = _ABSENT) -> Any:
  return _typed(row, key, default, "a list", lambda value: isinstance(value, list))


def integer(row: Row, key: str, default: Any = _ABSENT) -> Any:
  return _typed(row, key, default, "a whole number", _is_integer)


def number(row: Row, key: str, default: Any = _ABSENT) -> Any:
  return _typed(row, key, default, "a finite number", is_number)


def is_number(value: Any) -> bool:
  real = isinstance(value, int | float) and not isinstance(value, bool)
  return real and math.isfinite(value)


def level(value: Any, at: str) -> int:
  """A comparison −3…+3; negative: the first is better."""
  if not _is_integer(value) or abs(value) > 3:
    raise ValueError(f"{at}: {value!r} is not a whole number from -3 to 3")
  return value


def only(value: dict[str, Any], known: Collection[str], at: str) -> None:
  """Raises on keys that the schema does not have."""
  unknown = sorted(set(value) - set(known))
  if unknown:
    raise ValueError(f"{at}: unknown keys {unknown}; the choices are {sorted(known)}")


def _typed(row: Row, key: str, default: Any, what: str, fits: Any) -> Any:
  value = row.value.get(key)
  if value is None and default is not _ABSENT:
    return default
  if value is None:
    how = "null" if key in row.value else "missing"
    raise ValueError(f"{row.at}: {key!r} is {how}; the row has {sorted(row.value)}")
  if not fits(value):
    raise ValueError(f"{row.at}: {key!r} is {value!r:.80}, not {what}")
  return value


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())


def _is_integer(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)
