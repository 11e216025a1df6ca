"""Rewards of prompts that say what a good reply does: their rubric, and who judges."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from stepaudio_jax.judges import rubric
from stepaudio_jax.judges.questions import Judge
from stepaudio_jax.rollout.said import Said

NAME = "rubric"  # of its column among the rewards

# (rows that have a rubric, a reply to each) → rewards [B], NaN where none is read
Reader = Callable[[Sequence[Mapping[str, Any]], Sequence[Said]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Terms:
  """How prompts with a rubric are rewarded.

  Attributes:
    read: who gives the reward "rubric"; None gives none.
    weight: of that reward; 0 only logs it.
    learned: factor of the learned dimensions' weights on these prompts.
  """

  read: Reader | None = None
  weight: float = 0.0
  learned: float = 1.0

  def __post_init__(self):
    if self.weight and self.read is None:
      raise ValueError(f"rewards.rubric.weight={self.weight} needs a judge")


class RubricReader:
  """Rewards by a judge, asked about every item of a rubric: see judges/rubric.py.

  A reply whose thought never closed has none (NaN), nor has one about which an answer
  cannot be read; these are counted in the log. Replies that say the same to one prompt
  are asked about once.
  """

  def __init__(self, judge: Judge):
    self._judge = judge

  def __call__(
    self, rows: Sequence[Mapping[str, Any]], texts: Sequence[Said]
  ) -> np.ndarray:
    asked, parts = [], []
    for row, text in zip(rows, texts, strict=True):
      own = [] if text.answer is None else rubric.questions(row, text.answer)
      parts.append(slice(len(asked), len(asked) + len(own)))
      asked += own
    new = [*dict.fromkeys(asked)]
    said = dict(zip(new, self._judge.answers(new) if new else [], strict=True))
    answers = [said[question] for question in asked]
    reward_B = np.full(len(rows), np.nan, np.float32)
    unread = []
    for b, (row, part) in enumerate(zip(rows, parts, strict=True)):
      if part.stop > part.start:
        found = rubric.points(row, answers[part])
        unread += answers[part] if found is None else []
        reward_B[b] = np.nan if found is None else found
    if unread:
      lost = int(np.isnan(reward_B).sum())
      logging.warning(
        "%d of %d replies have no reward by their rubric; among the judge's answers "
        "about them: %r",
        lost,
        len(rows),
        [raw if raw is None else raw[:80] for raw in unread[:3]],
      )
    return reward_B


def column(
  terms: Terms, rows: Sequence[Mapping[str, Any]], texts: Sequence[Said]
) -> tuple[np.ndarray, np.ndarray]:
  """(rewards [B], weights [B]) of "rubric"; NaN and 0 where a prompt has none."""
  places = [b for b, row in enumerate(rows) if has(row)]
  reward_B = np.full(len(rows), np.nan, np.float32)
  weight_B = np.zeros(len(rows), np.float32)
  if places:
    reward_B[places] = terms.read([rows[b] for b in places], [texts[b] for b in places])
    weight_B[places] = terms.weight
  return reward_B, weight_B


def has(row: Mapping[str, Any]) -> bool:
  return bool(row.get("rubric"))
