"""The rows of the three schemas, checked: dialogues, preferences, single clips.

Messages themselves are checked by text/messages.py. Every error names the place of
the row, the example, the bad value and the choices.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import files
from stepaudio_jax.data import fields
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.text import messages as messages_lib

PREFERENCE_SCHEMA = "pref/1"
DIALOGUE_KEYS = ("id", "messages", "answer", "choices", "rubric", "meta", "audios")
PREFERENCE_KEYS = (
  *("schema", "id", "task_id", "rater", "context", "candidates", "overall", "dims"),
  *("scores", "rubric", "confidence", "gold", "ts", "order_seed"),
)
_CANDIDATE_KEYS = ("cid", "text", "think", "model")
_RUBRIC_KEYS = ("text", "weight")
_SPEECH_KEYS = ("id", "audio", "transcript", "attributes")


@dataclasses.dataclass(frozen=True)
class Audio:
  """A clip, or a span of one.

  Attributes:
    source: path or the file's bytes.
    start_s, end_s: seconds in the file; None is its start or end.
    name: the example that needs it, for errors.
  """

  source: str | bytes = dataclasses.field(repr=False)
  start_s: float | None
  end_s: float | None
  name: str


@dataclasses.dataclass(frozen=True)
class Dialogue:
  """A row of the dialogue schema.

  Attributes:
    row: the JSON object with messages in the one form of text/messages.py.
    audio: the clips of its audio blocks, in order.
  """

  id: str
  row: dict[str, Any]
  audio: tuple[Audio, ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One of two replies; `messages` is the context with the reply as its last turn."""

  cid: str
  text: str
  think: str | None
  model: str
  messages: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Preference:
  """A row of the preference schema pref/1.

  Attributes:
    overall: −3…+3, negative where the first candidate is better.
    dims: the same scale for each dimension; None where the rater gave no answer.
    scores: {cid: {dimension: 1…5}}, empty where nobody scored.
    gold: of simulated or test items only, for evaluation; no training reads it.
    ts: when, as the row says it: seconds or ISO text.
    audio: the clips of the context, in order.
  """

  id: str
  task_id: str
  rater: str
  context: list[dict[str, Any]]
  candidates: tuple[Candidate, Candidate]
  overall: int
  dims: dict[str, int | None]
  scores: dict[str, dict[str, float]]
  rubric: list[dict[str, Any]]
  confidence: float | None
  gold: dict[str, Any] | None
  ts: float | str
  order_seed: int
  audio: tuple[Audio, ...]


@dataclasses.dataclass(frozen=True)
class SpeechClip:
  """A clip with what was said; attributes that nobody knows are absent.

  Attributes:
    audio: the one clip, as a tuple like that of the other rows.
  """

  id: str
  transcript: str
  attributes: dict[str, str]
  audio: tuple[Audio]


def dialogue(row: Row) -> Dialogue:
  """Checks a dialogue; rows of ms-swift and TRL have no id: then it is "path:line".

  Raises:
    ValueError: naming the place and what is wrong there.
  """
  name = fields.text(row, "id", row.at)
  messages = _messages(row, "messages", name, fields.rows(row, "audios", None))
  value = {key: v for key, v in row.value.items() if v is not None and key != "audios"}
  value |= {"id": name, "messages": messages}
  fields.text(row, "answer", None)
  _check_choices(row)
  _check_rubric(row)
  fields.mapping(row, "meta", None)
  return Dialogue(name, value, _audio(messages, name))


def preference(row: Row) -> Preference:
  """Checks a preference in full; a key that the schema lacks is an error.

  Raises:
    ValueError: naming the place and what is wrong there.
  """
  fields.only(row.value, PREFERENCE_KEYS, row.at)
  if fields.text(row, "schema") != PREFERENCE_SCHEMA:
    schema = row.value["schema"]
    raise ValueError(f"{row.at}: schema {schema!r}; known is {PREFERENCE_SCHEMA!r}")
  name = fields.text(row, "id")
  context = _messages(row, "context", name)
  if context[-1]["role"] == "assistant":
    raise ValueError(f"{row.at}: the context of {name!r} ends with the assistant")
  candidates = _candidates(row, context, name)
  _check_rubric(row)
  return Preference(
    id=name,
    task_id=fields.text(row, "task_id"),
    rater=fields.text(row, "rater"),
    context=context,
    candidates=candidates,
    overall=fields.level(fields.integer(row, "overall"), f"{row.at}: overall"),
    dims=_dims(row),
    scores=_scores(row, {candidate.cid for candidate in candidates}),
    rubric=fields.rows(row, "rubric", []),
    confidence=fields.number(row, "confidence", None),
    gold=fields.mapping(row, "gold", None),
    ts=_time(row),
    order_seed=fields.integer(row, "order_seed"),
    audio=_audio(context, name),
  )


