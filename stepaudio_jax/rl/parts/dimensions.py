"""Rewards of several dimensions: their sum, and what each contributes."""

import jax.numpy as jnp

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Mean
from stepaudio_jax.rl.parts import groups

_LIMIT = 5.0


def weighted_sum(x_BC: Array, weight_BC: Array) -> Array:
  """Σ_c w_c·x_c by reply; NaN where a dimension with a weight is missing.

  A dimension of weight 0 is logged only: it may be missing.
  """
  if weight_BC.shape != x_BC.shape:
    raise ValueError(f"weights of shape {weight_BC.shape} for rewards {x_BC.shape}")
  used_BC = weight_BC != 0
  sum_B = jnp.where(used_BC, weight_BC * x_BC, 0.0).sum(1)
  known_B = (jnp.isfinite(x_BC) | ~used_BC).all(1)
  return jnp.where(known_B, sum_B, jnp.nan)


def normalised(reward_BC: Array, group: int, std_floor: float) -> Array:
  """Each dimension standardised in its group, within ±5; NaN where it is missing."""
  return jnp.clip(groups.standardised(reward_BC, group, std_floor), -_LIMIT, _LIMIT)


def statistics(
  reward_BC: Array, weight_BC: Array, group: int, std_floor: float
) -> dict[str, Array]:
  """To be logged: what each dimension looks like, and its part of the advantage.

  Shares are those of the advantages A_k of `normalised` rewards, whichever way the
  algorithm itself combines the dimensions.

  Returns:
    By name, one number a dimension (NaN where nothing is known of it): "raw" mean
    reward; "std" mean over the groups of the spread within them; "norm" mean |A_k|;
    "weighted" mean |w_k A_k|; "share" Σ|w_k A_k| of that of all dimensions;
    "no_spread" share of the groups whose std is at most the floor, or that have fewer
    than two rewards; "missing" share of the replies without one.
  """
  known_BC = jnp.isfinite(reward_BC)
  _, std_BC = groups.deviations(reward_BC, group)
  std_BC = std_BC[::group]  # a row for each group
  norm_BC = jnp.abs(normalised(reward_BC, group, std_floor))
  weighted_BC = jnp.abs(weight_BC) * norm_BC
  has_norm_C = jnp.isfinite(norm_BC).any(0)
  part_C = jnp.where(jnp.isfinite(weighted_BC), weighted_BC, 0.0).sum(0)
  whole = part_C.sum()
  share_C = part_C / jnp.where(whole > 0, whole, jnp.nan)
  return {
    "raw": _mean(reward_BC),
    "std": _mean(std_BC),
    "norm": _mean(norm_BC),
    "weighted": _mean(weighted_BC),
    "share": jnp.where(has_norm_C, share_C, jnp.nan),
    "no_spread": 1.0 - (std_BC > std_floor).astype(jnp.float32).mean(0),
    "missing": 1.0 - known_BC.astype(jnp.float32).mean(0),
  }


def _mean(x_BC: Array) -> Array:
  """Mean over the finite rows of each column."""
  known_BC = jnp.isfinite(x_BC)
  sum_C = jnp.where(known_BC, x_BC, 0.0).sum(0)
  return masked.ratio(Mean(sum_C, known_BC.sum(0).astype(jnp.float32)))
