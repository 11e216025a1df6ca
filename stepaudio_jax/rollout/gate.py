"""Stops a run whose sampler and trainer do not mean the same policy.

A misplaced recording, a mask or a position that differs between the two makes every
importance weight wrong, and nothing else shows it: the loss falls all the same.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from stepaudio_jax.rl.parts import agreement
from stepaudio_jax.rollout.actor import Played

_NAMED = 5
_APART = 0.5  # nats; bfloat16 rounds to less


class Disagreement(RuntimeError):
  """Sampler and trainer give the same tokens other probabilities."""


@dataclasses.dataclass(frozen=True)
class Gate:
  """How far the log-probabilities of sampled tokens may lie apart.

  Attributes:
    max_abs: nats between the two at any token (rounding in float32 is 1e-5); 0 is off.
    min_pearson: correlation over all tokens (for bfloat16); 0 is off.
  """

  max_abs: float
  min_pearson: float

  def __post_init__(self):
    if self.max_abs < 0 or not 0 <= self.min_pearson <= 1:
      raise ValueError(
        f"gate.max_abs={self.max_abs} must be at least 0 and "
        f"gate.min_pearson={self.min_pearson} within 0…1"
      )

  def check(self, step: int, played: Played) -> dict[str, float]:
    """The agreement on a host's replies of all processes, to be logged.

    Replies of an older policy than the measured one are left out; without any other
    there is nothing to be compared (NaN), and likewise no correlation of constants:
    with a min_pearson they must lie within half a nat of each other.

    Raises:
      Disagreement: naming the step, the numbers and the prompts that are worst off.
    """
    e = played.experience
    fresh_B = played.drawn.version_B == played.version
    mask_BT = np.asarray(e.mask_BT) & fresh_B[:, None]
    found = jax.device_get(agreement.agreement(e.sampler_BT, e.old_BT, mask_BT))
    found = {name: float(x) for name, x in found.items()}
    far = 0 < self.max_abs < found["max_abs"]
    apart = found["pearson"] < self.min_pearson  # False where it is NaN
    if math.isnan(found["pearson"]) and self.min_pearson:
      apart = found["max_abs"] > _APART
    lost = mask_BT.any() and not math.isfinite(found["max_abs"])
    if far or apart or lost:
      raise Disagreement(self._told(step, found, _worst(played, mask_BT)))
    return found

  def _told(self, step: int, found: dict[str, float], worst: Sequence[str]) -> str:
    return (
      f"sampler and trainer disagree at step {step}: their log-probabilities lie up to "
      f"{found['max_abs']:.3g} nats apart (gate.max_abs={self.max_abs:g}), correlation "
      f"{found['pearson']:.5f} (gate.min_pearson={self.min_pearson:g}); worst prompts "
      f"{list(worst)}. Nothing of this step is saved. Look for a mask, position or "
      "audio span that one of them sees otherwise; bfloat16 needs max_abs=0 and a "
      "correlation"
    )


def _worst(played: Played, mask_BT: np.ndarray) -> list[str]:
  e, drawn = played.experience, played.drawn
  apart_BT = np.abs(np.asarray(e.sampler_BT) - np.asarray(e.old_BT))
  far_B = np.where(mask_BT, apart_BT, 0.0).max(axis=1)
  far_by_prompt = far_B.reshape(len(drawn.asked), -1).max(axis=1)
  order = np.argsort(-far_by_prompt, kind="stable")[:_NAMED]
  return [drawn.asked[k]["id"] for k in order]
