"""DAPO (Yu et al. 2025, arXiv 2503.14476).

GRPO's advantages with a wider upper clip and the mean over all tokens of the batch. The
rest of DAPO belongs to the loop: groups without spread are refilled where prompts are
played, overlong replies lose reward where rewards are given (`rewards.overlong`), and
there is no KL unless the recipe weighs one. Where we differ: the divisor is
max(std, floor), see rl/grpo.py; the dual clip is an option.
"""

from typing import Any

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import clip, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.28,
  "dual_clip": 0.0,  # 0 = off
  "std_floor": 1e-4,
  "normalisation": "sum",  # or "gdpo"
  "reward_clip": 5.0,  # of each dimension under "gdpo"
}
CRITIC = False
AGGREGATIONS = ("token_mean",)


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
  return clip.by_token(now_BT, experience, settled(DEFAULTS, hyper))
