"""RLOO (Ahmadian et al. 2024, "Back to basics", arXiv 2402.14740).

A = R minus the mean reward of the *other* replies to the prompt; a KL in the reward,
−β·Σ k1 of the reply, is the paper's form. Where we differ: several updates a rollout
are possible, by the clipped ratio of each token; at the first one (ratio 1) the
gradient is the paper's REINFORCE. The paper sums over a reply's tokens: that is
aggregation "constant" up to a factor; the others are options.
"""

from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import aggregate, clip, groups, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 0.0,  # 0 = off
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
  """With `advantage_BT` = G/(G−1) · (R − mean_g), every token of a reply alike.

  G counts the replies of the group that have a reward; the others are masked.

  Raises:
    ValueError: groups of one, or hyper-parameters that cannot be.
  """
  del aggregation  # nothing is whitened
  settled(DEFAULTS, hyper)
  groups.check_several(group)
  total_B = relative.totals(experience, kl_reward_BT)
  deviation_B = groups.deviations(total_B[:, None], group)[0][:, 0]
  known_BG = jnp.isfinite(total_B).reshape(-1, group)
  count_B1 = known_BG.sum(1, keepdims=True).astype(jnp.float32)
  # Fewer than two have no deviation (NaN), whatever stands here.
  factor_B1 = count_B1 / jnp.maximum(count_B1 - 1.0, 1.0)
  factor_B = jnp.broadcast_to(factor_B1, known_BG.shape).reshape(-1)
  return relative.alike(experience, factor_B * deviation_B)


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  return clip.by_token(now_BT, experience, settled(DEFAULTS, hyper))
