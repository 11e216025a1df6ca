"""Bytes between memory and places in local files, past the page cache where possible.

Model files are read and written once. Through the page cache every byte costs a copy
and a fresh page, which together take longer than the disk. O_DIRECT avoids both, but
memory and places in the file must lie alike within a page: `Scratch` sees to it.
"""

import contextlib
import dataclasses
import errno
import math
import mmap
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from stepaudio_jax.core import files

# Of memory and of the page cache; no disk's blocks are larger than 4096 bytes.
_PAGE = max(4096, mmap.PAGESIZE)
# Less is not worth a request of its own.
_LEAST = 1 << 20
# Of a part.
SOME_BYTES = 32 << 20
# Of what is begun first.
LARGE_BYTES = 256 << 20
# Of one request, in whole pages: Linux ends a larger one within a page of 64 KiB.
_MOST = 1 << 30
# What a file system answers that cannot do without its cache.
_NOT_SO = (errno.EINVAL, errno.EOPNOTSUPP)
_SHORT = "ended early; was it changed while it was read?"
_DIRECT = getattr(os, "O_DIRECT", 0)


class Scratch(threading.local):
  """Memory that one array after another lies in; a new page costs as much as a copy.

  Every thread has its own.
  """

  def __init__(self):
    self._bytes = np.empty(0, np.uint8)

  def array(
    self, shape: tuple[int, ...], dtype: np.dtype, start: int = 0
  ) -> np.ndarray:
    """Of any content; it overwrites the array before.

    Args:
      start: the byte of a file that it is to be read from or written to.
    """
    first, needed = start % _PAGE, math.prod(shape) * dtype.itemsize
    pages = self._pages(first + needed)
    return pages[first : first + needed].view(dtype).reshape(shape)

  def around(self, start: int, nbytes: int) -> memoryview:
    """The whole pages with the bytes of the last `array` from that start."""
    return memoryview(self._pages(start % _PAGE + nbytes))

  def _pages(self, nbytes: int) -> np.ndarray:
    needed = -(-nbytes // _PAGE) * _PAGE
    if len(self._bytes) < needed + _PAGE:
      self._bytes = np.empty(needed + _PAGE, np.uint8)
    first = -self._bytes.ctypes.data % _PAGE
    return self._bytes[first : first + needed]


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array in a file, its elements in C order from byte `start` on."""

  file: os.PathLike
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int = 0

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize

  def layer(self, index: int | None) -> "Stored":
    """Element `index` of the first axis; the whole for None."""
    if index is None:
      return self
    start = self.start + index * (self.nbytes // self.shape[0])
    return dataclasses.replace(self, shape=self.shape[1:], start=start)

  def parts(self) -> Iterator[tuple[int, "Stored"]]:
    """(first element, elements from there on): all of it, `SOME_BYTES` at a time."""
    count, some = math.prod(self.shape), SOME_BYTES // self.dtype.itemsize
    for first in range(0, count, some):
      start = self.start + first * self.dtype.itemsize
      shape = (min(some, count - first),)
      yield first, dataclasses.replace(self, shape=shape, start=start)

  def read(self, scratch: Scratch | None = None) -> np.ndarray:
    """The array, in memory of its own or in the scratch.

    Raises:
      ValueError: the file ends early.
    """
    scratch = scratch or Scratch()
    if files.is_remote(self.file):
      out = scratch.array(self.shape, self.dtype)
      _fetch(self.file, self.start, _bytes(out))
      return out
    if self.nbytes >= _LEAST and not self.start % self.dtype.itemsize:
      out = scratch.array(self.shape, self.dtype, self.start)
      pages, first = scratch.around(self.start, self.nbytes), self.start % _PAGE
      if _filled(self.file, self.start - first, pages, first + self.nbytes, _DIRECT):
        return out
    out = scratch.array(self.shape, self.dtype)
    _filled(self.file, self.start, _bytes(out), self.nbytes, 0)
    return out


def _bytes(array: np.ndarray) -> memoryview:
  return memoryview(array.reshape(-1).view(np.uint8))


def _fetch(path: epath.Path, start: int, to: memoryview) -> None:
  with path.open("rb") as file:
    file.seek(start)
    done = 0
    while done < len(to):
      count = file.readinto(to[done:])
      if not count:
        raise ValueError(f"{path} {_SHORT}")
      done += count


def _filled(
  path: pathlib.Path, start: int, to: memoryview, needed: int, flags: int
) -> bool:
  """Whether the file can be read with these flags; then `to` is filled."""
  done = 0
  try:
    with _opened(path, os.O_RDONLY | flags) as descriptor:
      while done < needed:
        count = os.preadv(descriptor, [to[done : done + _MOST]], start + done)
        done += count
        # Past the cache, all but the file's end comes in whole pages.
        if done < needed and (not count or (flags and count % _PAGE)):
          raise ValueError(f"{path} {_SHORT}")
  except OSError as error:
    if flags and error.errno in _NOT_SO:
      return False
    raise
  return True


@contextlib.contextmanager
def _opened(path: pathlib.Path, flags: int) -> Iterator[int]:
  descriptor = os.open(path, flags, 0o666)
  try:
    yield descriptor
  finally:
    os.close(descriptor)


class Target:
  """A file that is written to, piece by piece in any order, by any thread."""

  def __init__(self, descriptor: int, direct: int | None):
    self._descriptor, self._direct = descriptor, direct

  def resize(self, length: int) -> None:
    os.ftruncate(self._descriptor, length)

  def write(self, array: np.ndarray, start: int) -> None:
    """Writes a contiguous array; slower if it is no `Scratch.array` of that start."""
    bytes_, first = _bytes(array), -start % _PAGE
    last = first + max(0, len(bytes_) - first) // _PAGE * _PAGE
    if self._direct is not None and last - first >= _LEAST:
      try:
        _write(self._direct, bytes_[first:last], start + first)
      except OSError as error:
        if error.errno not in _NOT_SO:
          raise
      else:
        # Pages of which another piece may have the rest.
        _write(self._descriptor, bytes_[:first], start)
        _write(self._descriptor, bytes_[last:], start + last)
        return
    _write(self._descriptor, bytes_, start)


def _write(descriptor: int, bytes_: memoryview, start: int) -> None:
  done = 0
  while done < len(bytes_):
    done += os.pwrite(descriptor, bytes_[done:], start + done)


@contextlib.contextmanager
def writable(paths: Iterable[pathlib.Path]) -> Iterator[dict[pathlib.Path, Target]]:
  """Path → a file, new or not; all is on the disk once the block ends well."""
  with contextlib.ExitStack() as stack:
    descriptors, targets = [], {}
    for path in paths:
      flags = os.O_WRONLY | os.O_CREAT
      descriptors.append(stack.enter_context(_opened(path, flags)))
      direct = None
      if _DIRECT:
        with contextlib.suppress(OSError):  # not every file system can
          direct = stack.enter_context(_opened(path, flags | _DIRECT))
      targets[path] = Target(descriptors[-1], direct)
    yield targets
    for descriptor in descriptors:
      os.fsync(descriptor)
