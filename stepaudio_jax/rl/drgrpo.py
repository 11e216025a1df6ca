"""Dr. GRPO (Liu et al. 2025, "Understanding R1-Zero-like training", arXiv 2503.20783).

GRPO without its two biases: A = R − mean_g is not divided by the group's spread, and
the loss of a reply by one constant (aggregation "constant") instead of its length.
Where we differ: the constant is sampling.max_new_tokens; asymmetric clipping and the
dual clip are options.
"""

from typing import Any

from stepaudio_jax.core.types import Array, Experience
from stepaudio_jax.rl.parts import clip, groups, relative
from stepaudio_jax.rl.parts.hyper import settled

DEFAULTS: dict[str, Any] = {
  "clip_low": 0.2,
  "clip_high": 0.2,
  "dual_clip": 0.0,  # 0 = off
}
CRITIC = False
AGGREGATIONS = ("constant",)


def advantages(
  experience: Experience,
  *,
  group: int,
  aggregation: str = AGGREGATIONS[0],
  kl_reward_BT: Array | None = None,
  **hyper: Any,
) -> Experience:
  """With `advantage_BT`, every token of a reply alike, see rl/grpo.py."""
  del aggregation  # nothing is whitened
  settled(DEFAULTS, hyper)
  groups.check_several(group)
  total_B1 = relative.totals(experience, kl_reward_BT)[:, None]
  return relative.alike(experience, groups.deviations(total_B1, group)[0][:, 0])


def token_loss(
  now_BT: Array, experience: Experience, **hyper: Any
) -> tuple[Array, dict[str, Array]]:
  """loss_BT and what to log of each token, see parts/clip.py."""
  return clip.by_token(now_BT, experience, settled(DEFAULTS, hyper))
