"""Whether sampler and trainer mean the same policy."""

import jax.numpy as jnp

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array
from stepaudio_jax.rl.parts.kl import kl


def agreement(sampler_BT: Array, old_BT: Array, mask_BT: Array) -> dict[str, Array]:
  """How the log-probabilities of the sampled tokens compare; NaN without any.

  Returns:
    "max_abs" difference; "pearson" correlation (NaN where one side is constant);
    "mean_kl" of sampler ‖ old, k3 in nats per token.
  """
  sampler_BT = jnp.where(mask_BT, sampler_BT, 0.0)
  old_BT = jnp.where(mask_BT, old_BT, 0.0)
  far = jnp.where(mask_BT, jnp.abs(sampler_BT - old_BT), -jnp.inf).max()
  x_BT, y_BT = _centred(sampler_BT, mask_BT), _centred(old_BT, mask_BT)
  scale = jnp.sqrt(jnp.square(x_BT).sum()) * jnp.sqrt(jnp.square(y_BT).sum())
  pearson = (x_BT * y_BT).sum() / jnp.where(scale > 0, scale, jnp.nan)
  return {
    "max_abs": jnp.where(mask_BT.any(), far, jnp.nan),
    "pearson": pearson,
    "mean_kl": masked.ratio(masked.mean(kl(sampler_BT, old_BT, "k3"), mask_BT)),
  }


def _centred(x_BT: Array, mask_BT: Array) -> Array:
  return jnp.where(mask_BT, x_BT - masked.ratio(masked.mean(x_BT, mask_BT)), 0.0)
