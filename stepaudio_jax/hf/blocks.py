"""Copies between memory layouts, as fast as one core reads memory.

Where rows become columns, numpy's own loop misses the cache at every element. By blocks
that are first copied to where no two rows share a place in the cache, it is five times
as fast.
"""

import math
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from stepaudio_jax.core import disk

# Of a block in bytes, along the target's nearest neighbours and along the source's.
_FAST, _SLOW = 512, 2048
_GAP = 64
_SOME = 2**18
# All bits of the exponent set: infinite or no number.
_EXPONENT = {
  np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
  np.dtype(np.float16): (np.uint16, 0x7C00),
  np.dtype(np.float32): (np.uint32, 0x7F800000),
}


def copy(to: np.ndarray, source: np.ndarray) -> None:
  """`to[...] = source`, cast to the dtype of `to`; any two layouts of one shape."""
  assert to.shape == source.shape, (to.shape, source.shape)
  if source.dtype != to.dtype:
    source = source.astype(to.dtype)
  # bfloat16 is a dtype of its own to numpy, and copied element by element.
  unsigned = np.dtype(f"u{to.dtype.itemsize}")
  _copy(to.view(unsigned), source.view(unsigned))


def pieces(
  array: np.ndarray, dtype: np.dtype, scratch: disk.Scratch, start: int
) -> Iterator[tuple[int, np.ndarray]]:
  """(place in a file, contiguous array of that dtype): an array, cut up.

  Each lies in the scratch, and so only until the next is asked for.

  Args:
    start: the place of the first.
  """
  width = math.prod(array.shape[1:]) * dtype.itemsize
  rows = max(1, disk.SOME_BYTES // max(1, width))
  for first in range(0, len(array), rows):
    some = array[first : first + rows]
    place = start + first * width
    out = scratch.array(some.shape, dtype, place)
    copy(out, some)
    yield place, out


def _copy(to: np.ndarray, source: np.ndarray) -> None:
  to, source = _merged(to, source)
  fast, slow = (
    min(range(x.ndim), key=lambda axis: x.strides[axis], default=0)
    for x in (to, source)
  )
  if fast == slow:
    to[...] = source
    return
  others = [axis for axis in range(to.ndim) if axis not in (fast, slow)]
  if others:
    for i in range(to.shape[others[0]]):
      index = (slice(None),) * others[0] + (i,)
      _copy(to[index], source[index])
    return
  _turn(*(np.moveaxis(x, fast, 1) for x in (to, source)))


def _turn(to: np.ndarray, source: np.ndarray) -> None:
  """`to[...] = source` of two axes, the last one next to itself in `to` alone."""
  high, wide = _SLOW // to.itemsize, _FAST // to.itemsize
  cache = np.empty((wide, high + _GAP // to.itemsize), to.dtype)
  for i in range(0, to.shape[0], high):
    for j in range(0, to.shape[1], wide):
      some = source[i : i + high, j : j + wide]
      block = cache[: some.shape[1], : some.shape[0]]
      block[...] = some.T
      to[i : i + high, j : j + wide] = block.T


def _merged(to: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The same memory with fewer axes, where neighbours lie as one in both."""
  for axis in range(to.ndim - 1):
    length = to.shape[axis + 1]
    if all(x.strides[axis] == x.strides[axis + 1] * length for x in (to, source)):
      shape = (*to.shape[:axis], to.shape[axis] * length, *to.shape[axis + 2 :])
      return _merged(to.reshape(shape), source.reshape(shape))
  return to, source


def not_finite(array: np.ndarray) -> int:
  """How many elements of a contiguous array are infinite or no number."""
  unsigned, exponent = _EXPONENT[array.dtype]
  bits = array.reshape(-1).view(unsigned)
  mask = unsigned(exponent)
  parts = (bits[i : i + _SOME] for i in range(0, bits.size, _SOME))
  return sum(int(np.count_nonzero((part & mask) == mask)) for part in parts)
