"""Pairs of replies of which raters chose one, as batches for DPO."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from absl import logging

from stepaudio_jax.core.types import Contrasts
from stepaudio_jax.data import packing
from stepaudio_jax.data import pairs as pairs_lib
from stepaudio_jax.data import replies as replies_lib
from stepaudio_jax.data.comparisons import OVERALL, Pairs
from stepaudio_jax.data.examples import Skipped
from stepaudio_jax.data.pairs import Pair
from stepaudio_jax.text.tokenizer import Tokenizer

Place = tuple[int, int]  # (source, index)


@dataclasses.dataclass(frozen=True)
class _Contrast:
  """One comparison that raters decided.

  Attributes:
    place: of its pair.
    order: the chosen reply's place among the two, then the other's.
    forced: tokens that open each reply in that order, which no policy speaks.
  """

  place: Place
  order: tuple[int, int]
  forced: tuple[int, int]


class Choices:
  """The decided comparisons of a corpus of preferences, by (source, index).

  The mean of all raters' `overall` says which reply is chosen; those in which it is 0
  are left out, stand in `skipped` and in the log. A reply is the turn as it is
  generated: its thought, or the empty one, is part of it.

  Args:
    pairs: of the one dimension "overall", not packed.
    packs: of the rows that `batch` is given, see data/packing.py; 0 where replies are
      not packed.
    row_counts: numbers of rows that a pack may have, see packing.room.

  Raises:
    ValueError: a set without a decided comparison.
  """

  def __init__(
    self,
    pairs: Pairs,
    tokenizer: Tokenizer,
    packs: int = 0,
    row_counts: Sequence[int] = (),
  ):
    if pairs.dimensions != (OVERALL,):
      raise ValueError(f"choices are made by {OVERALL!r}, not by {pairs.dimensions}")
    self._pairs, self._tokenizer = pairs, tokenizer
    self._packs, self._row_counts = packs, tuple(row_counts)
    self.names, self.weights, self.limits = pairs.names, pairs.weights, pairs.limits
    self.skipped: list[Skipped] = [*pairs.skipped]
    self._found: list[list[_Contrast]] = [[] for _ in pairs.names]
    for source, count in enumerate(pairs.counts):
      for index in range(count):
        self._sort((source, index))
    ties = len(self.skipped) - len(pairs.skipped)
    if ties:
      logging.warning(
        "%d of %d comparisons are ties, left out", ties, sum(pairs.counts)
      )
    empty = {n for n, c in zip(self.names, self.counts, strict=True) if not c}
    if empty:
      raise ValueError(f"no comparison of {empty} is decided: all are ties")

  @property
  def counts(self) -> tuple[int, ...]:
    """Decided comparisons of each set."""
    return tuple(map(len, self._found))

  def entry(self, source: int, index: int) -> Pair:
    return self._pairs.entry(*self._found[source][index].place)

  def fits(self, tokens: int, chunks: int) -> bool:
    """Never: a row of a batch holds one comparison."""
    del tokens, chunks
    return False

  def need(self, places: Iterable[Place], share: int) -> packing.Need:
    """What a batch of these comparisons needs, `share` of them to a pack."""
    found = [self._found[source][index] for source, index in places]
    pairs = [self._pairs.entry(*one.place) for one in found]
    lengths_BQ = [
      [len(pair.replies[k].thought_T) for k in one.order]
      for one, pair in zip(found, pairs, strict=True)
    ]
    return pairs_lib.needed(pairs, lengths_BQ, share, self.limits.row_tokens)

  def batch(
    self,
    rows: Sequence[Sequence[Place]],
    first_number: int,
    need: packing.Need | None = None,
  ) -> Contrasts:
    """Rows of at most one (source, index), numbered from `first_number`.

    Args:
      need: of a batch of which these rows are a part; None is theirs alone.
    """
    chosen = [[self._found[source][index] for source, index in row] for row in rows]
    pairs = [[one.place for one in row] for row in chosen]
    views = self._pairs.batch(pairs, first_number).replies
    order_B2 = np.tile(np.asarray([[0, 1]]), (len(rows), 1))
    forced_B2 = np.zeros((len(rows), 2), np.int32)
    for b, row in enumerate(chosen):
      for one in row:
        order_B2[b], forced_B2[b] = one.order, one.forced
    branch_B2 = 2 * order_B2 + 1  # of the views: the turn with its thought
    token_BQT = np.take_along_axis(views.token_BQT, branch_B2[..., None], axis=1)
    count_BQ = np.take_along_axis(views.count_BQ, branch_B2, axis=1)
    place_11T = np.arange(token_BQT.shape[2])[None, None]
    spoken_BQT = (place_11T >= forced_B2[..., None]) & (place_11T < count_BQ[..., None])
    replies = dataclasses.replace(views, token_BQT=token_BQT, count_BQ=count_BQ)
    if not self._packs:
      return Contrasts(replies, spoken_BQT)
    row_tokens, pad_id = self.limits.row_tokens, self._tokenizer.special.pad
    known = {"row_counts": self._row_counts, "need": need}
    return Contrasts(
      packing.packed(replies, self._packs, row_tokens, pad_id, **known),
      spoken_BQT.reshape(self._packs, -1, *spoken_BQT.shape[1:]),
    )

  def _sort(self, place: Place) -> None:
    """Into the decided comparisons or the skipped ones."""
    pair = self._pairs.entry(*place)
    mean = float(np.mean(pair.label_JC))
    if mean == 0:
      self.skipped.append(Skipped(pair.id, "a tie: the raters' choices add up to 0"))
      return
    order = (1, 0) if mean > 0 else (0, 1)  # above 0 the second reply is better
    candidates = self._pairs.rows(*place)[0].candidates
    forced = tuple(
      replies_lib.forced(candidates[k].text, candidates[k].think, self._tokenizer)
      for k in order
    )
    self._found[place[0]].append(_Contrast(place, order, forced))
