"""GSPO (Zheng et al. 2025, arXiv 2507.18071): one ratio for the whole reply.

s = exp(mean_t ℓ_t) is clipped to (1 − 3e-4, 1 + 4e-4) and the loss is the mean over
replies. Where we differ: every token of a reply bears that reply's loss, so that the
mean over its tokens is it; the divisor of the advantage is max(std, floor), see
rl/grpo.py; the mean of ℓ is kept within ±20.
"""

from typing import Any

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import clip, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 3e-4,
  "clip_high": 4e-4,
  "std_floor": 1e-4,
  "normalisation": "sum",  # or "gdpo"
  "reward_clip": 5.0,  # of each dimension under "gdpo"
}
CRITIC = False
AGGREGATIONS = ("sequence_mean_token_mean",)


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
  """loss_BT and what to log of each token, see parts/clip.py."""
  hp = settled(DEFAULTS, hyper)
  return clip.clipped_loss(
    now_BT,
    experience,
    clip_low=hp.clip_low,
    clip_high=hp.clip_high,
    dual_clip=0.0,
    whole_replies=True,
  )
