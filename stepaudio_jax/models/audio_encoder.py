"""The audio encoder: Whisper-large-v3's tower with Qwen2-Audio's pool (25 Hz).

A clip's frames do not depend on what it is batched with: whatever lies beyond the
clip is zeroed where a convolution could reach it and hidden from attention.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Array
from stepaudio_jax.models import attention, layers
from stepaudio_jax.models.sizes import Size

_WAVELENGTHS = 10_000.0  # Whisper: periods from 2π to 10,000·2π positions


def sinusoids(positions: int, width: int) -> np.ndarray:
  """Whisper's position rows: sines in the first half, cosines in the second."""
  step = math.log(_WAVELENGTHS) / (width // 2 - 1)
  angle = np.arange(positions)[:, None] * np.exp(-step * np.arange(width // 2))[None]
  return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def before(count_B: Array, length: int) -> Array:
  """bool [B, length], True at indices below the row's count."""
  return jnp.arange(length)[None] < count_B[:, None]


def zeroed(x_BUE: Array, keep_BU: Array) -> Array:
  return jnp.where(keep_BU[..., None], x_BUE, jnp.zeros((), x_BUE.dtype))


class Attention(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BUE: Array, key_segment_BU: Array) -> Array:
    size = self.size
    features = (size.encoder_heads, size.encoder_width // size.encoder_heads)
    names = ("audio_heads", "audio_head")

    def project(name, bias):
      axes = ("audio_embed", *names)
      return layers.Linear(features, axes, self.dtype, bias=bias, name=name)(x_BUE)

    query, key, value = (
      project("query", True),
      project("key", False),  # as in Whisper: a key bias cannot change a softmax
      project("value", True),
    )
    everywhere = jnp.ones_like(key_segment_BU)
    out = attention.attend(
      query,
      attention.heads_first(key),
      attention.heads_first(value),
      everywhere,
      key_segment_BU,
      causal=False,
    )
    return layers.Linear(
      (size.encoder_width,),
      (*names, "audio_embed"),
      self.dtype,
      inputs=2,
      bias=True,
      gain=(2 * size.encoder_layers) ** -0.5,
      name="out",
    )(out)


class MLP(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BUE: Array) -> Array:
    width, names = self.size.encoder_width, ("audio_embed", "audio_mlp")
    up = layers.Linear((4 * width,), names, self.dtype, bias=True, name="up")
    down = layers.Linear(
      (width,),
      names[::-1],
      self.dtype,
      bias=True,
      gain=(2 * self.size.encoder_layers) ** -0.5,
      name="down",
    )
    return down(layers.gelu(up(x_BUE)))


class Block(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BUE: Array, key_segment_BU: Array) -> tuple[Array, None]:
    norm = layers.LayerNorm(self.dtype, name="attn_norm")
    attend = Attention(self.size, self.dtype, name="attn")
    x_BUE = x_BUE + attend(norm(x_BUE), key_segment_BU)
    norm = layers.LayerNorm(self.dtype, name="mlp_norm")
    x_BUE = x_BUE + MLP(self.size, self.dtype, name="mlp")(norm(x_BUE))
    return layers.constrain(x_BUE, "batch", None, None), None


class AudioEncoder(nn.Module):
  """Log-mel of clips of at most 29.98 s to frames at 25 Hz."""

  size: Size
  dtype: Any = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(self, mel_BLM: Array, sample_count_B: Array) -> tuple[Array, Array]:
    """Encodes clips; the mel time axis may be padded to any length ≤ 3000.

    Returns:
      (frames_BUE, frame_count_B). `frame_count_B` = floor((L + 1) / 4) counts the
      valid frames. Frames are zero from row 2·floor((frame_count + 1) / 2) on
      (`adaptor.input_rows`): where the count is odd, one frame beyond it belongs to
      the last audio token's convolution and may be non-zero, so a cache must keep it.
    """
    size, longest = self.size, 2 * self.size.audio_positions
    length, bins = mel_BLM.shape[1:]
    if length > longest or bins != size.mel_bins:
      raise ValueError(
        f"log-mel of {length} frames × {bins} bins; size {size.name!r} takes at most"
        f" {longest} frames × {size.mel_bins} bins"
      )
    valid_B = lengths.mel_frames(sample_count_B)
    heard_B = (valid_B + 1) // 2  # positions that attention may look at
    pooled_B = (heard_B + 1) // 2  # frames of the clip encoded alone
    frame_count_B = lengths.encoder_frames(sample_count_B)
    kept_B = jnp.minimum(pooled_B, 2 * lengths.adaptor_tokens(frame_count_B))

    inside_BL = before(lengths.padded_frames(sample_count_B), length)
    x_BLE = layers.constrain(self._stem(mel_BLM, inside_BL), "batch", None, None)
    blocks = layers.stacked(
      Block, depth=size.encoder_layers, remat=self.remat, scanned=(nn.broadcast,)
    )(size, self.dtype, name="blocks")
    heard_BU = before(heard_B, x_BLE.shape[1]).astype(jnp.int32)
    x_BLE, _ = blocks(x_BLE, heard_BU)

    frames_BUE = layers.LayerNorm(self.dtype, name="after_norm")(_pool(x_BLE))
    return zeroed(frames_BUE, before(kept_B, frames_BUE.shape[1])), frame_count_B

  def _stem(self, mel_BLM: Array, inside_BL: Array) -> Array:
    """Two convolutions to 50 Hz and the position rows."""
    size = self.size
    conv1 = layers.Conv(
      size.encoder_width, (None, "mel", "audio_embed"), self.dtype, name="conv1"
    )
    x_BLE = zeroed(layers.gelu(conv1(zeroed(mel_BLM, inside_BL))), inside_BL)
    conv2 = layers.Conv(
      size.encoder_width, (None, None, "audio_embed"), self.dtype, 2, name="conv2"
    )
    x_BLE = layers.gelu(conv2(x_BLE))
    positions = layers.parameter(
      self,
      "positions",
      lambda key, shape, dtype: jnp.asarray(sinusoids(*shape), dtype),
      (None, "audio_embed"),
      (size.audio_positions, size.encoder_width),
    )
    return x_BLE + positions[None, : x_BLE.shape[1]].astype(self.dtype)


def _pool(x_BLE: Array) -> Array:
  """Mean of neighbouring pairs; an odd last frame is dropped."""
  rows, length, width = x_BLE.shape
  pairs = x_BLE[:, : length // 2 * 2].reshape(rows, length // 2, 2, width)
  return pairs.astype(jnp.float32).mean(axis=2).astype(x_BLE.dtype)
