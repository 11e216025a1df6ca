"""The decoder: Qwen2 with segments in place of a mask, with and without a cache."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array
from stepaudio_jax.models import layers
from stepaudio_jax.models.sizes import Size


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values of the slots decoded so far.

  Attributes:
    k_ZBSKh, v_ZBSKh: rotated keys and values of every layer.
    segment_BS: int32, 0 in padding and in slots not used yet.
    used: int32 scalar, the next free slot, the same in all rows.
  """

  k_ZBSKh: Array
  v_ZBSKh: Array
  segment_BS: Array
  used: Array


def empty_cache(size: Size, rows: int, slots: int, dtype: Any) -> Cache:
  shape = (size.layers, rows, slots, size.kv_heads, size.head_width)
  return Cache(
    k_ZBSKh=jnp.zeros(shape, dtype),
    v_ZBSKh=jnp.zeros(shape, dtype),
    segment_BS=jnp.zeros((rows, slots), jnp.int32),
    used=jnp.zeros((), jnp.int32),
  )


def _written(cache: Cache, new: tuple[Array, Array], segment_BT: Array) -> Cache:
  zero = jnp.zeros((), jnp.int32)
  start = (zero, zero, cache.used, zero, zero)
  k_ZBTKh, v_ZBTKh = new
  return Cache(
    k_ZBSKh=lax.dynamic_update_slice(cache.k_ZBSKh, k_ZBTKh, start),
    v_ZBSKh=lax.dynamic_update_slice(cache.v_ZBSKh, v_ZBTKh, start),
    segment_BS=lax.dynamic_update_slice(
      cache.segment_BS, segment_BT.astype(jnp.int32), (zero, cache.used)
    ),
    used=cache.used + segment_BT.shape[1],
  )


class Attention(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BTD, segment_BT, rotation, past):
    size = self.size

    def project(name, heads, axis):
      return layers.Linear(
        (heads, size.head_width),
        ("embed", axis, "head"),
        self.dtype,
        bias=True,
        name=name,
      )(x_BTD)

    q_BTHh = layers.rotate(project("query", size.heads, "heads"), rotation)
    k_BTKh = layers.rotate(project("key", size.kv_heads, "kv_heads"), rotation)
    v_BTKh = project("value", size.kv_heads, "kv_heads")
    q_BTHh = layers.constrain(q_BTHh, "batch", "length", "heads", None)
    k_BTKh = layers.constrain(k_BTKh, "batch", None, "kv_heads", None)
    v_BTKh = layers.constrain(v_BTKh, "batch", None, "kv_heads", None)
    out_BTHh = layers.attend(
      q_BTHh, k_BTKh, v_BTKh, segment_BT, segment_BT, causal=True, past=past
    )
    out = layers.Linear(
      (size.width,),
      ("heads", "head", "embed"),
      self.dtype,
      inputs=2,
      gain=(2 * size.layers) ** -0.5,
      name="out",
    )
    return out(out_BTHh), (k_BTKh, v_BTKh)


class MLP(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BTD: Array) -> Array:
    size, names = self.size, ("embed", "mlp")
    gate = layers.Linear((size.ffn_width,), names, self.dtype, name="gate")
    up = layers.Linear((size.ffn_width,), names, self.dtype, name="up")
    gain = (2 * size.layers) ** -0.5
    down = layers.Linear((size.width,), names[::-1], self.dtype, gain=gain, name="down")
    x_BTF = nn.silu(gate(x_BTD)) * up(x_BTD)
    return down(layers.constrain(x_BTF, "batch", "length", "mlp"))


