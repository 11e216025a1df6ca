"""Sampled and scored replies on the host, before anything is measured of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stepaudio_jax.core.types import Batch, Rollout
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scores


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Replies to this process's prompts, those to a prompt (its group) behind each other.

  Attributes:
    prompts: a prompt a row.
    asked: the dialogue rows behind them.
    rollout, texts, scores: of the replies.
  """

  prompts: Batch
  asked: Sequence[Mapping[str, Any]]
  rollout: Rollout
  texts: Sequence[Said]
  scores: Scores

  @property
  def copies(self) -> int:
    """Replies to each prompt."""
    return len(self.texts) // len(self.asked)


def chosen(drawn: Drawn, groups: Sequence[int]) -> Drawn:
  """The prompts of those numbers, in that order, with their replies."""
  copies = drawn.copies
  rows = [group * copies + k for group in groups for k in range(copies)]
  scores = dataclasses.replace(
    drawn.scores,
    reward_BC=drawn.scores.reward_BC[rows],
    weight_BC=drawn.scores.weight_BC[rows],
  )
  return Drawn(
    jax.tree.map(lambda x: x[list(groups)], drawn.prompts),
    [drawn.asked[group] for group in groups],
    jax.tree.map(lambda x: x[rows], drawn.rollout),
    [drawn.texts[row] for row in rows],
    scores,
  )


def joined(parts: Sequence[Drawn]) -> Drawn:
  """The parts behind each other; prompts and replies are of equal widths in all."""

  def behind(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *trees)

  scores = dataclasses.replace(
    parts[0].scores,
    reward_BC=behind([part.scores.reward_BC for part in parts]),
    weight_BC=behind([part.scores.weight_BC for part in parts]),
  )
  return Drawn(
    behind([part.prompts for part in parts]),
    [row for part in parts for row in part.asked],
    behind([part.rollout for part in parts]),
    [text for part in parts for text in part.texts],
    scores,
  )
