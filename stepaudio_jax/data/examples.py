"""Dialogues as training examples or prompts: rendered, measured, and found by id."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from absl import logging

from stepaudio_jax.core import lengths, progress
from stepaudio_jax.core.types import Batch
from stepaudio_jax.data import collate
from stepaudio_jax.data.buckets import Buckets
from stepaudio_jax.data.collate import Example, Limits
from stepaudio_jax.data.corpus import LISTED, Corpus
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.data.store import Store
from stepaudio_jax.text import chat
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.text.tokenizer import Tokenizer

# Rendered examples are kept up to so many tokens (5 bytes each), later ones are
# rendered anew at each visit.
KEPT_TOKENS = 50_000_000
_OPEN_TURN = {"role": "assistant", "content": ""}


@dataclasses.dataclass(frozen=True)
class Rendering:
  """What becomes of a dialogue.

  Attributes:
    prompt: False: its assistant turns are learned. True: they are cut off and asked
      for; a dialogue may then end with the human.
    turns: "all" assistant turns, an example each, or the "last".
    history: what earlier assistant turns keep (text/messages.py); with "thought" and
      no prompt a dialogue is one example.
    thinking: prompts open a thought, or hold an empty one.
    played: so many of a dialogue's last human turns are asked; the prompt is that of
      the first, and `Examples.turn` has the others. Shorter dialogues are skipped.
  """

  prompt: bool = False
  turns: Literal["all", "last"] = "all"
  history: messages_lib.History = "answer"
  thinking: bool = True
  played: int = 1

  def __post_init__(self):
    if self.turns not in ("all", "last"):
      raise ValueError(f"turns {self.turns!r} is not in ('all', 'last')")
    if self.history not in messages_lib.HISTORIES:
      raise ValueError(f"history {self.history!r} is not in {messages_lib.HISTORIES}")
    if self.played > 1 and not (self.prompt and self.turns == "last"):
      raise ValueError(f"played={self.played}: only prompts for last turns are played")
    if (self.turns, self.history, self.prompt) == ("last", "thought", False):
      raise ValueError(
        "history 'thought' trains all turns of a dialogue at once: turns 'last' would "
        "do nothing"
      )

  def problem(self, row: dict[str, Any]) -> str | None:
    """Why an `expanded` row cannot be played; None where it can."""
    if self.played > 1:
      heard = len(messages_lib.human_turns(row["messages"]))
      if heard < self.played:
        return f"{heard} human turns, {self.played} are played"
    return None


@dataclasses.dataclass(frozen=True)
class Skipped:
  """An example that is not used, and why."""

  id: str
  why: str


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where an example comes from, and its size.

  Attributes:
    place: index of the dialogue in its set.
    turn: which of the dialogue's examples.
    chunks: audio chunks of at most 25 s.
    frames: encoder frames of the longest chunk.
  """

  id: str
  place: int
  turn: int
  tokens: int
  chunks: int
  frames: int = 0


