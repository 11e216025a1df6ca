"""The CRC-32 of a file that is read or written in pieces, in any order, by any thread.

A CRC is a remainder of polynomials over GF(2): with n bytes of 0 behind it, a piece's
is multiplied by x^8n, and that of pieces side by side is the sum of theirs, an XOR. So
it costs one pass of zlib over every piece, and next to nothing to put them together.
"""

import functools
import threading
import zlib

import numpy as np

_POLYNOMIAL = 0xEDB88320  # CRC-32's, the highest power in the lowest bit
_ONE = 1 << 31  # x⁰


class Crc:
  """Of a file of `length` bytes whose pieces come one by one."""

  def __init__(self, length: int):
    self._length, self._value, self._seen = length, 0, 0
    self._lock = threading.Lock()

  def add(self, piece: bytes | np.ndarray, start: int) -> None:
    """Takes contiguous bytes that are at `start`, each once."""
    if isinstance(piece, np.ndarray):
      piece = memoryview(piece.reshape(-1).view(np.uint8))
    after = self._length - start - len(piece)
    if start < 0 or after < 0:
      raise ValueError(f"{len(piece)} bytes at {start} of {self._length}")
    value = _followed(zlib.crc32(piece), after)
    with self._lock:
      self._value ^= value
      self._seen += len(piece)

  @property
  def value(self) -> int:
    """Raises ValueError: some bytes have not come, or came twice."""
    if self._seen != self._length:
      raise ValueError(f"{self._seen} bytes came of {self._length}")
    return self._value


def _followed(value: int, zeros: int) -> int:
  """The part of a CRC that bytes have which so many others follow."""
  return _times(value, _shift(zeros))


@functools.lru_cache(maxsize=4096)
def _shift(nbytes: int) -> int:
  """x^8n modulo the polynomial, by squaring."""
  out, power = _ONE, _ONE >> 8
  while nbytes:
    if nbytes & 1:
      out = _times(out, power)
    power, nbytes = _times(power, power), nbytes >> 1
  return out


def _times(a: int, b: int) -> int:
  """The product of two polynomials, modulo the polynomial."""
  out = 0
  while a:
    if a & _ONE:
      out ^= b
    a = a << 1 & 0xFFFFFFFF
    b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
  return out
