"""HelpSteer's formats: scored replies, and preferences of two kinds; raw samples:

{"prompt": "c#", "response": "C# is …", "helpfulness": 3, "correctness": 4,
 "coherence": 4, "complexity": 2, "verbosity": 1}
{"prompt": "c#", "response_1": "C# is …", "response_2": "A note …",
 "preference_strength": -1}
{"context": [{"role": "user", "content": "c#"}], "response1": "C# is …",
 "response2": "A note …", "overall_preference": -1,
 "individual_preference": [{"score": -2, "reasoning": "…"}, …]}

Scores are 0 to 4. Preferences are −3…+3 as ours, negative where the first is better. A
prompt of several turns has "<extra_id_1>Assistant" and "<extra_id_1>User" between them.
Sources: the data cards of nvidia/HelpSteer2 and nvidia/HelpSteer3.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from stepaudio_jax.data import fields
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.preferences.compared import Compared, LeftOut, Rating, unusable

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
OVERALL = "helpfulness"  # the attribute whose difference is the choice
MOST = 4  # of a score
WIDEST = 3  # difference that a label can say
# What tells the three kinds of rows apart.
_SCORED = ("prompt", "response")
_PREFERRED = ("prompt", "response_1", "response_2", "preference_strength")
_ANNOTATED = ("context", "response1", "response2", "overall_preference")
_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")
_ROLES = {"User": "human", "Assistant": "assistant"}


def comparisons(
  rows: Sequence[Row], problems: list[str]
) -> Iterator[Compared | LeftOut]:
  """Every comparison, in the order of the rows; what is wrong goes to `problems`."""
  for prompt, own in itertools.groupby(_read(rows, problems), key=_prompt):
    if prompt is None:
      for row in own:
        yield from _kept(row, problems)
    else:
      yield from _pairs(prompt, [*own], problems)


def _read(rows: Sequence[Row], problems: list[str]) -> Iterator[Row]:
  """The rows of a known kind."""
  for place in range(len(rows)):
    try:
      row = rows[place]
      _kind(row)
    except ValueError as error:
      problems.append(str(error))
    else:
      yield row


def _kind(row: Row) -> tuple[str, ...]:
  for keys in (_PREFERRED, _ANNOTATED, _SCORED):
    if set(keys) <= set(row.value):
      return keys
  raise ValueError(
    f"{row.at}: keys {sorted(row.value)} are no row of HelpSteer, which has "
    f"{[*_SCORED, *ATTRIBUTES]}, {[*_PREFERRED]} or {[*_ANNOTATED]}"
  )


def _prompt(row: Row) -> str | None:
  """Of rows with scores, what they share with those that they are compared with."""
  return str(row.value["prompt"]) if _kind(row) == _SCORED else None


def _pairs(
  prompt: str, rows: list[Row], problems: list[str]
) -> Iterator[Compared | LeftOut]:
  """Every two replies to a prompt."""
  scored = [found for row in rows if (found := _scored(row, problems))]
  if len(rows) == 1:
    yield LeftOut(rows[0].at, "alone", f"the only reply to {prompt!r:.60}")
  for (row, *one), (_, *other) in itertools.combinations(scored, 2):
    (reply, scores), (second, others) = one, other
    try:
      rating = _difference(scores, others, row.at)
    except ValueError as error:
      problems.append(str(error))
      continue
    bad = unusable(row.at, (reply, second))
    replies, context = (reply, second), messages(prompt)
    yield bad or Compared(row.at, row.folder, context, replies, (rating,))


def _scored(row: Row, problems: list[str]) -> tuple[Row, str, dict[str, int]] | None:
  """A row with its reply and scores; None where something is wrong."""
  try:
    fields.text(row, "prompt")
    return row, _response(row, "response"), _scores(row)
  except ValueError as error:
    problems.append(str(error))
    return None


def _response(row: Row, key: str) -> str:
  """A reply, which may be empty: that is told later."""
  value = row.value[key]
  if not isinstance(value, str):
    raise ValueError(f"{row.at}: {key!r} is {value!r:.80}, not a string")
  return value


def _scores(row: Row) -> dict[str, int]:
  """1 to 5, of the attributes that were scored."""
  found = {}
  for name in ATTRIBUTES:
    value = row.value.get(name)
    if value is None:
      continue
    if not fields.is_number(value) or value != int(value) or not 0 <= value <= MOST:
      raise ValueError(
        f"{row.at}: {name!r} is {value!r:.80}, not a whole number from 0 to {MOST}"
      )
    found[name] = int(value) + 1
  return found


def _difference(first: dict[str, int], second: dict[str, int], at: str) -> Rating:
  """Second minus first: above 0 the second is better."""
  gaps = {
    name: max(-WIDEST, min(WIDEST, second[name] - first[name]))
    if name in first and name in second
    else None
    for name in ATTRIBUTES
  }
  if gaps[OVERALL] is None:
    raise ValueError(f"{at}: {OVERALL!r} is missing; the choice is its difference")
  return Rating("helpsteer", gaps[OVERALL], gaps, (first, second))


def _kept(row: Row, problems: list[str]) -> Iterator[Compared | LeftOut]:
  """A row that is a preference already."""
  try:
    if _kind(row) == _PREFERRED:
      replies = (_response(row, "response_1"), _response(row, "response_2"))
      label = fields.integer(row, "preference_strength")
      ratings = (Rating("helpsteer2", _level(row, "preference_strength", label)),)
      context = messages(fields.text(row, "prompt"))
    else:
      replies = (_response(row, "response1"), _response(row, "response2"))
      ratings, context = _annotators(row), fields.rows(row, "context")
  except ValueError as error:
    problems.append(str(error))
    return
  bad = unusable(row.at, replies)
  yield bad or Compared(row.at, row.folder, context, replies, ratings, shown=True)


def _annotators(row: Row) -> tuple[Rating, ...]:
  """Each annotator's preference; where none is told the one of all."""
  whole = fields.integer(row, "overall_preference")
  found = []
  for place, one in enumerate(fields.rows(row, "individual_preference", []), 1):
    score = one.get("score") if isinstance(one, dict) else one
    if score is not None:
      label = _level(row, f"individual_preference {place}", score)
      found.append(Rating(f"helpsteer3-{place}", label))
  if not found:
    found = [Rating("helpsteer3", _level(row, "overall_preference", whole))]
  return tuple(found)


def _level(row: Row, what: str, value: Any) -> int:
  return fields.level(value, f"{row.at}: {what}")


def messages(prompt: str) -> list[dict[str, Any]]:
  """The turns of a prompt."""
  first, *others = _TURN.split(prompt)
  out = [{"role": "human", "content": first}]
  for role, text in zip(others[::2], others[1::2], strict=True):
    out.append({"role": _ROLES[role], "content": text})
  return out
