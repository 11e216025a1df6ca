"""Pairs of replies with what raters said of them, as batches for a reward model."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import logging

from stepaudio_jax.core import lengths, progress
from stepaudio_jax.core.types import Comparisons
from stepaudio_jax.data import collate, examples, packing
from stepaudio_jax.data import pairs as pairs_lib
from stepaudio_jax.data import replies as replies_lib
from stepaudio_jax.data.collate import Example
from stepaudio_jax.data.corpus import LISTED, Corpus
from stepaudio_jax.data.examples import Skipped
from stepaudio_jax.data.pairs import Pair, PairLimits
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.data.store import Store
from stepaudio_jax.models.mixture import NAME as MIXTURE
from stepaudio_jax.text import chat
from stepaudio_jax.text.tokenizer import Tokenizer

OVERALL = "overall"  # the dimension that is a rater's choice between the replies

Judged = tuple[int, Preference]  # (place in its set, row)
Place = tuple[int, int]  # (source, index)


class Pairs:
  """The comparisons of a corpus of preferences, by (source, index).

  Rows of a set with one task and the same two replies, in either order, are one
  comparison with several raters. All are rendered here, before training; those that
  do not fit are never truncated: they stand in `skipped` and in the log.

  Args:
    corpus: of schema.Preference.
    store: encoder frames of the corpus's clips; None for text alone.
    dimensions: C; "overall" is the choice between the replies, and so is "mixture",
      which is to predict it; any other name is one of the rows' `dims`.
    packs: of the rows that `batch` is given, see data/packing.py; 0 where replies are
      not packed.
    row_counts: numbers of rows that a pack may have, see packing.room.
    rater_room: numbers for so many raters; with 0 they are not told apart.

  Attributes:
    raters: who has which number, in the order of their first rows.

  Raises:
    ValueError: a dimension that no row has, a task with two contexts, more raters
      than there is room for, or a set without a comparison that fits.
  """

  def __init__(
    self,
    corpus: Corpus,
    store: Store | None,
    tokenizer: Tokenizer,
    limits: PairLimits,
    *,
    dimensions: Sequence[str],
    encoder_width: int,
    packs: int = 0,
    row_counts: Sequence[int] = (),
    rater_room: int = 0,
  ):
    self._packs, self._row_counts = packs, tuple(row_counts)
    self._corpus, self._store, self._tokenizer = corpus, store, tokenizer
    self.dimensions, self._width = tuple(dimensions), encoder_width
    self.names, self.weights = corpus.names, corpus.weights
    found = list(self._rendered())
    self.limits = pairs_lib.filled(limits, found)
    self.raters = _numbered(found, rater_room) if rater_room else {}
    self.skipped: list[Skipped] = []
    self._pairs: list[list[Pair]] = [[] for _ in corpus.names]
    for pair in found:
      problem = pairs_lib.problem(pair, self.limits)
      if problem:
        self.skipped.append(Skipped(pair.id, problem))
      else:
        self._pairs[pair.source].append(pair)
    examples.report_skipped(self.skipped, sum(self.counts))
    empty = {n for n, c in zip(self.names, self.counts, strict=True) if not c}
    if empty:
      raise ValueError(f"no comparison of {empty} fits: {self.skipped[:LISTED]}")

  @property
  def counts(self) -> tuple[int, ...]:
    """Comparisons of each set."""
    return tuple(map(len, self._pairs))

  def entry(self, source: int, index: int) -> Pair:
    return self._pairs[source][index]

  def fits(self, tokens: int, chunks: int) -> bool:
    """Never: a row of a batch holds one comparison."""
    del tokens, chunks
    return False

  def rows(self, source: int, index: int) -> list[Preference]:
    """The rows behind a comparison, a rater each."""
    places = self._pairs[source][index].places
    return [self._corpus.sample(source, place) for place in places]

  def need(self, places: Iterable[Place], share: int) -> packing.Need:
    """What a batch of these comparisons needs, `share` of them to a pack."""
    found = [self.entry(*place) for place in places]
    lengths_BQ = [
      [len(view) for reply in pair.replies for view in reply] for pair in found
    ]
    return pairs_lib.needed(found, lengths_BQ, share, self.limits.row_tokens)

  def batch(
    self,
    rows: Sequence[Sequence[Place]],
    first_number: int,
    need: packing.Need | None = None,
  ) -> Comparisons:
    """Rows of at most one (source, index), numbered from `first_number`.

    Args:
      need: of a batch of which these rows are a part; None is theirs alone.
    """
    chosen = [[self.entry(*place) for place in row] for row in rows]
    pad_id = self._tokenizer.special.pad
    prompts = collate.collate(
      [[self._heard(pair) for pair in row] for row in chosen],
      self.limits.prompts,
      pad_id=pad_id,
      encoder_width=self._width,
      first_number=first_number,
    )
    replies = replies_lib.laid(
      prompts,
      [[reply for pair in row for reply in pair.replies] for row in chosen],
      replies=2,
      max_reply_tokens=self.limits.max_reply_tokens,
      pad_id=pad_id,
    )
    shape = (self.limits.max_raters, len(self.dimensions))
    label_BJC = np.full((len(rows), *shape), np.nan, np.float32)
    score_B2JC = np.full((len(rows), 2, *shape), np.nan, np.float32)
    for b, row in enumerate(chosen):
      for pair in row:
        label_BJC[b, : len(pair.places)] = pair.label_JC
        score_B2JC[b, :, : len(pair.places)] = pair.score_2JC
    labels = (label_BJC, score_B2JC, *self._who(chosen))
    if not self._packs:
      return Comparisons(replies, *labels)
    apart = (self._packs, len(rows) // self._packs)
    known = {"row_counts": self._row_counts, "need": need}
    return Comparisons(
      packing.packed(replies, self._packs, self.limits.row_tokens, pad_id, **known),
      *(x if x is None else x.reshape(*apart, *x.shape[1:]) for x in labels),
    )

  def _who(
    self, chosen: Sequence[Sequence[Pair]]
  ) -> tuple[np.ndarray | None, np.ndarray | None]:
    """rater_BJ and turned_BJ."""
    if not self.raters:
      return None, None
    shape = (len(chosen), self.limits.max_raters)
    rater_BJ, turned_BJ = np.full(shape, -1, np.int32), np.zeros(shape, np.bool_)
    for b, row in enumerate(chosen):
      for pair in row:
        count = len(pair.places)
        rater_BJ[b, :count] = [self.raters[name] for name in pair.raters]
        turned_BJ[b, :count] = pair.turned_J
    return rater_BJ, turned_BJ

  def _heard(self, pair: Pair) -> Example:
    chunks = [chunk.rows for key in pair.keys for chunk in self._store.read(key)]
    return dataclasses.replace(pair.context, frames=tuple(chunks))

  def _rendered(self) -> Iterator[Pair]:
    """Every comparison, in the order of its first rows."""
    groups: dict[tuple, list[Judged]] = {}
    total = len(self._corpus)
    for source, place in progress.bar(
      self._corpus.places(), "rendering", "row", total=total
    ):
      row = self._corpus.sample(source, place)
      key = (source, row.task_id, tuple(sorted(_said(row))))
      groups.setdefault(key, []).append((place, row))
    _check_dimensions(self.dimensions, groups.values())
    for (source, *_), group in groups.items():
      yield self._pair(source, group)

  def _pair(self, source: int, group: Sequence[Judged]) -> Pair:
    first = group[0][1]
    keys = tuple(self._corpus.key(audio) for audio in first.audio)
    if keys and self._store is None:
      raise ValueError(f"comparison {first.id!r} has audio, but no store was given")
    counts = [[rows for rows, _ in self._store.shape(key)] for key in keys]
    shown = chat.render(
      first.context,
      tokenizer=self._tokenizer,
      clip_tokens=[[lengths.adaptor_tokens(n) for n in clip] for clip in counts],
      example_id=first.id,
      target=None,
    )
    rows = [row for _, row in group]
    label_JC, score_2JC = judgements(rows, self.dimensions)
    return Pair(
      id=first.id,
      source=source,
      places=tuple(place for place, _ in group),
      context=Example(first.id, source, shown.token_T, shown.loss_T, shown.spans),
      keys=keys,
      clip_frames=tuple(count for clip in counts for count in clip),
      replies=tuple(
        replies_lib.views(one.text, one.think, self._tokenizer, first.id)
        for one in first.candidates
      ),
      label_JC=label_JC,
      score_2JC=score_2JC,
      raters=tuple(row.rater for row in rows),
      turned_J=np.asarray([_said(row) != _said(first) for row in rows]),
    )


def judgements(
  rows: Sequence[Preference], dimensions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """label_JC and score_2JC of one comparison, NaN where a rater gave none.

  Rows that name the replies in the other order are turned to that of the first row.

  Raises:
    ValueError: the contexts differ.
  """
  first = rows[0]
  label_JC = np.full((len(rows), len(dimensions)), np.nan, np.float32)
  score_2JC = np.full((2, *label_JC.shape), np.nan, np.float32)
  for j, row in enumerate(rows):
    if row.context != first.context:
      raise ValueError(
        f"rows {first.id!r} and {row.id!r} are of one task {first.task_id!r}, but "
        "their contexts differ"
      )
    same = _said(row) == _said(first)
    labels = {**row.dims, OVERALL: row.overall, MIXTURE: row.overall}
    candidates = row.candidates if same else row.candidates[::-1]
    for c, name in enumerate(dimensions):
      if labels.get(name) is not None:
        label_JC[j, c] = labels[name] if same else -labels[name]
      for i, candidate in enumerate(candidates):
        scores = row.scores.get(candidate.cid, {})
        if name in scores:
          score_2JC[i, j, c] = scores[name]
  return label_JC, score_2JC


def _said(row: Preference) -> tuple[tuple[str, str], ...]:
  """What tells the replies apart, in their order."""
  return tuple((one.text, one.think or "") for one in row.candidates)


def _check_dimensions(dimensions: Sequence[str], groups: Sequence) -> None:
  known = {name for group in groups for _, row in group for name in row.dims}
  known.add(OVERALL)
  unknown = [name for name in dimensions if name not in known | {MIXTURE}]
  if unknown or not dimensions or len(set(dimensions)) < len(dimensions):
    raise ValueError(
      f"dimensions {list(dimensions)}: {unknown} have no label; the choices, each at "
      f"most once, are {sorted(known)}"
    )
  if known - set(dimensions):
    logging.info("dimensions that are not learned: %s", sorted(known - set(dimensions)))


def _numbered(pairs: Sequence[Pair], room: int) -> dict[str, int]:
  names = list(dict.fromkeys(name for pair in pairs for name in pair.raters))
  if len(names) > room:
    told = f"{names[:8]}" + " …" * (len(names) > 8)
    raise ValueError(f"raters.room={room}, but there are {len(names)}: {told}")
  return {name: number for number, name in enumerate(names)}
