"""Sums under a mask. Means are taken once, at the end, by whoever displays them."""

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Mean


def mean(value: Array, mask: Array) -> Mean:
  """Sum of `value` where `mask`, with the count; NaN outside the mask is ignored."""
  kept = jnp.where(mask, value, jnp.zeros((), value.dtype))
  return Mean(kept.sum(dtype=jnp.float32), mask.sum(dtype=jnp.float32))


def ratio(mean_: Mean) -> Array:
  """total / count, NaN where nothing was counted (never a silent 0)."""
  empty = mean_.count == 0
  return jnp.where(empty, jnp.nan, mean_.total / jnp.where(empty, 1.0, mean_.count))