class Layer(nn.Module):
  """One layer; the scan hands it its own past and collects its new keys.

  `past` is None in training (nothing is collected), () in prefill, and the layer's
  (k_BSKh, v_BSKh) when extending.
  """

  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, x_BTD, past, past_segment_BS, segment_BT, rotation):
    size = self.size
    norm = layers.RMSNorm(size.norm_eps, self.dtype, name="attn_norm")
    seen = (*past, past_segment_BS) if past else None
    attention = Attention(size, self.dtype, name="attn")
    out_BTD, new = attention(norm(x_BTD), segment_BT, rotation, seen)
    x_BTD = layers.constrain(x_BTD + out_BTD, "batch", "length", "embed")
    norm = layers.RMSNorm(size.norm_eps, self.dtype, name="mlp_norm")
    x_BTD = x_BTD + MLP(size, self.dtype, name="mlp")(norm(x_BTD))
    x_BTD = layers.constrain(x_BTD, "batch", "length", "embed")
    return x_BTD, (None if past is None else new)


class Decoder(nn.Module):
  size: Size
  dtype: Any = jnp.float32
  remat: str = "none"

  def setup(self):
    size = self.size
    self.embed = Embedding(size, self.dtype)
    scanned = (0, nn.broadcast, nn.broadcast, nn.broadcast)
    self.layers = layers.stacked(
      Layer, depth=size.layers, remat=self.remat, scanned=scanned
    )(size, self.dtype)
    self.norm = layers.RMSNorm(size.norm_eps, self.dtype)
    self.head = layers.Linear(
      (size.vocabulary,), ("embed", "vocab"), self.dtype, output=jnp.float32
    )

  def __call__(self, x_BTD: Array, segment_BT: Array, position_BT: Array) -> Array:
    """Embeddings to the final norm's output; causal within each segment."""
    return self._run(x_BTD, segment_BT, position_BT, None, None)[0]

  def prefill(self, x_BTD, segment_BT, position_BT, cache: Cache):
    """The same, and the keys of an empty cache's first T slots.

    Raises:
      ValueError: the cache has fewer than T slots.
    """
    length, slots = x_BTD.shape[1], cache.segment_BS.shape[1]
    if length > slots:
      raise ValueError(f"a prompt of {length} slots for a cache of {slots}")
    x_BTD, new = self._run(x_BTD, segment_BT, position_BT, (), None)
    return x_BTD, _written(cache, new, segment_BT)

  def extend(self, x_BTD, segment_BT, position_BT, cache: Cache):
    """The same for the next T slots, which also see the cache's slots."""
    past = (cache.k_ZBSKh, cache.v_ZBSKh)
    x_BTD, new = self._run(x_BTD, segment_BT, position_BT, past, cache.segment_BS)
    return x_BTD, _written(cache, new, segment_BT)

  def branches(self, prompt, reply):
    """Prompts, and replies that go on from them; each prompt is computed once.

    Args:
      prompt: x_BTD, segment_BT and position_BT.
      reply: the same of B·Q rows, the Q replies to a prompt behind each other.

    Returns:
      x_BTD of the prompts and of the replies.
    """
    x_prompt_BTD, past = self._run(*prompt, (), None)
    x_reply_BTD, _ = self._run(*reply, past, prompt[1])
    return x_prompt_BTD, x_reply_BTD

  def logits(self, x: Array) -> Array:
    """float32 logits of the final norm's output [..., D]."""
    middle = ("length",) * (x.ndim == 3)
    return layers.constrain(self.head(x), "batch", *middle, "vocab")

  def _run(self, x_BTD, segment_BT, position_BT, past, past_segment_BS):
    size = self.size
    rotation = layers.rotations(position_BT, size.head_width, size.rope_theta)
    x_BTD = layers.constrain(x_BTD, "batch", "length", "embed")
    x_BTD, new = self.layers(x_BTD, past, past_segment_BS, segment_BT, rotation)
    return self.norm(x_BTD), new


class Embedding(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, token_BT: Array) -> Array:
    shape = (self.size.vocabulary, self.size.width)
    init = nn.initializers.normal(0.02)
    table = layers.parameter(self, "embedding", init, ("vocab", "embed"), shape)
    return jnp.take(table, token_BT, axis=0).astype(self.dtype)
