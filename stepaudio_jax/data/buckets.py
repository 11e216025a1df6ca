"""Declared shapes of a batch, and an order in which batches fill them well."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from stepaudio_jax.data.collate import Limits

WINDOW_BATCHES = 16  # among which prompts are exchanged


@dataclasses.dataclass(frozen=True)
class Buckets:
  """A batch takes the smallest shape that holds its largest example.

  Attributes:
    tokens, clip_frames: possible lengths, ascending; the last are the most there is.
  """

  tokens: tuple[int, ...]
  clip_frames: tuple[int, ...]

  @property
  def count(self) -> int:
    """Shapes that there can be, so many programs."""
    return len(self.tokens) * len(self.clip_frames)

  def places(self, tokens: int, clip_frames: int) -> tuple[int, int]:
    """Which of each are the smallest that hold so much."""
    return _place(self.tokens, tokens), _place(self.clip_frames, clip_frames)

  def limits(self, whole: Limits, sizes: Iterable[tuple[int, int]]) -> Limits:
    """The shape of a batch whose examples have so many (tokens, clip frames)."""
    # Each of them may be the largest in one way alone.
    tokens, frames = (max(each) for each in zip((0, 0), *sizes, strict=True))
    text, clip = self.places(tokens, frames)
    return dataclasses.replace(
      whole, max_tokens=self.tokens[text], max_clip_frames=self.clip_frames[clip]
    )


def _place(lengths: Sequence[int], wanted: int) -> int:
  return next(k for k, length in enumerate(lengths) if length >= wanted)


def smallest(lengths: Sequence[int], wanted: int, most: int) -> int:
  """The first of ascending lengths that is at least `wanted`; `most` if none is."""
  return next((length for length in lengths if length >= wanted), most)


class Alike(Sequence):
  """A stream in another order: a batch's examples are of one bucket where that can be.

  The stream is cut into windows of so many batches. Those of one bucket touch within a
  window, in the stream's order; then its batches are shuffled, or short ones would
  always come first. An item depends on its position alone, so a saved position means
  the same after a restart.

  Args:
    bucket: of an item; anything that sorts.
  """

  def __init__(
    self,
    stream: Sequence,
    bucket: Callable[[object], object],
    *,
    batch_size: int,
    batches: int,
    seed: int,
  ):
    self._stream, self._bucket, self._seed = stream, bucket, seed
    self._batch_size, self._window = batch_size, batch_size * max(batches, 1)
    self._items = functools.lru_cache(maxsize=2)(self._new_items)

  def __len__(self) -> int:
    return len(self._stream)

  def __getitem__(self, position: int) -> object:
    window, place = divmod(position, self._window)
    return self._items(window)[place]

  def _new_items(self, window: int) -> list:
    start = window * self._window
    stop = min(start + self._window, len(self._stream))
    items = sorted((self._stream[k] for k in range(start, stop)), key=self._bucket)
    cut = [
      items[k : k + self._batch_size] for k in range(0, len(items), self._batch_size)
    ]
    text = f"{self._seed}/alike/{window}"
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    whole = len(items) // self._batch_size
    # RandomState's numbers are the same in every version of numpy.
    order = np.random.RandomState(int.from_bytes(digest, "big")).permutation(whole)
    return [item for k in (*order, *range(whole, len(cut))) for item in cut[k]]
