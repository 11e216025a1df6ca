"""Whitening over the unit that the loss averages over, told here for all algorithms.

Peers whiten four different statistics under one name. Ours follows `aggregation`, so
that the advantages have mean 0 and mean square 1 under the very average that the loss
takes: "token_mean" and "constant" weigh every token alike, so the unit is the token;
"sequence_mean_token_mean" weighs every reply alike, so the unit is the reply (the mean
over replies of each one's mean over its tokens).
"""

import jax.numpy as jnp

from stepaudio_jax.core.types import Array
from stepaudio_jax.rl.parts import aggregate

_FLOOR = 1e-6


def whitened(x_BT: Array, mask_BT: Array, aggregation: str) -> Array:
  """(x − mean) / std over the entries under the mask (ddof 0); 0 outside it.

  Entries that are all equal become 0: a spread below 1e-6 counts as none.

  Raises:
    ValueError: an unknown aggregation.
  """
  weight_BT = _weights(mask_BT, aggregation)
  whole = jnp.maximum(weight_BT.sum(), 1.0)
  # See groups.deviations: equal entries must have exactly no spread.
  moved_BT = jnp.where(mask_BT, x_BT - jnp.where(mask_BT, x_BT, -jnp.inf).max(), 0.0)
  mean = (weight_BT * moved_BT).sum() / whole
  centred_BT = jnp.where(mask_BT, moved_BT - mean, 0.0)
  std = jnp.sqrt((weight_BT * jnp.square(centred_BT)).sum() / whole)
  return jnp.where(std > _FLOOR, centred_BT / jnp.maximum(std, _FLOOR), 0.0)


def _weights(mask_BT: Array, aggregation: str) -> Array:
  """What each token counts for in the loss, up to a factor; 0 outside the mask."""
  if aggregation not in aggregate.CHOICES:
    raise ValueError(
      f"unknown aggregation {aggregation!r}; the choices are {aggregate.CHOICES}"
    )
  weight_BT = mask_BT.astype(jnp.float32)
  if aggregation == "sequence_mean_token_mean":
    weight_BT = weight_BT / jnp.maximum(weight_BT.sum(1, keepdims=True), 1.0)
  return weight_BT
