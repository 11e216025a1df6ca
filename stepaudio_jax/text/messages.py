"""The dialogue schema: messages checked and brought to one form, and their turns.

One form: `{"role", "content": [block, …], "think"?}` with blocks
`{"type": "text", "text"}` and `{"type": "audio", "path" | "bytes", "start_s"?,
"end_s"?}`. Also read: the role "user", contents that are plain strings, OpenAI's
`input_audio` blocks, ms-swift's `<audio>` places with a row's `audios`, and assistant
texts that open with `<think>`.
"""

import base64
import math
import numbers
import os
from collections.abc import Sequence
from typing import Any, Literal

from stepaudio_jax.core import replies

# What earlier assistant turns keep: the answer (the rule); thought and answer, as
# generated; or the answer without its <|EOT|>, as R1's published template prints it.
History = Literal["answer", "thought", "answer_without_eot"]
HISTORIES = ("answer", "thought", "answer_without_eot")
ROLES = ("system", "human", "assistant", "tool_json_schemas", "input")
_TEXT_ONLY_ROLES = ("assistant", "tool_json_schemas")
_BLOCKS = {
  "text": {"type", "text"},
  "audio": {"type", "path", "bytes", "start_s", "end_s"},
  "input_audio": {"type", "input_audio"},
}
_PLACE = "<audio>"
# Belong to the dialogue's last reply, so earlier turns must not be scored by them.
OF_LAST_TURN = ("answer", "choices", "rubric")


def normalise(
  messages: Sequence[dict[str, Any]],
  example_id: str,
  audios: Sequence[str | bytes] | None = None,
) -> list[dict[str, Any]]:
  """`messages` in the one form, as new objects.

  White space around a thought is dropped, and an empty thought is no thought.
  `audios` fill the `<audio>` places of plain-string contents in order; without it
  "<audio>" is text like any other.

  Raises:
    ValueError: names the example, the turn, the bad value and the choices.
  """
  where = f"example {example_id!r}"
  if not isinstance(messages, list | tuple) or not messages:
    raise ValueError(f"{where}: messages must be a non-empty list, not {messages!r}")
  if audios is not None:
    messages = _placed(messages, audios, where)
  return [_message(m, f"{where}, message {k}") for k, m in enumerate(messages)]


