"""The heads of pre-alignment 0a; they teach the encoder to hear and are thrown away."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from stepaudio_jax.core.types import Array, Params


class HearingHeads(nn.Module):
  """CTC symbols of every frame, and each attribute from the clip and from every frame.

  The pooled heads find what only the whole clip tells (its rate, a second speaker).
  Asking every frame as well makes the encoder spread it over the clip, where a decoder
  finds it in any audio token.

  Attributes:
    symbols: number of CTC symbols, the blank (0) included.
    attributes: name → classes.
  """

  symbols: int
  attributes: Mapping[str, tuple[str, ...]]

  @nn.compact
  def __call__(
    self, frames_BUE: Array, frame_count_B: Array
  ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
    """Returns logits_BUV and {attribute: (pooled logits [B, 1, V], frames' [B, U, V])}.

    V are the attribute's classes.
    """
    width = frames_BUE.shape[-1]
    pooled_B1D = _moments(frames_BUE, frame_count_B)[:, None]
    hidden_B1D = nn.gelu(nn.Dense(width, name="pool")(pooled_B1D))
    classes = {
      name: (
        nn.Dense(len(choices), name=f"clip_is_{name}")(hidden_B1D),
        nn.Dense(len(choices), name=f"frame_is_{name}")(frames_BUE),
      )
      for name, choices in self.attributes.items()
    }
    return nn.Dense(self.symbols, name="ctc")(frames_BUE), classes


def _moments(frames_BUE: Array, frame_count_B: Array) -> Array:
  """Mean and standard deviation over a clip's own frames, side by side."""
  inside_BU = jnp.arange(frames_BUE.shape[1])[None] < frame_count_B[:, None]
  count_B1 = jnp.maximum(frame_count_B, 1)[:, None].astype(frames_BUE.dtype)
  mean_BE = jnp.where(inside_BU[..., None], frames_BUE, 0.0).sum(1) / count_B1
  squares_BUE = (frames_BUE - mean_BE[:, None]) ** 2
  variance_BE = jnp.where(inside_BU[..., None], squares_BUE, 0.0).sum(1) / count_B1
  # The small term keeps the root's gradient finite where a clip does not vary.
  return jnp.concatenate([mean_BE, jnp.sqrt(variance_BE + 1e-6)], -1)


def init_params(rng: Array, heads: HearingHeads, encoder_width: int) -> Params:
  """Fresh float32 parameters of the heads."""
  frames_BUE = jnp.zeros((1, 2, encoder_width))
  return heads.init(rng, frames_BUE, jnp.full((1,), 2, jnp.int32))["params"]
