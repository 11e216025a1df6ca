"""Scalar read-outs of the decoder's last hidden state, each with its own parameters."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import layers


class ValueHead(nn.Module):
  """The critic's read-out: [B, T, D] → float32 [B, T]."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    # Gain 0: a new critic predicts 0 everywhere rather than noise.
    return _scores(1, self.dtype, gain=0.0)(x_BTD)[..., 0]


class RewardHeads(nn.Module):
  """One score per reward dimension, read at chosen slots."""

  dimensions: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array, slot_BQ: Array) -> Array:
    """float32 reward_BQC; where `slot_BQ` is −1 there is nothing to read: 0."""
    index_BQ1 = jnp.maximum(slot_BQ, 0)[..., None]
    x_BQD = jnp.take_along_axis(x_BTD, index_BQ1, axis=1)
    reward_BQC = _scores(self.dimensions, self.dtype, gain=1.0)(x_BQD)
    return jnp.where(slot_BQ[..., None] >= 0, reward_BQC, 0.0)


def init_value(rng: Array, width: int) -> Params:
  """{"linear": {"kernel" [D, 1], "bias" [1]}}, all zero."""
  return nn.meta.unbox(ValueHead().init(rng, jnp.zeros((1, 1, width)))["params"])


def init_rewards(rng: Array, width: int, dimensions: int) -> Params:
  """{"linear": {"kernel" [D, C], "bias" [C]}}."""
  inputs = jnp.zeros((1, 1, width)), jnp.zeros((1, 1), jnp.int32)
  return nn.meta.unbox(RewardHeads(dimensions).init(rng, *inputs)["params"])


def _scores(outputs: int, dtype: Any, gain: float) -> layers.Linear:
  return layers.Linear(
    (outputs,),
    ("embed", "reward"),
    dtype,
    bias=True,
    gain=gain,
    output=jnp.float32,
    name="linear",
  )