def audio_blocks(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Audio blocks of normalised messages, in the order in which they are heard."""
  blocks = [block for message in messages for block in message["content"]]
  return [block for block in blocks if block["type"] == "audio"]


def text_of(message: dict[str, Any]) -> str:
  """The text of a normalised message, audio left out."""
  blocks = message["content"]
  return "".join(block["text"] for block in blocks if block["type"] == "text")


def human_turns(messages: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
  """What is read before each reply: the messages between the assistant's."""
  found: list[list[dict[str, Any]]] = [[]]
  for message in messages:
    if message["role"] == "assistant":
      found.append([])
    else:
      found[-1].append(message)
  return [turn for turn in found if turn]


def own_turn(answer: str | None, think: str = "") -> dict[str, Any]:
  """A sampled reply as later prompts hold it, empty where its thought never closed."""
  # An empty thought says that what looks like one in the answer is text.
  think = "" if answer is None else think
  content = [{"type": "text", "text": answer or ""}]
  return {"role": "assistant", "content": content, "think": think}


def played(
  messages: Sequence[dict[str, Any]], count: int, own: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
  """A dialogue up to one of its last human turns, with own replies from the first on.

  Args:
    messages: normalised, at least `count` human turns; the last of them is the end.
    count: of the last human turns that are played. What stands before stays.
    own: replies to those that were asked already; the next one is the end.
  """
  turns_ = human_turns(messages)[-count:]
  begins = [k for k, message in enumerate(messages) if message is turns_[0][0]]
  out = [*messages[: begins[0]], *turns_[0]]
  for reply, turn in zip(own, turns_[1:], strict=False):
    out += [reply, *turn]
  return out


def turns(
  dialogue: dict[str, Any], history: History = "answer"
) -> list[dict[str, Any]]:
  """The training examples of a dialogue: one for each assistant turn.

  Example k ends with assistant turn k, earlier thoughts left out; its id is
  "{id}#{k}" and `dialogue_id` the dialogue's. "answer", "choices" and "rubric" stay
  with the last turn only. With history "thought" the one example is the whole
  dialogue, to be rendered with target="all".
  """
  if "id" not in dialogue:
    raise ValueError(f"a dialogue has no 'id'; its keys are {sorted(dialogue)}")
  where = f"example {dialogue['id']!r}"
  if history not in HISTORIES:
    raise ValueError(f"{where}: history {history!r} is not in {HISTORIES}")
  row = dict(dialogue)
  messages = normalise(row.pop("messages", None), row["id"], row.pop("audios", None))
  if messages[-1]["role"] != "assistant":
    raise ValueError(
      f"{where} ends with a {messages[-1]['role']!r} turn: the last turn to train "
      "must be the assistant's (render an open dialogue with chat.prompt)"
    )
  ends = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
  last = len(ends) - 1
  if history == "thought":
    return [_example(row, messages, last, is_last=True)]
  return [
    _example(row, [*map(_stripped, messages[:end]), messages[end]], k, k == last)
    for k, end in enumerate(ends)
  ]


def _example(row: dict, messages: list[dict], k: int, is_last: bool) -> dict[str, Any]:
  kept = {key: v for key, v in row.items() if is_last or key not in OF_LAST_TURN}
  ids = {"id": f"{row['id']}#{k}", "dialogue_id": row.get("dialogue_id", row["id"])}
  return {**kept, **ids, "messages": messages}


def _stripped(message: dict[str, Any]) -> dict[str, Any]:
  return {key: value for key, value in message.items() if key != "think"}


def _message(message: Any, where: str) -> dict[str, Any]:
  message = _present(message, {"role", "content", "think"}, where)
  role = message.get("role")
  role = "human" if role == "user" else role
  if role not in ROLES:
    raise ValueError(f"{where}: role {role!r} is not in {ROLES}")
  where = f"{where} ({role})"
  content = _content(message.get("content"), where)
  if role == "assistant":
    return _assistant(content, message.get("think"), where)
  if "think" in message:
    raise ValueError(f"{where}: only 'assistant' has a 'think'")
  _check_audio_role(role, content, where)
  if not any(block["type"] == "audio" or block["text"] for block in content):
    raise ValueError(f"{where}: the turn is empty")
  return {"role": role, "content": content}


def _assistant(content: list[dict], think: Any, where: str) -> dict[str, Any]:
  _check_audio_role("assistant", content, where)
  text = "".join(block["text"] for block in content)
  if think is None and text.lstrip().startswith("<think>"):
    think, text = replies.split_reply(text)
    if text is None:
      raise ValueError(f"{where}: the thought never closes")
  if "</think>" in text:
    raise ValueError(f"{where}: the answer {text!r} holds a '</think>'")
  think = _text("" if think is None else think, f"{where}, think").strip()
  message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
  return {**message, "think": think} if think else message


def _content(content: Any, where: str) -> list[dict[str, Any]]:
  if isinstance(content, str):
    return [{"type": "text", "text": _text(content, where)}]
  if not isinstance(content, list | tuple):
    raise ValueError(f"{where}: content must be text or blocks, not {content!r}")
  return [_block(block, f"{where}, block {k}") for k, block in enumerate(content)]


def _block(block: Any, where: str) -> dict[str, Any]:
  kind = block.get("type") if isinstance(block, dict) else block
  if not isinstance(kind, str) or kind not in _BLOCKS:
    raise ValueError(f"{where}: type {kind!r} is not in {tuple(_BLOCKS)}")
  block = _present(block, _BLOCKS[kind], where)
  if kind == "text":
    return {"type": "text", "text": _text(block.get("text"), where)}
  if kind == "input_audio":
    part = _present(block.get("input_audio"), {"data", "format"}, where)
    return {"type": "audio", "bytes": _bytes(part.get("data"), where)}
  return _audio(block, where)


def _audio(block: dict[str, Any], where: str) -> dict[str, Any]:
  if ("path" in block) == ("bytes" in block):
    raise ValueError(f"{where}: audio wants either 'path' or 'bytes', has {block!r}")
  if "path" in block and not isinstance(block["path"], str | os.PathLike):
    raise ValueError(f"{where}: path {block['path']!r} is not a path")
  if "bytes" in block:
    block["bytes"] = _bytes(block["bytes"], where)
  else:
    block["path"] = os.fspath(block["path"])
  edges = [block.get("start_s", 0.0), block.get("end_s", math.inf)]
  is_number = [isinstance(e, numbers.Real) and not isinstance(e, bool) for e in edges]
  if not all(is_number) or not 0 <= edges[0] < edges[1]:
    raise ValueError(f"{where}: wants 0 <= start_s < end_s, has {edges}")
  return block


def _bytes(data: Any, where: str) -> bytes:
  """Bytes as they are, or from the base64 text that JSON holds."""
  if isinstance(data, bytes):
    return data
  if not isinstance(data, str):
    raise ValueError(f"{where}: audio data must be bytes or base64, not {data!r}")
  try:
    return base64.b64decode(data, validate=True)
  except ValueError as error:
    raise ValueError(f"{where}: {data[:40]!r}… is not base64: {error}") from error


def _text(text: Any, where: str) -> str:
  if not isinstance(text, str):
    raise ValueError(f"{where}: text must be a string, not {text!r}")
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(f"{where}: {text!r} is not valid Unicode: {error}") from error
  return text


def _present(mapping: Any, keys: set[str], where: str) -> dict[str, Any]:
  """A copy without the None entries that tables write for absent keys."""
  if not isinstance(mapping, dict):
    raise ValueError(f"{where}: must be an object with {sorted(keys)}, not {mapping!r}")
  present = {key: value for key, value in mapping.items() if value is not None}
  unknown = sorted(map(str, set(present) - keys))
  if unknown:
    raise ValueError(f"{where}: unknown keys {unknown}; the keys are {sorted(keys)}")
  return present


def _check_audio_role(role: str, content: list[dict], where: str) -> None:
  if role in _TEXT_ONLY_ROLES and any(b["type"] == "audio" for b in content):
    raise ValueError(f"{where}: audio is not possible in {_TEXT_ONLY_ROLES}")


def _placed(messages: Sequence[Any], audios: Sequence[Any], where: str) -> list[Any]:
  """ms-swift's rows: each `<audio>` in a string is the next of `audios`."""
  texts = [m.get("content") for m in messages if isinstance(m, dict)]
  places = sum(text.count(_PLACE) for text in texts if isinstance(text, str))
  if places != len(audios):
    raise ValueError(f"{where}: {places} {_PLACE} places but {len(audios)} audios")
  left = iter(audios)
  return [_with_audios(message, left) for message in messages]


def _with_audios(message: Any, left: Any) -> Any:
  if not isinstance(message, dict) or not isinstance(message.get("content"), str):
    return message
  first, *others = message["content"].split(_PLACE)
  blocks = [{"type": "text", "text": first}] if first or not others else []
  for text in others:
    audio = next(left)
    key = "bytes" if isinstance(audio, bytes) else "path"
    blocks.append({"type": "audio", key: audio})
    blocks += [{"type": "text", "text": text}] if text else []
  return {**message, "content": blocks}
