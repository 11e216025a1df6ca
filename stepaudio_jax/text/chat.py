r"""Dialogues ↔ tokens: Step-Audio-R1's turn format, loss mask and audio spans.

A turn is `<|BOT|>{role}\n{content}<|EOT|>`, nothing between turns, no BOS. Text
between two special tokens is tokenised as one span, so tokens do not depend on how
the pieces came together, with one wanted exception: the seam where generation starts.

**The seam.** BPE joins ">\n" with newlines that follow, so tokenising a finished
reply whole can give a beginning that no generation ever sees. Here a trained turn is
always the generation prompt's own tokens, then the rest as a span of its own; between
`<|BOT|>` and `<|EOT|>` stand

  with thought     `assistant\n<think>\n`             | `{think}\n</think>\n{answer}`
  without thought  `assistant\n<think>\n\n</think>\n` | `{answer}`

Everything left of the bar is forced (no loss) and equals `prompt(thinking=True)` and
`prompt(thinking=False)` token by token. The empty thought is therefore a mode that
the caller asks for: a model prompted with `<think>\n` is never taught to close the
thought at once (that is how reasoning decays), and ">\n\n" is one token there, which
sampling after `<think>\n` could not have made.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.text import thoughts
from stepaudio_jax.text.messages import HISTORIES, History
from stepaudio_jax.text.tokenizer import Tokenizer

# Which assistant turns are predicted; "all" needs history="thought".
Target = Literal["last", "all"]
TARGETS = ("last", "all", None)

_THOUGHT_OPENED = "assistant\n<think>\n"
_THOUGHT_EMPTY = "assistant\n<think>\n\n</think>\n"


@dataclasses.dataclass(frozen=True)
class Span:
  """Where a chunk's audio tokens lie: token_T[start : start + count].

  `chunk` counts the example's chunks from 0, through all its clips in order.
  """

  chunk: int
  start: int
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Rendered:
  """A dialogue as a model reads it.

  Attributes:
    token_T: int32 ids; audio positions hold the patch id.
    loss_T: bool, True on tokens to be predicted: of each trained turn the thought,
      the answer and <|EOT|>.
    spans: audio chunks in order.
  """

  token_T: np.ndarray
  loss_T: np.ndarray
  spans: tuple[Span, ...]


def render(
  messages: Sequence[dict[str, Any]],
  *,
  tokenizer: Tokenizer,
  clip_tokens: Sequence[Sequence[int]],
  example_id: str,
  target: Target | None = "last",
  history: History = "answer",
) -> Rendered:
  """Tokens of whole messages, every turn closed.

  Args:
    messages: in the dialogue schema (messages.py).
    tokenizer: text.tokenizer.load(…).
    clip_tokens: for each audio block, in order, its chunks' audio token counts.
    example_id: named in errors.
    target: "last" trains the last message, "all" every assistant turn, None none
      (a reward model reads the last answer without its thought this way).
    history: what assistant turns outside the target keep.

  Raises:
    ValueError: anything malformed, naming the example.
  """
  messages = messages_lib.normalise(messages, example_id)
  _check_choices(target, history, example_id)
  if target and messages[-1]["role"] != "assistant":
    raise ValueError(
      f"example {example_id!r}: target={target!r} wants an assistant turn at the end, "
      f"it is a {messages[-1]['role']!r} turn"
    )
  row = _Row(tokenizer, _clips(messages, clip_tokens, example_id))
  last = len(messages) - 1
  for k, message in enumerate(messages):
    trained = target == "all" or (target == "last" and k == last)
    _turn(row, message, history, trained, is_last=k == last)
  return row.rendered()


def prompt(
  messages: Sequence[dict[str, Any]],
  *,
  tokenizer: Tokenizer,
  clip_tokens: Sequence[Sequence[int]],
  example_id: str,
  thinking: bool = True,
  history: History = "answer",
) -> Rendered:
  """Tokens from which the assistant's next turn is generated; no loss anywhere.

  `thinking` opens a thought; without it the prompt holds an empty one and the model
  writes the answer only. Arguments and errors as in `render`.
  """
  messages = messages_lib.normalise(messages, example_id)
  _check_choices(None, history, example_id)
  if messages[-1]["role"] == "assistant":
    raise ValueError(f"example {example_id!r}: a prompt cannot end with 'assistant'")
  row = _Row(tokenizer, _clips(messages, clip_tokens, example_id))
  for message in messages:
    _turn(row, message, history, trained=False, is_last=False)
  _open_reply(row, thinking)
  return row.rendered()


class _Row:
  """Tokens laid down one after the other."""

  def __init__(self, tokenizer: Tokenizer, clips: Iterator[Sequence[int]]):
    self.special = tokenizer.special
    self._tokenizer = tokenizer
    self._clips = clips
    self._tokens: list[int] = []
    self._loss: list[bool] = []
    self._spans: list[Span] = []

  def text(self, text: str, loss: bool = False) -> None:
    self._put(self._tokenizer.encode(text), loss)

  def mark(self, token_id: int, loss: bool = False) -> None:
    self._put([token_id], loss)

  def next_clip(self) -> None:
    """Chunks of one clip touch, each between its own start and end."""
    for count in next(self._clips):
      self.mark(self.special.audio_start)
      self._spans.append(Span(len(self._spans), len(self._tokens), count))
      self._put([self.special.audio_patch] * count, loss=False)
      self.mark(self.special.audio_end)

  def rendered(self) -> Rendered:
    return Rendered(
      np.asarray(self._tokens, np.int32),
      np.asarray(self._loss, np.bool_),
      tuple(self._spans),
    )

  def _put(self, ids: list[int], loss: bool) -> None:
    self._tokens += ids
    self._loss += [loss] * len(ids)


def _turn(
  row: _Row, message: dict[str, Any], history: History, trained: bool, is_last: bool
) -> None:
  if message["role"] != "assistant":
    _heard(row, message)
  elif trained or history == "thought":
    _reply(row, message, loss=trained)
  else:
    row.mark(row.special.bot)
    row.text("assistant\n" + messages_lib.text_of(message))
    if is_last or history != "answer_without_eot":
      row.mark(row.special.eot)


def _heard(row: _Row, message: dict[str, Any]) -> None:
  """A turn of anybody but the assistant; text up to a clip is one span."""
  row.mark(row.special.bot)
  text = message["role"] + "\n"
  for block in message["content"]:
    if block["type"] == "text":
      text += block["text"]
    else:
      row.text(text)
      row.next_clip()
      text = ""
  row.text(text)
  row.mark(row.special.eot)


def _reply(row: _Row, message: dict[str, Any], loss: bool) -> None:
  """An assistant turn as it is generated, thought included."""
  think = message.get("think", "")
  _open_reply(row, thinking=bool(think))
  closing = f"{think}{thoughts.CLOSING}" if think else ""
  row.text(closing + messages_lib.text_of(message), loss)
  row.mark(row.special.eot, loss)


def _open_reply(row: _Row, thinking: bool) -> None:
  row.mark(row.special.bot)
  row.text(_THOUGHT_OPENED if thinking else _THOUGHT_EMPTY)


def _clips(
  messages: Sequence[dict[str, Any]],
  clip_tokens: Sequence[Sequence[int]],
  example_id: str,
) -> Iterator[Sequence[int]]:
  """`clip_tokens`, once it is sure that they are those of the messages."""
  blocks = len(messages_lib.audio_blocks(messages))
  if blocks != len(clip_tokens):
    raise ValueError(
      f"example {example_id!r}: {blocks} audio blocks, but audio token counts of "
      f"{len(clip_tokens)} clips: {[list(counts) for counts in clip_tokens]}"
    )
  for k, counts in enumerate(clip_tokens):
    if not len(counts) or min(counts) < 1:
      raise ValueError(
        f"example {example_id!r}: clip {k} has chunks of {list(counts)} audio tokens; "
        "each clip needs at least one chunk and each chunk at least one token"
      )
  return iter(clip_tokens)


def _check_choices(target: Target | None, history: History, example_id: str) -> None:
  if target not in TARGETS:
    raise ValueError(f"example {example_id!r}: target {target!r} is not in {TARGETS}")
  if history not in HISTORIES:
    raise ValueError(
      f"example {example_id!r}: history {history!r} is not in {HISTORIES}"
    )
  if target == "all" and history != "thought":
    raise ValueError(
      f"example {example_id!r}: target='all' needs history='thought', not {history!r}: "
      "a turn stripped to its answer is not what the model generated"
    )
