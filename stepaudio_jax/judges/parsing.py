"""What a judge's reply decides; a reply that decides nothing is None, never a guess.

The raw reply is kept beside the result by whoever asked. A thought before the verdict
is dropped; one that never closes hides it.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from stepaudio_jax.core import replies

_FENCED = re.compile(r"^\s*```[A-Za-z]*\s*(\{.*?\})\s*```\s*$", re.S | re.M)
_LABEL = re.compile(
  r"(?:(?:final |the )*(?:answer|verdict|judge?ment|result)\s*[:：])?"
)
_MARKS = " \t*_`\"'“”.!。！"
HALVES = (0.0, 0.5, 1.0)


class Criterion(NamedTuple):
  """Whether a reply does what one rubric asks, and why."""

  met: bool
  explanation: str


def verdict(raw: str | None, yes: str = "YES", no: str = "NO") -> bool | None:
  """True or False where the reply, or its first or last line, is one of two words.

  Case, bold, quotes, a final mark and a label ("Verdict: YES") do not matter; a first
  and a last line that differ do.
  """
  text = _spoken(raw)
  lines = [line for line in text.splitlines() if line.strip()]
  found = {_word(line, yes, no) for line in (lines[:1] + lines[-1:])} - {None}
  return found.pop() if len(found) == 1 else None


def correct(raw: str | None) -> bool | None:
  """`verdict` of CORRECT and INCORRECT."""
  return verdict(raw, "CORRECT", "INCORRECT")


def criterion(raw: str | None) -> Criterion | None:
  """Of {"explanation": text, "criteria_met": true or false}; the text may be absent."""
  value = json_object(raw)
  if value is None or not isinstance(value.get("criteria_met"), bool):
    return None
  explanation = value.get("explanation", "")
  if not isinstance(explanation, str):
    return None
  return Criterion(value["criteria_met"], explanation)


def half_points(raw: str | None) -> float | None:
  """0, 0.5 or 1 of {"score": number}; any other number is None."""
  value = json_object(raw)
  score = None if value is None else unit(value.get("score"))
  return score if score in HALVES else None


def unit(value: Any) -> float | None:
  """A number from 0 to 1; true, "0.5" and NaN are none."""
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if number and 0 <= value <= 1 else None


def unit_map(value: Any, names: Collection[str]) -> dict[str, float] | None:
  """{name: 0 to 1} of an object that has all of `names`, and maybe others.

  Each is a number, or an object with the number as its "score".
  """
  if not isinstance(value, dict):
    return None
  given = {name: value.get(name) for name in names}
  scores = {
    name: unit(one.get("score") if isinstance(one, dict) else one)
    for name, one in given.items()
  }
  return None if None in scores.values() else scores


def numbered(value: Any, key: str, count: int) -> list[dict[str, Any]] | None:
  """Objects of a list by their numbers 1 to `count` under `key`, each there once."""
  if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
    return None
  numbers = [one.get(key) for one in value]
  if any(type(number) is not int for number in numbers):
    return None
  if sorted(numbers) != list(range(1, count + 1)):
    return None
  return sorted(value, key=lambda one: one[key])


def json_object(raw: str | None) -> dict[str, Any] | None:
  """The one object between the outermost braces, or else in a fence.

  None where it is broken or names a key twice, or where two fences differ.
  """
  text = _spoken(raw)
  start, end = text.find("{"), text.rfind("}")
  whole = _object(text[start : end + 1]) if 0 <= start < end else None
  if whole is not None:
    return whole
  fenced = [_object(found) for found in _FENCED.findall(text)]
  return fenced[0] if fenced and all(one == fenced[0] for one in fenced) else None


def _spoken(raw: str | None) -> str:
  """The reply behind its thought."""
  if raw is None:
    return ""
  has_thought = raw.lstrip().startswith("<think>") or "</think>" in raw
  return replies.split_reply(raw, thinking=has_thought)[1] or ""


def _word(line: str, yes: str, no: str) -> bool | None:
  text = line.replace("*", "").strip(_MARKS).casefold()
  text = text[_LABEL.match(text).end() :].strip(_MARKS)
  return {yes.casefold(): True, no.casefold(): False}.get(text)


def _object(text: str) -> dict[str, Any] | None:
  try:
    value = json.loads(text, object_pairs_hook=_unique)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) < len(pairs):
    raise ValueError(f"a key is there twice: {[key for key, _ in pairs]}")
  return value
