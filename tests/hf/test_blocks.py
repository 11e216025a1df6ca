"""Copies by blocks against numpy's own."""

import ml_dtypes
import numpy as np
import pytest

from stepaudio_jax.hf import blocks

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
@pytest.mark.parametrize(
  ("shape", "order"),
  [
    ((5,), (0,)),
    ((), ()),
    ((2050, 33), (1, 0)),  # beyond one block on both sides
    ((33, 2050), (1, 0)),
    ((70, 4, 30), (1, 2, 0)),  # heads and their width lie as one
    ((70, 4, 30), (2, 1, 0)),
    ((3, 20, 17), (0, 2, 1)),
    ((1, 20, 1), (2, 1, 0)),
    ((4, 0), (1, 0)),
  ],
)
def test_any_layout(shape, order, dtype):
  rng = np.random.default_rng(0)
  source = rng.normal(size=shape).astype(dtype).transpose(order)
  to = np.zeros(source.shape, dtype)
  blocks.copy(to, source)
  np.testing.assert_array_equal(to, source)
  inverse = np.zeros(shape, dtype).transpose(order)
  blocks.copy(inverse, to)
  np.testing.assert_array_equal(inverse, source)


def test_a_part_of_a_leaf_is_written_and_nothing_beside_it():
  to = np.zeros((3, 6, 8), np.float32)
  blocks.copy(to[1, :, 2:6], np.arange(24, dtype=np.float32).reshape(4, 6).T)
  assert to[1, 5, 3] == 1 * 6 + 5
  assert np.count_nonzero(to) == 23  # the first is 0
  assert not to[0].any()
  assert not to[1, :, :2].any()


def test_casts_round_to_nearest():
  to = np.zeros(2, BF16)
  blocks.copy(to, np.asarray([1.0 + 3 / 512, 3.14], np.float32))
  # bfloat16 has 7 bits behind the point: steps of 1/128 from 1 on, of 1/64 from 2 on.
  assert to.astype(np.float32).tolist() == [1.0 + 1 / 128, 201 / 64]


@pytest.mark.parametrize("dtype", [BF16, np.dtype("float16"), np.dtype("float32")])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_every_number_that_is_not_finite_is_seen(dtype, bad):
  array = np.ones((3, 2**17), dtype)
  array[1, 0] = ml_dtypes.finfo(dtype).max
  assert blocks.not_finite(array) == 0
  array[2, 2**17 - 1] = array[0, 5] = bad
  assert blocks.not_finite(array) == 2
