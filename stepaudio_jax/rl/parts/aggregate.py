"""From losses of tokens to one loss, still as a sum and its divisor."""

import math

import jax.numpy as jnp

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Mean

CHOICES = ("token_mean", "sequence_mean_token_mean", "constant")


def aggregate(
  loss_BT: Array, mask_BT: Array, how: str, constant: float | None = None
) -> Mean:
  """Sum and divisor; those of micro-batches add up to those of the batch.

  Args:
    how: "token_mean" (DAPO) Σ over tokens / tokens; "sequence_mean_token_mean" (GRPO)
      the mean over replies of each one's token mean; "constant" (Dr. GRPO, arXiv
      2503.20783) Σ over tokens / (`constant` · replies). A reply without a token under
      the mask does not count as one.
    constant: tokens that every reply is divided by, such as the longest possible.
  """
  if how not in CHOICES:
    raise ValueError(f"unknown aggregation {how!r}; the choices are {CHOICES}")
  if (constant is not None) != (how == "constant"):
    raise ValueError(f"aggregation {how!r} with constant={constant!r}: only 'constant'")
  if how == "token_mean":
    return masked.mean(loss_BT, mask_BT)
  loss_B = jnp.where(mask_BT, loss_BT, 0.0).sum(1)
  count_B = mask_BT.sum(1).astype(jnp.float32)
  if how == "constant":
    if not 0 < constant < math.inf:
      raise ValueError(f"constant={constant!r}; it must be a positive number of tokens")
    return masked.mean(loss_B / constant, count_B > 0)
  return masked.mean(loss_B / jnp.maximum(count_B, 1.0), count_B > 0)