class Examples:
  """The examples of a corpus that fit into a row, by (source, index).

  All are rendered and measured here, before training. Those that do not fit are
  never truncated: they stand in `skipped` and in the log.

  Args:
    store: encoder frames of the corpus's clips; None for text alone.
    encoder_width: E of the batches.
    buckets: shapes that a batch may have; None is the one of `limits`.

  Raises:
    ValueError: a set has no example that fits, or a dialogue cannot be rendered.
    KeyError: a clip is not in the store.
  """

  def __init__(
    self,
    corpus: Corpus,
    store: Store | None,
    tokenizer: Tokenizer,
    limits: Limits,
    *,
    encoder_width: int,
    rendering: Rendering | None = None,
    buckets: Buckets | None = None,
  ):
    self._corpus, self._store, self._tokenizer = corpus, store, tokenizer
    self._rendering = rendering or Rendering()
    self.limits, self._width, self.buckets = limits, encoder_width, buckets
    self.names, self.weights = corpus.names, corpus.weights
    self.skipped: list[Skipped] = []
    self._entries: list[list[Entry]] = [[] for _ in corpus.names]
    self._by_id: dict[str, tuple[int, int]] = {}
    self._kept: dict[tuple[int, int], tuple[Example, tuple[str, ...]]] = {}
    self._index()

  @property
  def counts(self) -> tuple[int, ...]:
    """Examples of each set."""
    return tuple(map(len, self._entries))

  def entry(self, source: int, index: int) -> Entry:
    return self._entries[source][index]

  def fits(self, tokens: int, chunks: int) -> bool:
    """Whether examples of so much together fit into one row."""
    return tokens <= self.limits.max_tokens and chunks <= self.limits.max_clips

  def row(self, example_id: str) -> dict[str, Any]:
    """The dialogue-schema row behind an id, with "dialogue_id".

    Its messages end with the turn to be learned; those of a prompt end before it, and
    that turn is "reference" where the data has one.
    """
    source, index = self.place(example_id)
    entry = self._entries[source][index]
    dialogue = self._corpus.sample(source, entry.place)
    return expanded(dialogue.row, self._rendering)[entry.turn]

  def place(self, example_id: str) -> tuple[int, int]:
    """(source, index) of an example.

    Raises:
      KeyError: there is none of that id.
    """
    if example_id not in self._by_id:
      some = sorted(self._by_id)[:5]
      raise KeyError(f"no example {example_id!r} among {len(self._by_id)}: {some}, …")
    return self._by_id[example_id]

  def load(self, source: int, index: int) -> Example:
    """An example with its frames."""
    if (source, index) in self._kept:
      example, keys = self._kept[source, index]
    else:
      entry = self._entries[source][index]
      dialogue = self._corpus.sample(source, entry.place)
      row = expanded(dialogue.row, self._rendering)[entry.turn]
      example, keys = self._rendered(self._asked(row), dialogue, source)
    return self._heard(example, keys)

  def turn(self, example_id: str, own: Sequence[dict[str, Any]]) -> Example:
    """The prompt of a played turn with its frames, however long it is.

    Args:
      own: what the model said to the turns before it (text.messages.played).
    """
    source, index = self.place(example_id)
    entry = self._entries[source][index]
    dialogue = self._corpus.sample(source, entry.place)
    row = expanded(dialogue.row, self._rendering)[entry.turn]
    return self._heard(*self._rendered(self._asked(row, own), dialogue, source))

  def bucket(self, place: tuple[int, int]) -> tuple[int, int]:
    """Which of the buckets is an example's own."""
    entry = self.entry(*place)
    return self.buckets.places(entry.tokens, entry.frames)

  def shape(self, places: Iterable[tuple[int, int]]) -> Limits:
    """Of a batch with an example a row: the smallest bucket, where there are any."""
    if self.buckets is None:
      return self.limits
    entries = (self.entry(*place) for place in places)
    return self.buckets.limits(self.limits, ((e.tokens, e.frames) for e in entries))

  def batch(
    self,
    rows: Sequence[Sequence[tuple[int, int]]],
    first_number: int,
    limits: Limits | None = None,
  ) -> Batch:
    """Rows of (source, index); their examples are numbered from `first_number`.

    Args:
      limits: the shape of the rows, None is `self.limits`.
    """
    loaded = [[self.load(*place) for place in row] for row in rows]
    return self.laid(loaded, first_number, limits)

  def laid(
    self, rows: Sequence[Sequence[Example]], first_number: int, limits: Limits | None
  ) -> Batch:
    """As `batch`, of examples that are loaded; rows may be empty."""
    return collate.collate(
      rows,
      limits or self.limits,
      pad_id=self._tokenizer.special.pad,
      encoder_width=self._width,
      first_number=first_number,
    )

  def _index(self) -> None:
    """Renders everything once: sizes, ids, and what is to be skipped."""
    room = KEPT_TOKENS
    places = progress.bar(
      self._corpus.places(), "rendering", "row", total=len(self._corpus)
    )
    for source, place in places:
      dialogue = self._corpus.sample(source, place)
      for turn, row in enumerate(expanded(dialogue.row, self._rendering)):
        problem = self._rendering.problem(row)
        if not problem:
          example, keys = self._rendered(row, dialogue, source)
          problem = self.limits.problem(len(example.token_T), self._frames(keys))
        if problem:
          self.skipped.append(Skipped(row["id"], problem))
          continue
        if self._rendering.played > 1:  # all of it fits, and so does its beginning
          example, keys = self._rendered(self._asked(row), dialogue, source)
        tokens, frames = len(example.token_T), self._frames(keys)
        size = (tokens, len(frames), max(frames, default=0))
        spot = (source, len(self._entries[source]))
        self._by_id[example.id] = spot
        self._entries[source].append(Entry(example.id, place, turn, *size))
        if room >= tokens:
          self._kept[spot] = (example, keys)
          room -= tokens
    report_skipped(self.skipped, sum(self.counts))
    empty = {n for n, c in zip(self.names, self.counts, strict=True) if not c}
    if empty:
      why = "; ".join(f"{item.id}: {item.why}" for item in self.skipped[:3])
      raise ValueError(f"no example of {empty} fits; the first are {why}")

  def _asked(
    self, row: dict[str, Any], own: Sequence[dict[str, Any]] = ()
  ) -> dict[str, Any]:
    """The row up to the played turn after `own`."""
    count = self._rendering.played
    if count == 1:
      return row
    return {**row, "messages": messages_lib.played(row["messages"], count, own)}

  def _frames(self, keys: Sequence[str]) -> list[int]:
    """Encoder frames of each chunk of clips."""
    return [rows for key in keys for rows, _ in self._store.shape(key)]

  def _heard(self, example: Example, keys: Sequence[str]) -> Example:
    """With the frames of its clips."""
    frames = tuple(chunk.rows for key in keys for chunk in self._store.read(key))
    return dataclasses.replace(example, frames=frames)

  def _rendered(
    self, row: dict[str, Any], dialogue: Dialogue, source: int
  ) -> tuple[Example, tuple[str, ...]]:
    """The example without frames, and the keys of its clips."""
    # A turn hears the dialogue's clips up to its own place.
    clips = dialogue.audio[: len(messages_lib.audio_blocks(row["messages"]))]
    keys = tuple(self._corpus.key(audio) for audio in clips)
    if keys and self._store is None:
      raise ValueError(f"example {row['id']!r} has audio, but no store was given")
    clip_tokens = [
      [lengths.adaptor_tokens(rows) for rows, _ in self._store.shape(key)]
      for key in keys
    ]
    shown = rendered(row, self._rendering, self._tokenizer, clip_tokens)
    return Example(row["id"], source, shown.token_T, shown.loss_T, shown.spans), keys


