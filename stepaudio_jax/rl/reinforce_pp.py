"""REINFORCE++ (Hu et al. 2025, arXiv 2501.03262), and its form with a baseline.

A_t = R − β·Σ_{s≥t} k1_s, whitened over the whole batch. `baseline` True subtracts the
group's mean reward first (the paper's "with baseline"); without it one reply to a
prompt is enough. Where we differ: the statistic follows the loss's aggregation
(parts/whiten.py; the paper's is that of the tokens); the KL is the caller's, and may be
in the loss in both forms (the paper has it there with a baseline, as k2); the ratio of
each token is clipped, so that several updates a rollout are possible.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import aggregate, clip, groups, relative, whiten
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 0.0,  # 0 = off
  "baseline": False,
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
  """With `advantage_BT`, whitened over what the loss averages over.

  Args:
    group: replies to each prompt; it matters to the baseline alone.
    aggregation: of the loss.
    kl_reward_BT: reward of each token beside that of the reply, such as −β·k1: a token
      is credited with those from itself on.

  Raises:
    ValueError: a baseline of groups of one, or hyper-parameters that cannot be.
  """
  hp = settled(DEFAULTS, hyper)
  groups.check(experience.reward_BC.shape[0], group)
  total_B = relative.totals(experience)
  if hp.baseline:
    groups.check_several(group)
    total_B = groups.deviations(total_B[:, None], group)[0][:, 0]
  scored = relative.alike(experience, total_B)
  advantage_BT, mask_BT = scored.advantage_BT, scored.mask_BT
  if kl_reward_BT is not None:
    each_BT = jnp.where(mask_BT, kl_reward_BT, 0.0)
    advantage_BT = advantage_BT + jnp.cumsum(each_BT[:, ::-1], axis=1)[:, ::-1]
  white_BT = whiten.whitened(advantage_BT, mask_BT, aggregation)
  return dataclasses.replace(scored, advantage_BT=white_BT)


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  return clip.by_token(now_BT, experience, settled(DEFAULTS, hyper))
