"""What a sampler that is not quite the trainer's policy costs each token of the loss.

Replies come from one program and gradients from another. With q = π_old of the trainer
over π of the sampler, for a token or a whole reply, the policy loss of a token is
multiplied by a weight that is the same for all updates of a rollout and has no
gradient. Neither the KL nor the critic's loss is, and nothing changes the divisor of
the loss: a token of weight 0 still counts as one.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Experience

CHOICES = ("tis", "icepop", "sequence_mask", "none")
_LIMIT = 20.0


@dataclasses.dataclass(frozen=True)
class Correction:
  """How the weights are made, and the bounds of q.

  Attributes:
    kind: "tis" q brought within the bounds (truncated importance sampling, Yao et al.
      2025, "On the rollout-training mismatch in modern RL systems"); "icepop" q, and 0
      outside them (Ring-1T, arXiv 2510.18855); "sequence_mask" 1, and 0 for all tokens
      of a reply whose geometric mean of q lies outside; "none" no weights.
    limit: upper bound.
    low: lower bound; 0 is none.

  Raises:
    ValueError: an unknown kind, or bounds that 1 does not lie between.
  """

  kind: str
  limit: float = 2.0
  low: float = 0.0

  def __post_init__(self):
    if self.kind not in CHOICES:
      raise ValueError(
        f"unknown correction.kind {self.kind!r}; the choices are {CHOICES}"
      )
    if not 0 <= self.low <= 1 <= self.limit < math.inf:
      raise ValueError(
        f"correction.low={self.low} and correction.limit={self.limit}: "
        "0 ≤ low ≤ 1 ≤ limit must hold, or agreement itself would be corrected"
      )


def weights(correction: Correction, experience: Experience) -> tuple[Array, Array]:
  """weight_BT and whether the bounds decided it, both float32 and 0 outside the mask.

  Raises:
    ValueError: there are no weights of the kind "none".
  """
  if correction.kind == "none":
    raise ValueError("correction.kind='none' has no weights")
  mask_BT = experience.mask_BT
  # Masked before exp: what lies outside may be anything.
  log_BT = jnp.where(mask_BT, experience.old_BT - experience.sampler_BT, 0.0)
  log_BT = jnp.clip(log_BT, -_LIMIT, _LIMIT)
  if correction.kind == "sequence_mask":
    count_B1 = jnp.maximum(mask_BT.sum(1, keepdims=True).astype(jnp.float32), 1.0)
    log_BT = jnp.broadcast_to(log_BT.sum(1, keepdims=True) / count_B1, mask_BT.shape)
  ratio_BT = jnp.exp(log_BT)
  out_BT = mask_BT & ((ratio_BT > correction.limit) | (ratio_BT < correction.low))
  if correction.kind == "tis":
    weight_BT = jnp.clip(ratio_BT, correction.low, correction.limit)
  elif correction.kind == "icepop":
    weight_BT = jnp.where(out_BT, 0.0, ratio_BT)
  else:
    weight_BT = jnp.where(out_BT, 0.0, jnp.ones_like(ratio_BT))
  weight_BT = jax.lax.stop_gradient(jnp.where(mask_BT, weight_BT, 0.0))
  return weight_BT, out_BT.astype(jnp.float32)