def expanded(row: dict[str, Any], rendering: Rendering) -> list[dict[str, Any]]:
  """The examples of a dialogue, see `Examples.row`."""
  if not rendering.prompt:
    rows = messages_lib.turns(row, rendering.history)
    return rows if rendering.turns == "all" else rows[-1:]
  is_open = row["messages"][-1]["role"] != "assistant"
  if is_open:
    row = {**row, "messages": [*row["messages"], _OPEN_TURN]}
  rows = messages_lib.turns(row)
  last = len(rows) - 1
  chosen = range(len(rows)) if rendering.turns == "all" else [last]
  return [
    _prompt_row(rows[k], row["messages"], has_reply=not (is_open and k == last))
    for k in chosen
  ]


def rendered(
  row: dict[str, Any],
  rendering: Rendering,
  tokenizer: Tokenizer,
  clip_tokens: Sequence[Sequence[int]],
) -> chat.Rendered:
  """Tokens of one of the `expanded` rows."""
  known = {
    "tokenizer": tokenizer,
    "clip_tokens": clip_tokens,
    "example_id": row["id"],
    "history": rendering.history,
  }
  if rendering.prompt:
    return chat.prompt(row["messages"], thinking=rendering.thinking, **known)
  target = "all" if rendering.history == "thought" else "last"
  return chat.render(row["messages"], target=target, **known)


def report_skipped(skipped: Sequence[Skipped], used: int) -> None:
  """Logs how many examples are not used, and the first of them with the reason."""
  if skipped:
    logging.warning(
      "%d examples are used and %d skipped:\n  %s",
      used,
      len(skipped),
      "\n  ".join(f"{item.id}: {item.why}" for item in skipped[:LISTED]),
    )


def _prompt_row(
  row: dict[str, Any], messages: list[dict[str, Any]], has_reply: bool
) -> dict[str, Any]:
  # Thoughts of earlier turns come back: whether they are read is up to `history`.
  *heard, reply = messages[: len(row["messages"])]
  return {**row, "messages": heard} | ({"reference": reply} if has_reply else {})
