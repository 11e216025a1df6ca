"""Adapters in plain weights, by hand."""

import ml_dtypes
import numpy as np
import pytest

from stepaudio_jax.core import low_rank


def test_each_layer_gets_its_own_product_by_hand():
  # One layer of 2 inputs and 2 outputs at rank 1: A = (1, 2), B = (3, 4), scale ½:
  # ½·[[3, 4], [6, 8]]; the other layer's A is 0.
  kernel = np.asarray([np.eye(2), np.ones((2, 2))], np.float32)
  a = np.asarray([[[1.0], [2.0]], [[0.0], [0.0]]], np.float32)
  b = np.asarray([[[3.0, 4.0]], [[5.0, 6.0]]], np.float32)
  found = low_rank.merged(kernel, a, b, np.float32(0.5))
  assert found.tolist() == [[[2.5, 2.0], [3.0, 5.0]], [[1.0, 1.0], [1.0, 1.0]]]


def test_several_axes_in_and_out_and_the_kernels_own_dtype():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(2, 3, 4, 5)).astype(ml_dtypes.bfloat16)
  a, b = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2, 5))
  found = low_rank.merged(kernel, a, b, np.asarray(2.0))
  expected = kernel.astype(np.float32) + 2 * np.einsum("zhir,zro->zhio", a, b)
  assert found.dtype == kernel.dtype
  np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-2, atol=1e-3)


def test_what_is_adapted_is_found_by_its_path():
  query = "layers/attn/query"
  paths = [f"decoder/{query}/kernel", f"adapters/{query}/a", f"adapters/{query}/b"]
  expected = {paths[0]: (paths[1], paths[2])}
  assert low_rank.pairs([*paths, low_rank.SCALE, "decoder/norm/scale"]) == expected
  assert low_rank.pairs(paths[:1]) == {}
  with pytest.raises(
    ValueError, match=r"attn/query/a has no decoder/layers/attn/query"
  ):
    low_rank.pairs(paths[1:])
