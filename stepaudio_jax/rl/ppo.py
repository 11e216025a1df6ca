"""PPO (arXiv 1707.06347) with a critic, as in InstructGPT (arXiv 2203.02155).

Where we differ: γ = λ = 1 by default (Step-Audio-R1, §4.1); dual clip and asymmetric
clipping are options; the reward comes on the last sampled token, and a KL penalty is
the caller's, either in the loss or as a reward of each token. A reply that misses
a reward with a weight is masked, never rewarded 0. Advantages are whitened over the
unit that the loss averages over, see parts/whiten.py.
"""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import aggregate, clip, groups, relative, whiten
from stepaudio_jax.rl.parts.gae import gae
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 3.0,  # 0 = off
  "gamma": 1.0,
  "lambda_": 1.0,
  "whiten": True,
  "value_clip": 0.2,  # 0 = off
  "normalisation": "sum",
}
CRITIC = True
AGGREGATIONS = aggregate.CHOICES


def advantages(
  experience: Experience,
  *,
  group: int,
  aggregation: str = AGGREGATIONS[0],
  kl_reward_BT: Array | None = None,
  **hyper: Any,
) -> Experience:
  """With `advantage_BT`, whitened over what the loss averages over, and `return_BT`.

  Args:
    group: replies to each prompt; the critic is the baseline, so 1 is enough.
    aggregation: of the loss.
    kl_reward_BT: reward of each token beside that of the reply, such as −β·k1.
  """
  hp = _settled(hyper)
  groups.check(experience.reward_BC.shape[0], group)
  total_B = relative.totals(experience)
  mask_BT = experience.mask_BT & jnp.isfinite(total_B)[:, None]
  ahead_BT = jnp.cumsum(mask_BT[:, ::-1].astype(jnp.int32), axis=1)[:, ::-1]
  reward_BT = jnp.where(mask_BT & (ahead_BT == 1), total_B[:, None], 0.0)
  if kl_reward_BT is not None:
    reward_BT = reward_BT + jnp.where(mask_BT, kl_reward_BT, 0.0)
  value_BT = experience.value_BT
  advantage_BT = gae(reward_BT, value_BT, mask_BT, hp.gamma, hp.lambda_)
  return_BT = jnp.where(mask_BT, advantage_BT + value_BT, 0.0)
  if hp.whiten:
    advantage_BT = whiten.whitened(advantage_BT, mask_BT, aggregation)
  return dataclasses.replace(
    experience, mask_BT=mask_BT, advantage_BT=advantage_BT, return_BT=return_BT
  )


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  return clip.by_token(now_BT, experience, _settled(hyper))


def value_loss(value_BT: Array, experience: Experience, **hyper: Any) -> Array:
  """½ max((v − R)², (v_old + clip(v − v_old, ±δ) − R)²), 0 outside the mask."""
  hp = _settled(hyper)
  mask_BT = experience.mask_BT
  value_BT = jnp.where(mask_BT, value_BT, 0.0)
  return_BT = jnp.where(mask_BT, experience.return_BT, 0.0)
  square_BT = jnp.square(value_BT - return_BT)
  if hp.value_clip:
    old_BT = jnp.where(mask_BT, experience.value_BT, 0.0)
    step_BT = jnp.clip(value_BT - old_BT, -hp.value_clip, hp.value_clip)
    square_BT = jnp.maximum(square_BT, jnp.square(old_BT + step_BT - return_BT))
  return square_BT / 2


def _settled(hyper: dict[str, Any]) -> SimpleNamespace:
  hp = settled(DEFAULTS, hyper)
  if hp.normalisation != "sum":
    raise ValueError(f"normalisation={hp.normalisation!r}; PPO's choice is 'sum' only")
  return hp
