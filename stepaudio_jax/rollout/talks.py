"""Dialogues that are played: the model's own replies stand before the turns asked for.

The last human turns of a dialogue are played. To the first so many samples are drawn;
from there on each sample is a conversation of its own, and its next prompt holds its
own answers, their thoughts taken out (`data.history`). A row is a turn of a sample, in
the order (dialogue, turn, sample): replies to one turn of one dialogue touch and are
compared with each other, whatever was said before.

A reply whose thought never closes leaves an empty turn. A prompt that no longer fits
is not asked, nor are those after it: no tokens, no reward (NaN), and it is counted.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stepaudio_jax.core import processes
from stepaudio_jax.core.types import Batch, Rollout
from stepaudio_jax.data.collate import Example
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.rollout import said as said_lib
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scorer, Scores
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.text.messages import OF_LAST_TURN
from stepaudio_jax.text.tokenizer import Tokenizer

REWARDED = ("each", "last")
_KEPT = 8192  # rendered prompts: those of a step are read three times

Row = Mapping[str, Any]
Before = tuple[Said, ...]  # what a sample has said


class Talks:
  """Prompts, rows and rewards of played turns; rows are this process's.

  Args:
    feed: of dialogues with at least `turns` human turns.
    turns: at least 2.
    samples: of each dialogue.
    rewarded: "each" turn has a reward of its own, or all have the "last" one's.
  """

  def __init__(
    self,
    feed: Examples,
    tokenizer: Tokenizer,
    *,
    turns: int,
    samples: int,
    rewarded: str,
  ):
    self._feed, self._tokenizer, self._rewarded = feed, tokenizer, rewarded
    self.turns, self._samples = turns, samples
    self._prompt = functools.lru_cache(maxsize=_KEPT)(self._new_prompt)

  def play(
    self, asked: Sequence[Row], first: Rollout, ask: Callable[[Batch, int], Rollout]
  ) -> Rollout:
    """All turns' replies on the host.

    Args:
      asked: the dialogues' rows.
      first: replies to the first turn, samples of a dialogue behind each other.
      ask: replies to prompts of the turn of that number, counted from 0; one each.
    """
    names = [row["id"] for row in asked for _ in range(self._samples)]
    before: list[Before] = [()] * len(names)
    parts = [first]
    for turn in range(1, self.turns):
      said = said_lib.said(parts[-1], self._tokenizer)
      before = [(*old, new) for old, new in zip(before, said, strict=True)]
      parts.append(ask(self._batch(names, before), turn))
    # Turn by turn so far; a dialogue's come together.
    shape = (self.turns, len(asked), self._samples)
    place_B = np.arange(np.prod(shape)).reshape(shape).swapaxes(0, 1).ravel()
    return jax.tree.map(lambda *x: np.concatenate(x)[place_B], *parts)

  def prompts(self, asked: Sequence[Row], texts: Sequence[Said]) -> Batch:
    """What stood before each reply."""
    return self._batch(self._names(asked), self._before(texts))

  def scores(
    self,
    scorer: Scorer,
    asked: Sequence[Row],
    texts: Sequence[Said],
    token_count_B: np.ndarray,
  ) -> Scores:
    """Rewards of all turns' replies; what was not asked has none."""
    shape = (len(asked), self.turns, self._samples)
    place_BTG = np.arange(len(texts)).reshape(shape)  # T are turns here
    if self._rewarded == "last":
      place_BTG = place_BTG[:, -1:]
    places = place_BTG.ravel().tolist()
    names, before = self._names(asked), self._before(texts)
    prompts = self._batch([names[k] for k in places], [before[k] for k in places])
    rows = [self._row(asked[k // (shape[1] * shape[2])], before[k]) for k in places]
    found = scorer(prompts, rows, [texts[k] for k in places], token_count_B[places])
    failed_B1 = ~(prompts.segment_BT > 0).any(axis=1)[:, None]
    # A reward that counts and is missing, so that nothing is compared with the reply.
    reward_BC = np.where(failed_B1, np.float32(np.nan), found.reward_BC)
    weight_BC = np.where(failed_B1, np.float32(1.0), found.weight_BC)

    def everywhere(x_BC: np.ndarray) -> np.ndarray:
      """The last turn's for all turns, where there is no more."""
      x_BTGC = x_BC.reshape(*place_BTG.shape, -1)
      return np.broadcast_to(x_BTGC, (*shape, x_BC.shape[1])).reshape(len(texts), -1)

    return Scores(found.names, everywhere(reward_BC), everywhere(weight_BC))

  def _names(self, asked: Sequence[Row]) -> list[str]:
    return [row["id"] for row in asked for _ in range(self.turns * self._samples)]

  def _before(self, texts: Sequence[Said]) -> list[Before]:
    """What each reply's sample has said before it."""
    size = self.turns * self._samples
    return [
      tuple(texts[k - k % size + k % self._samples : k : self._samples])
      for k in range(len(texts))
    ]

  def _row(self, row: Row, before: Before) -> Row:
    """What rewards read of a turn: the dialogue as it went, in the one form."""
    own = [_own(said) for said in before]
    messages = messages_lib.played(row["messages"], self.turns, own)
    if len(before) == self.turns - 1:
      return {**row, "messages": messages, "last_turn": True}
    kept = {
      k: value for k, value in row.items() if k not in (*OF_LAST_TURN, "reference")
    }
    return {**kept, "messages": messages, "last_turn": False}

  def _batch(self, names: Sequence[str], before: Sequence[Before]) -> Batch:
    """Prompts; rows of those that do not fit are empty."""
    pairs = zip(names, before, strict=True)
    found = [self._prompt(name, said) for name, said in pairs]
    rows = [[prompt] if prompt else [] for prompt in found]
    fitting = [prompt for prompt in found if prompt]
    tokens = max((len(p.token_T) for p in fitting), default=0)
    frames = max((len(f) for p in fitting for f in p.frames), default=0)
    limits = self._feed.limits
    if self._feed.buckets:
      sizes = (processes.largest(tokens), processes.largest(frames))
      limits = self._feed.buckets.limits(limits, [sizes])
    first = processes.index() * len(rows)
    return self._feed.laid(rows, first_number=first, limits=limits)

  def _new_prompt(self, name: str, before: Before) -> Example | None:
    """None where it does not fit."""
    prompt = self._feed.turn(name, [_own(said) for said in before])
    frames = [len(each) for each in prompt.frames]
    return None if self._feed.limits.problem(len(prompt.token_T), frames) else prompt


def _own(said: Said) -> dict[str, Any]:
  return messages_lib.own_turn(said.answer, said.think)
