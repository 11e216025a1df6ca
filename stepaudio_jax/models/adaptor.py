"""The adaptor: encoder frames (25 Hz) to decoder-wide audio tokens (12.5 Hz)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Array
from stepaudio_jax.models import layers
from stepaudio_jax.models.sizes import Size


def input_rows(frame_count):
  """Rows of encoder frames that a clip's audio tokens read: 2 per token.

  One more than `frame_count` where that is odd: the last token's convolution
  reaches there, and the row may be non-zero.
  """
  return 2 * lengths.adaptor_tokens(frame_count)


class Adaptor(nn.Module):
  size: Size
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames_BUE: Array, frame_count_B: Array) -> Array:
    """audio_BAD with A = (U + 1) // 2, zero beyond each clip's tokens.

    Args:
      frames_BUE: as the encoder gives them, zero from `input_rows` on.
    """
    size, width = self.size, self.size.encoder_width
    conv = layers.Conv(
      width, (None, None, "audio_embed"), self.dtype, stride=2, name="conv"
    )
    names = ("audio_embed", "adaptor", "embed")
    linear1 = layers.Linear(
      (size.adaptor_width,), names[:2], self.dtype, bias=True, name="linear1"
    )
    linear2 = layers.Linear(
      (size.width,), names[1:], self.dtype, bias=True, name="linear2"
    )
    x_BAE = layers.gelu(conv(frames_BUE))
    audio_BAD = linear2(nn.relu(linear1(x_BAE)))
    token_count_B1 = lengths.adaptor_tokens(frame_count_B)[:, None]
    valid_BA = jnp.arange(audio_BAD.shape[1])[None] < token_count_B1
    return jnp.where(valid_BA[..., None], audio_BAD, jnp.zeros((), audio_BAD.dtype))
