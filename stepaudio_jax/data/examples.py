"""Dialogues as training examples or prompts: rendered, measured, and found by id."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from absl import logging

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Batch
from stepaudio_jax.data import collate, progress
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
  """

  prompt: bool = False
  turns: Literal["all", "last"] = "all"
  history: messages_lib.History = "answer"
  thinking: bool = True

  def __post_init__(self):
    if self.turns not in ("all", "last"):
      raise ValueError(f"turns {self.turns!r} is not in ('all', 'last')")
    if self.history not in messages_lib.HISTORIES:
      raise ValueError(f"history {self.history!r} is not in {messages_lib.HISTORIES}")
    if (self.turns, self.history, self.prompt) == ("last", "thought", False):
      raise ValueError(
        "history 'thought' trains all turns of a dialogue at once: turns 'last' would "
        "do nothing"
      )


@dataclasses.dataclass(frozen=True)
class Skipped:
  """An example that is not used, and why."""

  id: str
  why: str


class Examples:
  """The examples of a corpus that fit into a row, by (source, index).

  All are rendered and measured here, before training; those that do not fit are
  never truncated, they stand in `skipped` and in the log.

  Args:
    store: encoder frames of the corpus's clips; None for text alone.
    encoder_width: E of the batches.

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
    rendering: Rendering = Rendering(),
  ):
    self._corpus, self._store, self._tokenizer = corpus, store, tokenizer
    self._rendering, self._width = rendering, encoder_width
    self.limits = limits
    self.names, self.weights = corpus.names, corpus.weights
    self.skipped: list[Skipped] = []
    self._places: list[list[tuple[int, int]]] = [[] for _ in corpus.names]
    self._sizes: list[list[tuple[int, int]]] = [[] for _ in corpus.names]
    self._by_id: dict[str, tuple[int, int]] = {}
    self._kept: dict[tuple[int, int], Example] = {}
    self._room = KEPT_TOKENS
    self._index()

  @property
  def counts(self) -> tuple[int, ...]:
    """Examples of each set."""
    return tuple(len(places) for places in self._places)

  def size(self, source: int, index: int) -> tuple[int, int]:
    """(tokens, audio chunks)."""
    return self._sizes[source][index]

  def example_id(self, source: int, index: int) -> str:
    return self.load(source, index).id

  def row(self, example_id: str) -> dict[str, Any]:
    """The dialogue-schema row behind an id, with `dialogue_id`.

    Its messages end with the turn to be learned; those of a prompt end before it, and
    the turn is "reference" where the data has one.
    """
    if example_id not in self._by_id:
      near = sorted(self._by_id)[:5]
      raise KeyError(f"no example {example_id!r} among {len(self._by_id)}: {near}, …")
    source, index = self._by_id[example_id]
    place, turn = self._places[source][index]
    return self._turns(self._corpus.sample(source, place))[turn]

  def load(self, source: int, index: int) -> Example:
    """An example without its frames."""
    if (source, index) in self._kept:
      return self._kept[source, index]
    place, turn = self._places[source][index]
    dialogue = self._corpus.sample(source, place)
    return self._rendered(dialogue, self._turns(dialogue)[turn], source)

  def batch(
    self, rows: Sequence[Sequence[tuple[int, int]]], first_number: int
  ) -> Batch:
    """Rows of (source, index), frames included."""
    return collate.collate(
      [[self._with_frames(*place) for place in row] for row in rows],
      self.limits,
      pad_id=self._tokenizer.special.pad,
      encoder_width=self._width,
      first_number=first_number,
    )
