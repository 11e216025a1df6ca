"""Advantages of whole replies, measured against the others to the same prompt."""

import dataclasses

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import dimensions, groups, whiten


def totals(experience: Experience, kl_reward_BT: Array | None = None) -> Array:
  """total_B: weighted rewards of each reply; NaN where one with a weight is missing.

  Args:
    kl_reward_BT: reward of each token, such as −β·k1: its sum over the reply's sampled
      tokens is added, as RLOO does (arXiv 2402.14740, eq. 2).
  """
  total_B = dimensions.weighted_sum(experience.reward_BC, experience.weight_BC)
  if kl_reward_BT is None:
    return total_B
  return total_B + jnp.where(experience.mask_BT, kl_reward_BT, 0.0).sum(1)


def alike(experience: Experience, advantage_B: Array) -> Experience:
  """With the advantage on every token of its reply; `return_BT` is 0.

  A reply without an advantage (NaN) is masked: its tokens do not count.
  """
  mask_BT = experience.mask_BT & jnp.isfinite(advantage_B)[:, None]
  return dataclasses.replace(
    experience,
    mask_BT=mask_BT,
    advantage_BT=jnp.where(mask_BT, advantage_B[:, None], 0.0),
    return_BT=jnp.zeros_like(experience.value_BT),
  )


def compared(
  experience: Experience,
  *,
  group: int,
  aggregation: str,
  kl_reward_BT: Array | None,
  normalisation: str,
  std_floor: dimensions.Floor,
  reward_clip: float = dimensions.CLIP,
  scale_by_std: bool = True,
) -> Experience:
  """With (R − mean_g) / max(std_g, floor), or that of GDPO; see rl/grpo.py.

  Floors of every dimension (a tuple) are those of its own spread under "gdpo", and make
  one of the sum's under "sum": dimensions.sum_floor.

  A reply that misses a reward with a weight, or that has none to be compared with, is
  masked.

  Raises:
    ValueError: groups of one, or options that exclude each other.
  """
  groups.check_several(group)
  dimensions.check_clip(reward_clip, normalisation, group)
  if normalisation == "gdpo":
    if not scale_by_std:
      raise ValueError("scale_by_std=False; normalisation 'gdpo' always scales")
    if kl_reward_BT is not None:
      raise ValueError(
        "normalisation 'gdpo' with a KL in the reward: standardised like a dimension "
        "it would lose its β; put the KL in the loss, or take normalisation 'sum'"
      )
    each_BC = dimensions.normalised(experience.reward_BC, group, std_floor, reward_clip)
    scored = alike(experience, dimensions.weighted_sum(each_BC, experience.weight_BC))
    white_BT = whiten.whitened(scored.advantage_BT, scored.mask_BT, aggregation)
    return dataclasses.replace(scored, advantage_BT=white_BT)
  total_B1 = totals(experience, kl_reward_BT)[:, None]
  if scale_by_std:
    floor_B1 = dimensions.sum_floor(std_floor, experience.weight_BC)
    advantage_B1 = groups.standardised(total_B1, group, floor_B1)
  else:
    advantage_B1 = groups.deviations(total_B1, group)[0]
  return alike(experience, advantage_B1[:, 0])
