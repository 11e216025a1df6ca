"""CISPO (MiniMax-M1, arXiv 2506.13585): the weight is clipped, not the update.

loss = −sg(min(r, c))·A·log π, c = 5: every token keeps a gradient. As in the paper
there is no lower limit. Where we differ: the divisor of the advantage is
max(std, floor), see rl/grpo.py; ℓ is kept within ±20.
"""

from typing import Any

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import aggregate, clip, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "ratio_limit": 5.0,
  "std_floor": 1e-4,
  "normalisation": "sum",  # or "gdpo"
  "reward_clip": 5.0,  # of each dimension under "gdpo"
}
CRITIC = False
AGGREGATIONS = aggregate.CHOICES


def advantages(
  experience: Experience,
  *,
  group: int,
  aggregation: str = AGGREGATIONS[0],
  kl_reward_BT: Array | None = None,
  **hyper: Any,
) -> Experience:
  """With `advantage_BT`, every token of a reply alike, see rl/grpo.py."""
  hp = settled(DEFAULTS, hyper)
  return relative.compared(
    experience,
    group=group,
    aggregation=aggregation,
    kl_reward_BT=kl_reward_BT,
    normalisation=hp.normalisation,
    std_floor=hp.std_floor,
    reward_clip=hp.reward_clip,
  )


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT, 0 outside the mask, and "ratio" and "clip_high" of each token."""
  hp = settled(DEFAULTS, hyper)
  mask_BT = experience.mask_BT
  ratio_BT = jax.lax.stop_gradient(clip.ratios(now_BT, experience))
  high_BT = mask_BT & (ratio_BT > hp.ratio_limit)
  weight_BT = jnp.minimum(ratio_BT, hp.ratio_limit)
  advantage_BT = jnp.where(mask_BT, experience.advantage_BT, 0.0)
  extras = {
    "ratio": jnp.where(mask_BT, ratio_BT, 0.0),
    "clip_high": high_BT.astype(jnp.float32),
  }
  return -weight_BT * advantage_BT * jnp.where(mask_BT, now_BT, 0.0), extras
