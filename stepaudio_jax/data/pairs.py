"""One comparison of two replies, and what a batch of them has room for."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stepaudio_jax.data import packing
from stepaudio_jax.data.collate import Example, Limits
from stepaudio_jax.data.replies import Views

ROUNDED_TOKENS = 32  # shapes taken from data are rounded up: fewer programs


@dataclasses.dataclass(frozen=True)
class PairLimits:
  """Shapes of a batch; None takes what the data needs.

  Attributes:
    prompts: of the contexts.
    max_reply_tokens: of each view of a reply.
    max_raters: J.
  """

  prompts: Limits | None = None
  max_reply_tokens: int | None = None
  max_raters: int | None = None

  @property
  def row_tokens(self) -> int:
    """Of a packed row: the longest context with the longest reply."""
    return self.prompts.max_tokens + self.max_reply_tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
  """One comparison, rendered; its `tokens` and `chunks` are its context's.

  Attributes:
    id: that of its first row.
    places: its rows in the set, a rater each.
    context: without frames.
    keys: of the context's clips in the store.
    clip_frames: encoder frames of every chunk.
    replies: in the order in which the first row names them.
    label_JC, score_2JC: see types.Comparisons.
    raters: names, in the order of `places`.
    turned_J: see types.Comparisons.
  """

  id: str
  source: int
  places: tuple[int, ...]
  context: Example
  keys: tuple[str, ...]
  clip_frames: tuple[int, ...]
  replies: tuple[Views, Views]
  label_JC: np.ndarray
  score_2JC: np.ndarray
  raters: tuple[str, ...]
  turned_J: np.ndarray

  @property
  def tokens(self) -> int:
    return len(self.context.token_T)

  @property
  def chunks(self) -> int:
    return len(self.clip_frames)

  @property
  def reply_tokens(self) -> int:
    """Of the longest view."""
    return max(reply.tokens for reply in self.replies)


def filled(limits: PairLimits, pairs: Sequence[Pair]) -> PairLimits:
  """The limits, what they leave open as these comparisons need it."""
  longest = max(max(pair.clip_frames, default=0) for pair in pairs)
  needed = Limits(
    _rounded(max(pair.tokens for pair in pairs)),
    max(pair.chunks for pair in pairs),
    # An odd last frame has a neighbour that the adaptor's convolution reads.
    longest + longest % 2,
  )
  return PairLimits(
    limits.prompts or needed,
    limits.max_reply_tokens or _rounded(max(pair.reply_tokens for pair in pairs)),
    limits.max_raters or max(len(pair.places) for pair in pairs),
  )


def _rounded(tokens: int) -> int:
  return -(-tokens // ROUNDED_TOKENS) * ROUNDED_TOKENS


def problem(pair: Pair, limits: PairLimits) -> str | None:
  """Why a comparison does not fit, or None where it does."""
  if len(pair.places) > limits.max_raters:
    raise ValueError(
      f"comparison {pair.id!r} has {len(pair.places)} raters, max_raters is "
      f"{limits.max_raters}"
    )
  if pair.reply_tokens > limits.max_reply_tokens:
    room = limits.max_reply_tokens
    return f"a reply of {pair.reply_tokens} tokens, max_reply_tokens is {room}"
  return limits.prompts.problem(pair.tokens, pair.clip_frames)


def needed(
  pairs: Sequence[Pair],
  lengths_BQ: Sequence[Sequence[int]],
  share: int,
  row_tokens: int,
) -> packing.Need:
  """See packing.needed; `lengths_BQ` are those of the replies that are packed."""
  clips = [sum(frames > 0 for frames in pair.clip_frames) for pair in pairs]
  sizes = ([pair.tokens for pair in pairs], clips, lengths_BQ)
  arrays = (np.asarray(size, np.int64) for size in sizes)
  return packing.needed(*arrays, share=share, row_tokens=row_tokens)
