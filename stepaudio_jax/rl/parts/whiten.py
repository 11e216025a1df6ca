"""Whitening over whatever the loss averages over."""

import jax.numpy as jnp

from stepaudio_jax.core.types import Array

_FLOOR = 1e-6


def whitened(x: Array, mask: Array) -> Array:
  """(x − mean) / std over the entries under the mask (ddof 0); 0 outside it.

  Entries that are all equal become 0: a spread below 1e-6 counts as none.
  """
  count = jnp.maximum(mask.sum().astype(jnp.float32), 1.0)
  # See groups.deviations: equal entries must have exactly no spread.
  moved = jnp.where(mask, x - jnp.where(mask, x, -jnp.inf).max(), 0.0)
  centred = jnp.where(mask, moved - moved.sum() / count, 0.0)
  std = jnp.sqrt(jnp.square(centred).sum() / count)
  return jnp.where(std > _FLOOR, centred / jnp.maximum(std, _FLOOR), 0.0)
