"""The heads of pre-alignment 0a; they teach the encoder to hear and are thrown away."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from stepaudio_jax.core.types import Array, Params


class HearingHeads(nn.Module):
  """CTC symbols for every frame, and one class of each attribute for the clip.

  Attributes:
    symbols: number of CTC symbols, the blank (0) included.
    attributes: name → classes.
  """

  symbols: int
  attributes: Mapping[str, tuple[str, ...]]

  @nn.compact
  def __call__(
    self, frames_BUE: Array, frame_count_B: Array
  ) -> tuple[Array, dict[str, Array]]:
    """Returns logits_BUV and {attribute: logits over its classes}."""
    symbols_BUV = nn.Dense(self.symbols, name="ctc")(frames_BUE)
    pooled_BD = _moments(frames_BUE, frame_count_B)
    hidden_BD = nn.gelu(nn.Dense(frames_BUE.shape[-1], name="pool")(pooled_BD))
    classes = {
      name: nn.Dense(len(choices), name=f"is_{name}")(hidden_BD)
      for name, choices in self.attributes.items()
    }
    return symbols_BUV, classes


def _moments(frames_BUE: Array, frame_count_B: Array) -> Array:
  """Mean and standard deviation over a clip's own frames, side by side."""
  valid_BU1 = (jnp.arange(frames_BUE.shape[1])[None] < frame_count_B[:, None])[
    ..., None
  ]
  count_B1 = jnp.maximum(frame_count_B, 1)[:, None].astype(frames_BUE.dtype)
  mean_BE = jnp.where(valid_BU1, frames_BUE, 0.0).sum(1) / count_B1
  spread_BUE = jnp.where(valid_BU1, (frames_BUE - mean_BE[:, None]) ** 2, 0.0)
  # The small term keeps the root's gradient finite where a clip does not vary.
  return jnp.concatenate([mean_BE, jnp.sqrt(spread_BUE.sum(1) / count_B1 + 1e-6)], -1)


def init_params(rng: Array, heads: HearingHeads, encoder_width: int) -> Params:
  """Fresh float32 parameters of the heads."""
  frames_BUE = jnp.zeros((1, 2, encoder_width))
  return heads.init(rng, frames_BUE, jnp.full((1,), 2, jnp.int32))["params"]
