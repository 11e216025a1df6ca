"""The CRC-32 of pieces in any order, against zlib's of the whole."""

import random
import zlib

import numpy as np
import pytest

from stepaudio_jax.core import crc


@pytest.mark.parametrize("cuts", [(), (1,), (0, 3, 900), (5, 6, 7, 512, 999)])
def test_pieces_in_any_order_are_the_whole(cuts):
  whole = np.random.default_rng(len(cuts)).integers(0, 256, 1000, np.uint8).tobytes()
  spans = list(zip((0, *cuts), (*cuts, len(whole)), strict=True))
  random.Random(3).shuffle(spans)
  made = crc.Crc(len(whole))
  for start, stop in spans:
    made.add(whole[start:stop], start)
  assert made.value == zlib.crc32(whole)


def test_arrays_of_any_dtype_and_many_bytes_behind():
  array = np.arange(600, dtype=np.float32).reshape(20, 30)
  made = crc.Crc(array.nbytes + (1 << 22))
  made.add(array, 0)
  made.add(bytes(1 << 22), array.nbytes)
  assert made.value == zlib.crc32(array.tobytes() + bytes(1 << 22))


def test_what_has_not_come_or_came_twice_is_an_error():
  made = crc.Crc(10)
  made.add(b"abcd", 0)
  with pytest.raises(ValueError, match="4 bytes came of 10"):
    _ = made.value
  made.add(b"abcd", 0)
  made.add(b"abcd", 0)
  with pytest.raises(ValueError, match="12 bytes came of 10"):
    _ = made.value
  with pytest.raises(ValueError, match="4 bytes at 8 of 10"):
    made.add(b"abcd", 8)