def speech_clip(row: Row) -> SpeechClip:
  """Checks a single clip.

  Raises:
    ValueError: naming the place and what is wrong there.
  """
  fields.only(row.value, _SPEECH_KEYS, row.at)
  name = fields.text(row, "id")
  if "transcript" not in row.value or not isinstance(row.value["transcript"], str):
    raise ValueError(f"{row.at}: {name!r} has no transcript (a string; '' is silence)")
  attributes = fields.mapping(row, "attributes", {})
  for key, label in attributes.items():
    if not isinstance(label, str):
      raise ValueError(f"{row.at}: attribute {key!r} of {name!r} is {label!r}, no name")
  block = {"type": "audio", **fields.mapping(row, "audio")}
  message = {"role": "human", "content": [block]}
  messages = _messages(
    dataclasses.replace(row, value={"audio": [message]}), "audio", name
  )
  return SpeechClip(name, row.value["transcript"], attributes, _audio(messages, name))


def _messages(
  row: Row, key: str, name: str, audios: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
  """Messages in the one form, paths resolved against the row's folder."""
  try:
    messages = messages_lib.normalise(fields.rows(row, key), name, audios)
  except ValueError as error:
    named = str(error).startswith(f"example {row.at!r}")  # a row without an id
    raise ValueError(str(error) if named else f"{row.at}: {error}") from error
  for block in messages_lib.audio_blocks(messages):
    if "path" in block:
      block["path"] = _resolved(row.folder, block["path"])
  return messages


@functools.lru_cache(maxsize=1 << 16)  # a clip is in many rows, which are read often
def _resolved(folder: str, path: str) -> str:
  return path if files.is_remote(path) else str(epath.Path(folder) / path)


def _audio(messages: list[dict[str, Any]], name: str) -> tuple[Audio, ...]:
  return tuple(
    Audio(
      block["path"] if "path" in block else block["bytes"],
      block.get("start_s"),
      block.get("end_s"),
      name,
    )
    for block in messages_lib.audio_blocks(messages)
  )


def _candidates(
  row: Row, context: list[dict[str, Any]], name: str
) -> tuple[Candidate, Candidate]:
  raw = fields.rows(row, "candidates")
  if len(raw) != 2:
    raise ValueError(f"{row.at}: {name!r} has {len(raw)} candidates; a pair has 2")
  first, second = (_candidate(row, k, context, name) for k in range(2))
  if first.cid == second.cid:
    raise ValueError(f"{row.at}: both candidates of {name!r} are called {first.cid!r}")
  return first, second


def _candidate(
  row: Row, index: int, context: list[dict[str, Any]], name: str
) -> Candidate:
  at = f"{row.at}: candidate {index} of {name!r}"
  value = row.value["candidates"][index]
  if not isinstance(value, dict):
    raise ValueError(f"{at} is {value!r:.80}, not an object")
  fields.only(value, _CANDIDATE_KEYS, at)
  inner = Row(value, at, row.folder)
  think = fields.text(inner, "think", None)
  reply = {"role": "assistant", "content": fields.text(inner, "text"), "think": think}
  turn = _messages(Row({"reply": [reply]}, at, row.folder), "reply", name)
  return Candidate(
    cid=fields.text(inner, "cid"),
    text=messages_lib.text_of(turn[0]),
    think=turn[0].get("think"),
    model=fields.text(inner, "model"),
    messages=[*context, *turn],
  )


def _dims(row: Row) -> dict[str, int | None]:
  dims = fields.mapping(row, "dims")
  return {
    key: None if value is None else fields.level(value, f"{row.at}: dims.{key}")
    for key, value in dims.items()
  }


def _scores(row: Row, cids: set[str]) -> dict[str, dict[str, float]]:
  scores = fields.mapping(row, "scores", {})
  fields.only(scores, cids, f"{row.at}: scores")
  for cid, by_dimension in scores.items():
    at = f"{row.at}: scores.{cid}"
    if not isinstance(by_dimension, dict):
      raise ValueError(f"{at} is {by_dimension!r:.80}, not an object")
    for key, value in by_dimension.items():
      if not fields.is_number(value) or not 1 <= value <= 5:
        raise ValueError(f"{at}.{key}: {value!r} is not a number from 1 to 5")
  return scores


def _check_rubric(row: Row) -> None:
  for k, item in enumerate(fields.rows(row, "rubric", [])):
    at = f"{row.at}: rubric {k}"
    if not isinstance(item, dict):
      raise ValueError(f"{at} is {item!r:.80}, not an object with {_RUBRIC_KEYS}")
    fields.only(item, _RUBRIC_KEYS, at)
    inner = Row(item, at, row.folder)
    fields.text(inner, "text")
    fields.number(inner, "weight")


def _check_choices(row: Row) -> None:
  for choice in fields.rows(row, "choices", []):
    if not isinstance(choice, str):
      raise ValueError(f"{row.at}: choice {choice!r} is not a string")


def _time(row: Row) -> float | str:
  time = row.value.get("ts")
  if not fields.is_number(time) and not isinstance(time, str):
    raise ValueError(f"{row.at}: 'ts' must be a time, seconds or ISO text")
  return time
