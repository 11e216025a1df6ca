"""What a model says of given tokens, without holding the logits of a long batch.

At 4,096 tokens × 158,720 words a row's float32 logits are 2.6 GB, and the gradient's as
much again. So they are made for some positions at a time, and made anew for the
gradient.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Batch
from stepaudio_jax.models import layers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenScores:
  """Of one given token at each position, float32 [B, T].

  Attributes:
    logprob_BT: log softmax(logits / temperature)[token].
    margin_BT: its tempered logit less the largest, ≤ 0; 0 where it is the likeliest.
    entropy_BT: nats of that distribution.
  """

  logprob_BT: Array
  margin_BT: Array
  entropy_BT: Array


def targets(batch: Batch) -> Array:
  """token_BT to be predicted at each position: the next one, 0 at the end."""
  return following(batch.token_BT)


def following(x_BT: Array) -> Array:
  """x[:, t + 1] at t; 0 or False, which is no segment's, at the end."""
  return jnp.pad(x_BT[:, 1:], ((0, 0), (0, 1)))


def scored(logits_BTV: Array, token_BT: Array) -> TokenScores:
  """The scores of float32 logits that are already tempered."""
  word_11V = jnp.arange(logits_BTV.shape[-1], dtype=token_BT.dtype)[None, None]
  # Picked by a comparison: its gradient is no scatter, and a split vocabulary stays so.
  picked_BTV = jnp.where(word_11V == token_BT[..., None], logits_BTV, 0.0)
  chosen_BT = picked_BTV.sum(-1)
  top_BT = lax.stop_gradient(logits_BTV.max(-1))
  shifted_BTV = logits_BTV - top_BT[..., None]
  total_BT = jnp.exp(shifted_BTV).sum(-1)
  log_total_BT = jnp.log(total_BT)
  weighted_BT = (jnp.exp(shifted_BTV) * shifted_BTV).sum(-1)
  return TokenScores(
    logprob_BT=chosen_BT - top_BT - log_total_BT,
    margin_BT=chosen_BT - logits_BTV.max(-1),
    entropy_BT=log_total_BT - weighted_BT / total_BT,
  )


def judged(
  x_BTD: Array, kernel_DV: Array, token_BT: Array, temperature: Array, chunks: int
) -> TokenScores:
  """The scores of tokens under the logits x · kernel / temperature.

  Args:
    chunks: parts of the length whose logits are made one after the other. They are
      strided, so that a length that is split over devices stays so.
  """

  def part(x_BTD: Array, token_BT: Array) -> TokenScores:
    logits_BTV = jnp.einsum(
      "BTD,DV->BTV", x_BTD, kernel_DV, preferred_element_type=jnp.float32
    )
    logits_BTV = layers.constrain(logits_BTV, "batch", "length", "vocab")
    return scored(logits_BTV / temperature, token_BT)

  if chunks == 1:
    return part(x_BTD, token_BT)
  length = x_BTD.shape[1]
  cut = functools.partial(_strided, chunks=chunks)
  again = jax.checkpoint(part, prevent_cse=False)
  _, scores = lax.scan(
    lambda _, some: (None, again(*some)), None, (cut(x_BTD), cut(token_BT))
  )
  return jax.tree.map(lambda x_XBT: _joined(x_XBT)[:, :length], scores)


def _strided(x_BT: Array, chunks: int) -> Array:
  """x[:, k::chunks] for each k; a length that they do not divide is padded."""
  rows, length = x_BT.shape[:2]
  padding = -length % chunks
  x_BT = jnp.pad(x_BT, [(0, 0), (0, padding)] + [(0, 0)] * (x_BT.ndim - 2))
  x_BTX = x_BT.reshape(rows, (length + padding) // chunks, chunks, *x_BT.shape[2:])
  return jnp.moveaxis(x_BTX, 2, 0)


def _joined(x_XBT: Array) -> Array:
  """The reverse, [B, T] of [chunks, B, T / chunks]."""
  return jnp.moveaxis(x_XBT, 0, 2).reshape(x_XBT.shape[1], -1)
