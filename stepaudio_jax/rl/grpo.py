"""GRPO (DeepSeekMath, arXiv 2402.03300), with the rewards of GDPO as an option.

Where we differ: the divisor is max(std, floor), not std + ε, so that near-ties stay
small; asymmetric clipping (DAPO) and the dual clip are options; `scale_by_std` False is
Dr. GRPO; KL and the mean over tokens belong to the caller. normalisation "sum" compares
weighted sums of the dimensions within the group; "gdpo" standardises every dimension
in its group first (within ±5) and whitens their weighted sum over the batch's replies.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import clip, dimensions, groups, whiten
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 3.0,  # 0 = off
  "std_floor": 1e-4,
  "normalisation": "sum",  # or "gdpo"
  "scale_by_std": True,
}
CRITIC = False


def advantages(experience: Experience, *, group: int, **hyper: Any) -> Experience:
  """With `advantage_BT`, every token of a reply alike; `return_BT` is 0.

  A reply that misses a reward with a weight, or that has none to be compared with, is
  masked: its tokens do not count.

  Raises:
    ValueError: groups of one, or hyper-parameters that cannot be.
  """
  hp = settled(DEFAULTS, hyper)
  if hp.normalisation == "gdpo" and not hp.scale_by_std:
    raise ValueError("scale_by_std=False; normalisation 'gdpo' always scales")
  reward_BC, weight_BC = experience.reward_BC, experience.weight_BC
  if hp.normalisation == "gdpo":
    each_BC = dimensions.normalised(reward_BC, group, hp.std_floor)
    advantage_B = dimensions.weighted_sum(each_BC, weight_BC)
    known_B = jnp.isfinite(advantage_B)
    advantage_B = whiten.whitened(advantage_B, known_B)
  else:
    total_B1 = dimensions.weighted_sum(reward_BC, weight_BC)[:, None]
    if hp.scale_by_std:
      advantage_B1 = groups.standardised(total_B1, group, hp.std_floor)
    else:
      advantage_B1 = groups.deviations(total_B1, group)[0]
    advantage_B = advantage_B1[:, 0]
    known_B = jnp.isfinite(advantage_B)
  mask_BT = experience.mask_BT & known_B[:, None]
  return dataclasses.replace(
    experience,
    mask_BT=mask_BT,
    advantage_BT=jnp.where(mask_BT, advantage_B[:, None], 0.0),
    return_BT=jnp.zeros_like(experience.value_BT),
  )


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  hp = settled(DEFAULTS, hyper)
  return clip.clipped_loss(
    now_BT,
    experience,
    clip_low=hp.clip_low,
    clip_high=hp.clip_high,
    dual_clip=hp.dual_clip,
  )
