"""Scalar read-outs of the decoder's last hidden state, each with its own parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import layers

_MASKED = -1e30  # finite: a reply that is absent stays finite too


class ValueHead(nn.Module):
  """The critic's read-out: [B, T, D] → float32 [B, T]."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    # Gain 0: a new critic predicts 0 everywhere rather than noise.
    return _scores(1, self.dtype, gain=0.0)(x_BTD)[..., 0]


class RewardHeads(nn.Module):
  """One score per reward dimension, read at the end of a reply.

  Beside its last hidden state (training.md §2.2) a head reads the reply's surprise:
  how much less likely each token is to the backbone's own language model than the
  favourite there, averaged with weights that the head learns. A model that can answer
  thus begins with an opinion on answers. From the last state alone, tiny models had not
  begun to hear whether an answer is right after 450 steps; like this they do after 50.
  """

  dimensions: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BQTD: Array, surprise_BQT: Array, count_BQ: Array) -> Array:
    """Rewards of replies.

    Args:
      x_BQTD: hidden states of the reply's tokens.
      surprise_BQT: ≤ 0, of each token; that of the first is not read.
      count_BQ: tokens of each reply, 0 where there is none.

    Returns:
      float32 reward_BQC, NaN where there is no reply.
    """
    last_BQ11 = jnp.maximum(count_BQ - 1, 0)[..., None, None]
    x_BQD = jnp.take_along_axis(x_BQTD, last_BQ11, axis=2)[:, :, 0]
    reward_BQC = _scores(self.dimensions, self.dtype, gain=0.1)(x_BQD)
    gate = layers.Linear(
      (self.dimensions,),
      ("embed", "reward"),
      self.dtype,
      gain=0.0,  # at first every token counts alike
      output=jnp.float32,
      name="gate",
    )
    step_11T = jnp.arange(x_BQTD.shape[2])[None, None]
    read_BQT = (step_11T > 0) & (step_11T < count_BQ[..., None])
    gate_BQTC = jnp.where(read_BQT[..., None], gate(x_BQTD), _MASKED)
    weight_BQTC = jax.nn.softmax(gate_BQTC, axis=2)
    surprise_BQC = (weight_BQTC * surprise_BQT[..., None]).sum(axis=2)
    small = nn.initializers.constant(0.3)
    scale_C = layers.parameter(self, "scale", small, ("reward",), (self.dimensions,))
    reward_BQC += layers.float32(scale_C, 3) * surprise_BQC
    return jnp.where(count_BQ[..., None] > 0, reward_BQC, jnp.nan)


def init_value(rng: Array, width: int) -> Params:
  """{"linear": {"kernel" [D, 1], "bias" [1]}}, all zero."""
  return nn.meta.unbox(ValueHead().init(rng, jnp.zeros((1, 1, width)))["params"])


def init_rewards(rng: Array, width: int, dimensions: int) -> Params:
  """{"linear": {"kernel" [D, C], "bias" [C]}, "gate": {"kernel"}, "scale" [C]}."""
  x_BQTD, surprise_BQT = jnp.zeros((1, 1, 1, width)), jnp.zeros((1, 1, 1))
  heads = RewardHeads(dimensions)
  made = heads.init(rng, x_BQTD, surprise_BQT, jnp.ones((1, 1), jnp.int32))
  return nn.meta.unbox(made["params"])


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
