"""The clipped objective of PPO (arXiv 1707.06347, eq. 7) with the dual clip of
Ye et al. (arXiv 1912.09729, eq. 5)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience

_LIMIT = 20.0


def clipped_loss(
  now_BT: Array,
  experience: Experience,
  *,
  clip_low: float,
  clip_high: float,
  dual_clip: float,
  whole_replies: bool = False,
) -> tuple[Array, dict[str, Array]]:
  """−min(rA, clip(r, 1−ε_low, 1+ε_high)A) and, where A < 0, at most −cA.

  Args:
    now_BT: log-probabilities under the policy that is trained.
    dual_clip: c; 0 is off.
    whole_replies: r is that of the reply, see `ratios`.

  Returns:
    loss_BT, 0 outside the mask, and float32 arrays to be averaged over it: "ratio",
    and where it is "clip_low", "clip_high" and, unless it is off, "clip_dual" (no
    gradient in each).
  """
  mask_BT = experience.mask_BT
  advantage_BT = jnp.where(mask_BT, experience.advantage_BT, 0.0)
  ratio_BT = ratios(now_BT, experience, whole_replies=whole_replies)
  low_BT = (advantage_BT < 0) & (ratio_BT < 1 - clip_low)
  high_BT = (advantage_BT > 0) & (ratio_BT > 1 + clip_high)
  dual_BT = jnp.zeros_like(mask_BT)
  if dual_clip:
    dual_BT = (advantage_BT < 0) & (ratio_BT > dual_clip)
  # Chosen, not min and max of both: those halve the gradient where the two are equal.
  used_BT = jnp.where(low_BT, 1 - clip_low, ratio_BT)
  used_BT = jnp.where(high_BT, 1 + clip_high, used_BT)
  used_BT = jnp.where(dual_BT, dual_clip, used_BT)
  extras = {
    "ratio": jnp.where(mask_BT, jax.lax.stop_gradient(ratio_BT), 0.0),
    "clip_low": low_BT.astype(jnp.float32),
    "clip_high": high_BT.astype(jnp.float32),
  }
  if dual_clip:
    extras["clip_dual"] = dual_BT.astype(jnp.float32)
  return -used_BT * advantage_BT, extras


def by_token(
  now_BT: Array, experience: Experience, hp: SimpleNamespace
) -> tuple[Array, dict[str, Array]]:
  """`clipped_loss` with the three bounds of an algorithm's hyper-parameters."""
  return clipped_loss(
    now_BT,
    experience,
    clip_low=hp.clip_low,
    clip_high=hp.clip_high,
    dual_clip=hp.dual_clip,
  )


def ratios(
  now_BT: Array, experience: Experience, *, whole_replies: bool = False
) -> Array:
  """ratio_BT = π / π_old, its logarithm kept within ±20; outside the mask no token's.

  Args:
    whole_replies: exp of the mean logarithm over the reply's sampled tokens (GSPO,
      arXiv 2507.18071, eq. 7), the same for each of them.
  """
  mask_BT = experience.mask_BT
  # Masked before exp: what lies outside may be anything and must not reach a gradient.
  log_BT = jnp.where(mask_BT, now_BT - experience.old_BT, 0.0)
  if whole_replies:
    count_B1 = jnp.maximum(mask_BT.sum(1, keepdims=True).astype(jnp.float32), 1.0)
    log_BT = jnp.broadcast_to(log_BT.sum(1, keepdims=True) / count_B1, mask_BT.shape)
  return jnp.exp(jnp.clip(log_BT, -_LIMIT, _LIMIT))
