"""Mixture → plan of rows → batches, as a grain iterator that resumes exactly.

A plan needs only the sizes of examples, so every process makes the same plan of the
whole global batch and loads its own slice of the rows: the global batch is the same for
any number of processes, and the position in the mixture is all there is to save.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from stepaudio_jax.core.types import Batch, SpeechBatch

Place = tuple[int, int]  # (source, index)
Fed = tuple[Batch | SpeechBatch, list[str]]


class Entry(Protocol):
  """Size of an example; see examples.Entry."""

  id: str
  tokens: int
  chunks: int


class Feed(Protocol):
  """What batches are made of: examples.Examples, or hearing.Clips."""

  names: tuple[str, ...]
  weights: tuple[float, ...]
  counts: tuple[int, ...]
  limits: Any

  def entry(self, source: int, index: int) -> Entry: ...

  def fits(self, tokens: int, chunks: int) -> bool: ...

  def batch(self, rows: Sequence[Sequence[Place]], first_number: int) -> Any: ...


def mixture(feed: Feed, seed: int) -> Sequence[Place]:
  """Endless (source, index): each set shuffled anew every epoch, mixed by weight."""
  sets = [
    grain.MapDataset.source(_Shuffled(source, count, f"{seed}/{name}"))
    for source, (name, count) in enumerate(zip(feed.names, feed.counts, strict=True))
  ]
  return grain.MapDataset.mix(sets, feed.weights)


def once(feed: Feed) -> Sequence[Place]:
  """Every example of every set, in their order: for evaluation."""
  counts = enumerate(feed.counts)
  return [(source, index) for source, count in counts for index in range(count)]


def batches(
  feed: Feed,
  stream: Sequence[Place],
  *,
  batch_size: int,
  pack: bool = False,
  process_index: int = 0,
  process_count: int = 1,
  prefetch: int = 2,
  shape: Callable[[Iterable[Place]], Any] | None = None,
) -> grain.DatasetIterator:
  """An iterator over (batch of numpy, ids of the whole global batch).

  `get_state()` is a small JSON object; `set_state` of a new iterator continues with
  the very next batch. `close()` ends the thread that works ahead.

  Args:
    stream: `mixture(feed, seed)` or `once(feed)`. After a last batch, whose missing
      rows are padding, the iterator ends.
    batch_size: rows of the global batch.
    pack: lay further examples of the stream behind each other, as many as fit into
      the rows; otherwise an example a row.
    process_index, process_count: the slice of rows that is loaded here.
    prefetch: batches made ahead of time.
    shape: of a batch, from the examples of the whole global one, so that all processes
      find the same; None: all have the feed's.

  Raises:
    ValueError: the rows cannot be shared out evenly; in `set_state`, a state of other
      data, weights, seed or batch size.
  """
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      f"batch_size {batch_size} is no positive multiple of {process_count} processes"
    )
  share = batch_size // process_count
  rows = slice(process_index * share, (process_index + 1) * share)

  def load(plan: list[list[Place]]) -> Fed:
    before = sum(map(len, plan[: rows.start]))
    ids = [feed.entry(*place).id for place in itertools.chain(*plan)]
    if shape is None:
      return feed.batch(plan[rows], before), ids
    return feed.batch(plan[rows], before, shape(itertools.chain(*plan))), ids

  plans = _Plans(feed, stream, batch_size, pack).map(load)
  ahead = grain.experimental.ThreadPrefetchIterDataset(
    plans, prefetch_buffer_size=prefetch
  )
  return iter(ahead)


def rows_of(
  feed: Feed, stream: Sequence[Place], start: int, batch_size: int, pack: bool
) -> tuple[list[list[Place]], int]:
  """One batch's rows from `start` on, and where the next batch starts.

  With `pack` each example goes into the first row with room for it; the first that
  fits nowhere begins the next batch, so none is lost or seen twice.
  """
  rows: list[list[Place]] = [[] for _ in range(batch_size)]
  used = [(0, 0)] * batch_size
  for position in range(start, len(stream)):
    place = stream[position]
    entry = feed.entry(*place)
    for row, (tokens, chunks) in enumerate(used):
      total = (tokens + entry.tokens, chunks + entry.chunks)
      if not rows[row] or (pack and feed.fits(*total)):
        rows[row].append(place)
        used[row] = total
        break
    else:
      return rows, position
  return rows, len(stream)


class _Shuffled:
  """Endless places of one set, in a new order every epoch.

  grain's own shuffle takes milliseconds a draw where a set is small, and adds the epoch
  to the seed, so that sets with neighbouring seeds repeat each other's orders.
  """

  def __init__(self, source: int, count: int, seed: str):
    self._source, self._count, self._seed = source, count, seed
    self._order = functools.lru_cache(maxsize=2)(self._new_order)

  def __len__(self) -> int:
    return 1 << 60

  def __getitem__(self, position: int) -> Place:
    epoch, index = divmod(position, self._count)
    return self._source, int(self._order(epoch)[index])

  def _new_order(self, epoch: int) -> np.ndarray:
    text = f"{self._seed}/{epoch}"
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    # RandomState's numbers are the same in every version of numpy.
    return np.random.RandomState(int.from_bytes(digest, "big")).permutation(self._count)


class _Plans(grain.IterDataset):
  """Rows of places, batch after batch."""

  def __init__(self, feed: Feed, stream: Sequence[Place], batch_size: int, pack: bool):
    super().__init__()
    self._arguments = (feed, stream, batch_size, pack)

  def __iter__(self) -> "_PlansIterator":
    return _PlansIterator(*self._arguments)


class _PlansIterator(grain.DatasetIterator):
  def __init__(self, feed: Feed, stream: Sequence[Place], batch_size: int, pack: bool):
    super().__init__()
    self._feed, self._stream = feed, stream
    self._batch_size, self._pack = batch_size, pack
    self._data = _fingerprint(feed, stream, batch_size, pack)
    self._batch = self._position = 0

  def __next__(self) -> list[list[Place]]:
    if self._position >= len(self._stream):
      raise StopIteration
    rows, self._position = rows_of(
      self._feed, self._stream, self._position, self._batch_size, self._pack
    )
    self._batch += 1
    return rows

  def get_state(self) -> dict[str, Any]:
    return {"batch": self._batch, "position": self._position, "data": self._data}

  def set_state(self, state: dict[str, Any]) -> None:
    if state["data"] != self._data:
      raise ValueError(
        f"the saved position (batch {state['batch']}) is one in other data: since then "
        "examples, weights, seed, batch size or packing have changed"
      )
    self._batch, self._position = state["batch"], state["position"]


def _fingerprint(
  feed: Feed, stream: Sequence[Place], batch_size: int, pack: bool
) -> str:
  """Hash of all that decides which examples a batch holds."""
  digest = hashlib.blake2b(digest_size=8)
  head = [list(stream[i]) for i in range(min(len(stream), 256))]
  settings = [
    feed.names,
    feed.weights,
    feed.counts,
    batch_size,
    pack,
    head,
    repr(feed.limits),
  ]
  digest.update(json.dumps(settings).encode())
  for source, count in enumerate(feed.counts):
    for entry in (feed.entry(source, index) for index in range(count)):
      digest.update(f"{entry.id} {entry.tokens} {entry.chunks}\n".encode())
  return digest.hexdigest()
