"""GRPO (DeepSeekMath, arXiv 2402.03300), with the rewards of GDPO as an option.

Where we differ: the divisor is max(std, floor), not std + ε, so that near-ties stay
small; asymmetric clipping (DAPO) and the dual clip are options; KL and the mean over
tokens belong to the caller. normalisation "sum" compares weighted sums of the
dimensions within the group; "gdpo" (arXiv 2601.05242) standardises every dimension in
its group first (within ±`reward_clip`) and whitens their weighted sum, see
parts/whiten.py. `std_floor` may have a number for every dimension (a tuple), such as
their measured noises. `scale_by_std` False leaves the spread in (arXiv 2503.20783;
rl/drgrpo.py is the whole of Dr. GRPO).
"""

from typing import Any

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import aggregate, clip, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 3.0,  # 0 = off
  "std_floor": 1e-4,
  "normalisation": "sum",  # or "gdpo"
  "reward_clip": 5.0,  # of each dimension under "gdpo"
  "scale_by_std": True,
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
  """With `advantage_BT`, every token of a reply alike; `return_BT` is 0.

  A reply that misses a reward with a weight, or that has none to be compared with, is
  masked: its tokens do not count.

  Args:
    aggregation: of the loss; what "gdpo" whitens over follows it.
    kl_reward_BT: reward of each token, such as −β·k1; a reply's sum joins its reward.

  Raises:
    ValueError: groups of one, or hyper-parameters that cannot be.
  """
  hp = settled(DEFAULTS, hyper)
  return relative.compared(
    experience,
    group=group,
    aggregation=aggregation,
    kl_reward_BT=kl_reward_BT,
    normalisation=hp.normalisation,
    std_floor=hp.std_floor,
    reward_clip=hp.reward_clip,
    scale_by_std=hp.scale_by_std,
  )


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  return clip.by_token(now_BT, experience, settled(DEFAULTS, hyper))
