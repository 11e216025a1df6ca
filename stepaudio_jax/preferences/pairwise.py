"""Plain pairs, as TRL has them; raw samples:

{"prompt": "What colour is the sky?", "chosen": "Blue.", "rejected": "Green."}
{"prompt": [{"role": "user", "content": "What colour is the sky?"}],
 "chosen": [{"role": "assistant", "content": "Blue."}],
 "rejected": [{"role": "assistant", "content": "Green."}]}
{"chosen": [{"role": "user", "content": "What colour is the sky?"},
            {"role": "assistant", "content": "Blue."}],
 "rejected": [{"role": "user", "content": "What colour is the sky?"},
              {"role": "assistant", "content": "Green."}]}

What comes before the last turn of both must be the same. Messages may be of any form
that text/messages.py reads, sound included. Other keys are not read.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from stepaudio_jax.data import fields
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.preferences.compared import Compared, LeftOut, Rating, unusable
from stepaudio_jax.text import messages as messages_lib

RATER = "pairwise"
STRENGTH = 1  # that the chosen reply is better is known, by how much is not
_UNREAD = ("audio", "audios", "image", "images", "video", "videos", "tools")


def comparisons(
  rows: Sequence[Row], problems: list[str]
) -> Iterator[Compared | LeftOut]:
  """A comparison a row, the chosen reply first; what is wrong goes to `problems`."""
  for place in range(len(rows)):
    try:
      row = rows[place]
      context, replies = _read(row)
    except ValueError as error:
      problems.append(str(error))
      continue
    rating = Rating(RATER, -STRENGTH)
    bad = unusable(row.at, replies)
    yield bad or Compared(row.at, row.folder, context, replies, (rating,))


def _read(row: Row) -> tuple[list[dict[str, Any]], tuple[str, str]]:
  """The context, and the chosen and the rejected reply."""
  unread = [key for key in _UNREAD if row.value.get(key)]
  if unread:
    raise ValueError(
      f"{row.at}: {unread} are not read; put sound into the messages' contents"
    )
  (before, chosen), (other, rejected) = (_cut(row, k) for k in ("chosen", "rejected"))
  if before != other:
    raise ValueError(f"{row.at}: 'chosen' and 'rejected' differ before their last turn")
  prompt = row.value.get("prompt")
  if isinstance(prompt, str) and not before:
    return [{"role": "human", "content": prompt}], (chosen, rejected)
  if isinstance(prompt, list):
    opens = before[: len(prompt)] == prompt
    return (before if opens else [*prompt, *before]), (chosen, rejected)
  if isinstance(prompt, str) and not any(_says(one, prompt) for one in before):
    raise ValueError(
      f"{row.at}: 'prompt' is {prompt!r:.80}, which no turn of 'chosen' says"
    )
  if not before:
    raise ValueError(
      f"{row.at}: 'prompt' is {prompt!r:.80}, neither a text nor messages, and "
      "'chosen' has no turn before the reply"
    )
  return before, (chosen, rejected)


def _cut(row: Row, key: str) -> tuple[list[dict[str, Any]], str]:
  """The turns before the last one, and the text of that."""
  value = row.value.get(key)
  if isinstance(value, str):
    return [], value
  turns = fields.rows(row, key)
  last = turns[-1] if turns else None
  if not isinstance(last, dict) or last.get("role") != "assistant":
    raise ValueError(f"{row.at}: the last turn of {key!r} is {last!r:.80}, no reply")
  try:
    (reply,) = messages_lib.normalise([last], key)
  except ValueError as error:
    raise ValueError(f"{row.at}: {error}") from error
  text, think = messages_lib.text_of(reply), reply.get("think")
  return turns[:-1], text if think is None else f"<think>{think}</think>{text}"


def _says(turn: Any, text: str) -> bool:
  content = turn.get("content") if isinstance(turn, dict) else None
  return isinstance(content, str) and content.strip() == text.strip()
