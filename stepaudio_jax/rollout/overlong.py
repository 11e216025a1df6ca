"""Overlong reward shaping of DAPO (arXiv 2503.14476, eq. 13), in tokens.

A reply near the limit of its length loses reward little by little, so that one that was
cut off is not simply wrong.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

NAME = "overlong"  # of the reward's column and of its key
_KEYS = {"buffer_tokens", "weight"}


@dataclasses.dataclass(frozen=True)
class Overlong:
  """The penalty of replies within `buffer_tokens` of the limit.

  Attributes:
    limit_tokens: L, the most tokens that a reply can have.
    buffer_tokens: B.
    weight: of the penalty beside the other rewards.
  """

  limit_tokens: int
  buffer_tokens: int
  weight: float

  def penalty(self, token_count_B: np.ndarray) -> np.ndarray:
    """0 up to L − B tokens, then linear to −1 at L."""
    over_B = token_count_B - (self.limit_tokens - self.buffer_tokens)
    return -np.clip(over_B / self.buffer_tokens, 0.0, 1.0)


def shaped(rewards: Mapping[str, Any], limit_tokens: int) -> Overlong | None:
  """The penalty of a recipe's rewards; none where a buffer of 0 asks for it.

  Args:
    rewards: with "overlong": {"buffer_tokens", "weight"}.
    limit_tokens: the most tokens that a reply can have.

  Raises:
    ValueError: other keys, a buffer longer than the replies, or a weight below 0.
  """
  given = dict(rewards[NAME])
  if set(given) != _KEYS:
    raise ValueError(f"rewards.overlong has {sorted(given)}; it needs {sorted(_KEYS)}")
  buffer_tokens, weight = given["buffer_tokens"], given["weight"]
  if not 0 <= buffer_tokens <= limit_tokens:
    raise ValueError(
      f"rewards.overlong.buffer_tokens={buffer_tokens}; it must lie in 0…{limit_tokens}"
      " (sampling.max_new_tokens)"
    )
  if not 0 <= weight < math.inf:
    raise ValueError(f"rewards.overlong.weight={weight}; it must be at least 0")
  return Overlong(limit_tokens, buffer_tokens, weight) if buffer_tokens else None
