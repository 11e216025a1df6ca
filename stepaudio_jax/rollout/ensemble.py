"""Several reward models as one: their mean, and how far they are apart.

Members are runs of one recipe with other seeds. Their rewards are in one unit, that of
the labels: points of a mark where there is regression, log-odds of a choice otherwise;
so they are averaged as they are. What one of them adds to all replies to a prompt is
no disagreement, for no choice between replies shows it: it is taken off before their
standard deviation is. A reply alone has nothing to be compared with; there the
deviation is that of the rewards themselves.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stepaudio_jax import workdirs
from stepaudio_jax.core.types import Batch
from stepaudio_jax.rollout.said import Said

Member = Callable[[Batch, Sequence[Said]], dict[str, np.ndarray]]
_APART = "{}/disagreement"


class Ensemble:
  """Rewards of several models, {dimension: mean − uncertainty · disagreement}.

  Beside each dimension there is its disagreement, under the name that `logged` gives.

  Args:
    members: of the same dimensions, in one order.
    uncertainty: 0 takes nothing off.
  """

  def __init__(self, members: Sequence[Member], uncertainty: float = 0.0):
    self._members, self._uncertainty = tuple(members), uncertainty

  def __call__(self, prompts: Batch, texts: Sequence[Said]) -> dict[str, np.ndarray]:
    found = [member(prompts, texts) for member in self._members]
    group = len(texts) // prompts.token_BT.shape[0]
    out = {}
    for name in found[0]:
      reward_XB = np.stack([rewards[name] for rewards in found])
      apart_B = disagreement(reward_XB, group)
      out[name] = reward_XB.mean(axis=0) - self._uncertainty * apart_B
      out[_APART.format(name)] = apart_B
    return out


def disagreement(reward_XB: np.ndarray, group: int) -> np.ndarray:
  """Standard deviation (ddof 1) of X members on each reply, float32 [B].

  Args:
    reward_XB: replies to a prompt behind each other; NaN where there is none.
    group: replies to each prompt.
  """
  reward_XGB = reward_XB.reshape(len(reward_XB), -1, group)
  if group > 1:
    known = np.isfinite(reward_XGB)
    total = np.where(known, reward_XGB, 0.0).sum(axis=-1, keepdims=True)
    count = np.maximum(known.sum(axis=-1, keepdims=True), 1)
    reward_XGB = reward_XGB - total / count
  return reward_XGB.std(axis=0, ddof=1).reshape(-1).astype(np.float32)


def sources(reward_model: str) -> dict[str, str]:
  """{"reward_model": folder, "reward_model_2": another, …}; {} where none is named."""
  named = workdirs.members(reward_model) if reward_model else []
  return {f"reward_model{f'_{k}' * (k > 1)}": one for k, one in enumerate(named, 1)}


def logged(learned: Mapping[str, float], reward_model: str) -> dict[str, float]:
  """Weights of the dimensions, with each one's disagreement at 0: it is only logged."""
  if len(sources(reward_model)) < 2:
    return dict(learned)
  return dict(learned) | {_APART.format(name): 0.0 for name in learned}
