"""Bytes between memory and places in local files."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator

import numpy as np


class Scratch(threading.local):
  """Memory that one array after another lies in; a new page costs as much as a copy.

  Every thread has its own.
  """

  def __init__(self):
    self._bytes = np.empty(0, np.uint8)

  def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Of any content; it overwrites the array before."""
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(self._bytes) < needed:
      self._bytes = np.empty(needed, np.uint8)
    return self._bytes[:needed].view(dtype).reshape(shape)


@contextlib.contextmanager
def writable(paths: Iterable[pathlib.Path]) -> Iterator[dict[pathlib.Path, int]]:
  """Path → descriptor of a file, new or not; on the disk once the block ends well."""
  with contextlib.ExitStack() as stack:
    found = {}
    for path in paths:
      found[path] = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
      stack.callback(os.close, found[path])
    yield found
    for descriptor in found.values():
      os.fsync(descriptor)


def write(descriptor: int, array: np.ndarray, start: int) -> None:
  """Writes a contiguous array from byte `start` on; the disk begins at once."""
  bytes_, done = memoryview(array.reshape(-1).view(np.uint8)), 0
  while done < len(bytes_):
    done += os.pwrite(descriptor, bytes_[done:], start + done)
  if hasattr(os, "posix_fadvise"):
    # Else the system collects gigabytes before it starts to write them.
    os.posix_fadvise(descriptor, start, len(bytes_), os.POSIX_FADV_DONTNEED)


def read(path: pathlib.Path, out: np.ndarray, start: int) -> None:
  """Fills a contiguous array from byte `start` on.

  Raises:
    ValueError: the file ends early.
  """
  bytes_, done = memoryview(out.reshape(-1).view(np.uint8)), 0
  descriptor = os.open(path, os.O_RDONLY)
  try:
    if hasattr(os, "posix_fadvise"):
      # Twice the speed from a cold disk: the system reads further ahead.
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while done < len(bytes_):
      count = os.preadv(descriptor, [bytes_[done:]], start + done)
      if not count:
        raise ValueError(f"{path} ended early; was it changed while it was read?")
      done += count
  finally:
    os.close(descriptor)
