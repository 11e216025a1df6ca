"""Everything that is wrong with one row, where the schema stops at the first."""

import dataclasses
import datetime
from collections.abc import Iterator
from typing import Any

from stepaudio_jax.data import panels, schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Preference

_HUMAN = {"role": "human", "content": "?"}
_REPLY = {"cid": "(first)", "text": "x", "model": "m"}
_OTHER = {"cid": "(second)", "text": "y", "model": "m"}
_ITEM = {"text": "x", "weight": 1}
# A row that has nothing wrong; each part of another is tried in its place.
_GOOD = {
  "schema": schema.PREFERENCE_SCHEMA,
  "id": "?",
  "task_id": "t",
  "rater": "r",
  "context": [_HUMAN],
  "candidates": [_REPLY, _OTHER],
  "overall": 0,
  "dims": {},
  "ts": 0,
  "order_seed": 0,
}


def read(row: Row) -> tuple[Preference | None, list[str]]:
  """The preference, None where the schema refuses it, and all problems with it.

  A problem names place and id, the bad value and the choices. Of a message of the
  context only the first is told.
  """
  try:
    sample = schema.preference(row)
  except ValueError as error:
    found = dict.fromkeys(_missing(row))
    found |= dict.fromkeys(_wrong(row))
    return None, [_named(row, text) for text in found or [str(error)]]
  return sample, [_named(row, text) for text in _beyond(sample, row)]


def _missing(row: Row) -> Iterator[str]:
  for key in _GOOD:
    if row.value.get(key) is None:
      how = "null" if key in row.value else "missing"
      yield f"{key!r} is {how}; the row has {sorted(row.value)}"


def _wrong(row: Row) -> Iterator[str]:
  """The schema's words about each part on its own."""
  name = row.value.get("id")
  good = _GOOD | ({"id": name} if _is_text(name) else {})
  for part in _parts(row.value):
    try:
      schema.preference(dataclasses.replace(row, value=good | part))
    except ValueError as error:
      yield str(error)


def _parts(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
  """Each part that may be wrong alone, and what it must be seen with."""
  unknown = {k: v for k, v in value.items() if k not in schema.PREFERENCE_KEYS}
  if unknown:
    yield unknown
  value = {key: v for key, v in value.items() if v is not None and key not in unknown}
  for key, given in value.items():
    if key in ("context", "rubric") and isinstance(given, list) and given:
      good = _HUMAN if key == "context" else _ITEM
      for place, item in enumerate(given):
        yield {key: [item if k == place else good for k in range(len(given))]}
    elif key == "dims" and isinstance(given, dict):
      yield from ({key: {name: label}} for name, label in given.items())
    elif key == "candidates" and isinstance(given, list) and len(given) == 2:
      yield from _candidates(given)
    elif key == "scores" and isinstance(given, dict):
      yield from _scores(given, value.get("candidates"))
    else:
      yield {key: given}


def _candidates(pair: list) -> Iterator[dict[str, Any]]:
  for one in _candidate(pair[0], _REPLY):
    yield {"candidates": [one, _OTHER]}
  for one in _candidate(pair[1], _OTHER):
    yield {"candidates": [_REPLY, one]}
  cids = _cids(pair)
  if cids:
    yield {"candidates": _called(*cids)}


def _candidate(one: Any, good: dict[str, Any]) -> Iterator[Any]:
  if not isinstance(one, dict):
    yield one
    return
  for key in good:
    if one.get(key) is None:
      yield {name: value for name, value in good.items() if name != key}
  yield from (good | {key: value} for key, value in one.items() if value is not None)


def _cids(pair: Any) -> list[str]:
  """The names of two candidates, none where one has no name."""
  found = [one.get("cid") for one in pair if isinstance(one, dict)]
  return found if len(found) == 2 and all(map(_is_text, found)) else []


def _called(first: str, second: str) -> list[dict[str, Any]]:
  return [_REPLY | {"cid": first}, _OTHER | {"cid": second}]


def _scores(scores: dict, pair: Any) -> Iterator[dict[str, Any]]:
  """Each score, beside replies with the row's own names where these are right."""
  cids = _cids(pair) if isinstance(pair, list) else []
  for cid, own in scores.items():
    known = cids if len({*cids}) == 2 else [cid, _OTHER["cid"]]
    beside = {"candidates": _called(*known)}
    if isinstance(own, dict) and cid in known:
      yield from (beside | {"scores": {cid: {k: v}}} for k, v in own.items())
    else:
      yield beside | {"scores": {cid: own}}


def _beyond(sample: Preference, row: Row) -> Iterator[str]:
  """What the schema allows, and no use of the row does."""
  first, second = sample.candidates
  if panels.said(first) == panels.said(second):
    yield f"both candidates say {first.text!r:.80}; a comparison needs two replies"
  if panels.OVERALL in sample.dims:
    yield (
      f"dims.{panels.OVERALL} is {sample.dims[panels.OVERALL]!r}; that choice has a "
      f"key of its own, which says {sample.overall}"
    )
  if seconds(sample.ts) is None:
    yield f"'ts' is {sample.ts!r:.80}, neither seconds nor an ISO 8601 time"


def seconds(time: float | str) -> float | None:
  """A row's `ts` as seconds since 1970; None where it is no time.

  A time that names no zone is taken for UTC's.
  """
  if not isinstance(time, str):
    return float(time)
  try:
    found = datetime.datetime.fromisoformat(time)
  except ValueError:
    return None
  zone = found.tzinfo or datetime.UTC
  return found.replace(tzinfo=zone).timestamp()


def _named(row: Row, text: str) -> str:
  """ "file:line: 'id': what is wrong"."""
  text = text.removeprefix(f"{row.at}: ")
  name = row.value.get("id")
  if _is_text(name) and repr(name) not in text:
    text = f"{name!r}: {text}"
  return f"{row.at}: {text}"


def _is_text(value: Any) -> bool:
  return isinstance(value, str) and bool(value.strip())
