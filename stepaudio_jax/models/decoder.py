"""The decoder: Qwen2 with segments in place of a mask, with and without a cache."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import attention, layers, vocabulary
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.vocabulary import TokenScores

_CACHE_AXES = (None, "batch", "kv_heads", None, None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values of the slots decoded so far.

  Attributes:
    k_ZBKSh, v_ZBKSh: rotated keys and values of every layer; of a model whose layers
      are apart a tuple of them, [B, K, S, h].
    segment_BS: int32, 0 in padding and in slots not used yet.
    used: int32 scalar, the next free slot, the same in all rows.
    turned: keys are [B, K, h, S], see turned.py; not an array.
  """

  k_ZBKSh: Array | tuple[Array, ...]
  v_ZBKSh: Array | tuple[Array, ...]
  segment_BS: Array
  used: Array
  turned: bool = dataclasses.field(default=False, metadata={"static": True})


def empty_cache(
  size: Size,
  rows: int,
  slots: int,
  dtype: Any,
  apart: bool = False,
  turned: bool = False,
) -> Cache:
  shape = (rows, size.kv_heads, slots, size.head_width)
  if apart:
    zeros = tuple(jnp.zeros(shape, dtype) for _ in range(size.layers))
  else:
    zeros = layers.constrain(jnp.zeros((size.layers, *shape), dtype), *_CACHE_AXES)
  return Cache(
    k_ZBKSh=tuple(zero.swapaxes(-1, -2) for zero in zeros) if turned else zeros,
    v_ZBKSh=zeros,
    segment_BS=jnp.zeros((rows, slots), jnp.int32),
    used=jnp.zeros((), jnp.int32),
    turned=turned,
  )


def appended(cache: Cache, new: Cache) -> Cache:
  """`cache` with all slots of `new`, used or not, written to its next ones."""

  def written(old: Array, new: Array, axis: int) -> Array:
    return lax.dynamic_update_slice_in_dim(old, new, cache.used, axis=axis)

  keys = functools.partial(written, axis=-1 if cache.turned else -2)
  values = functools.partial(written, axis=-2)
  return Cache(
    k_ZBKSh=jax.tree.map(keys, cache.k_ZBKSh, new.k_ZBKSh),
    v_ZBKSh=jax.tree.map(values, cache.v_ZBKSh, new.v_ZBKSh),
    segment_BS=written(cache.segment_BS, new.segment_BS, axis=1),
    used=cache.used + new.used,
    turned=cache.turned,
  )


def apart(decoder: Params) -> Params:
  """A decoder's parameters for `Decoder.apart`: layers_0, layers_1, … one by one."""
  rest = {name: part for name, part in decoder.items() if name != "layers"}
  depth = len(jax.tree.leaves(decoder["layers"])[0])
  each = [jax.tree.map(lambda x, z=z: x[z], decoder["layers"]) for z in range(depth)]
  return rest | {f"layers_{z}": layer for z, layer in enumerate(each)}


class Attention(nn.Module):
  size: Size
  dtype: Any
  kernel: str

  @nn.compact
  def __call__(self, x_BTD, segments, rotation, past, own_BTT):
    size, (segment_BT, prefix_BT) = self.size, segments

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
    q_BTHh = layers.kept(q_BTHh, "query")
    k_BKTh = attention.heads_first(layers.kept(k_BTKh, "key"))
    v_BKTh = attention.heads_first(layers.kept(v_BTKh, "value"))
    out_BTHh = attention.attend(
      q_BTHh,
      k_BKTh,
      v_BKTh,
      segment_BT,
      segment_BT,
      causal=True,
      past=past,
      own_BTT=own_BTT,
      prefix_BT=prefix_BT,
      kernel=self.kernel,
    )
    out_BTHh = layers.kept(out_BTHh, "attention")
    out = layers.Linear(
      (size.width,),
      ("heads", "head", "embed"),
      self.dtype,
      inputs=2,
      gain=(2 * size.layers) ** -0.5,
      name="out",
    )
    return layers.kept(out(out_BTHh), "out"), (k_BKTh, v_BKTh)


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
    x_BTF = nn.silu(layers.kept(gate(x_BTD), "gate")) * layers.kept(up(x_BTD), "up")
    return down(layers.constrain(x_BTF, "batch", "length", "mlp"))


class Layer(nn.Module):
  """One layer; the scan hands it its own past and collects its new keys.

  `past` is None in training (nothing is collected), and otherwise a (k_BKSh, v_BKSh)
  of this layer for every cache that it sees: none in prefill. `masks` are those of the
  pasts and of the new keys, the same in all layers; without a past there are none.
  `segments` are segment_BT and prefix_BT, see attention.attend.
  """

  size: Size
  dtype: Any
  kernel: str

  @nn.compact
  def __call__(self, x_BTD, past, masks, segments, rotation):
    size = self.size
    norm = layers.RMSNorm(size.norm_eps, self.dtype, name="attn_norm")
    *past_visible, own_BTT = masks or (None,)
    seen = [
      (*keys, visible_BTS)
      for keys, visible_BTS in zip(past or (), past_visible, strict=True)
    ]
    attend = Attention(size, self.dtype, self.kernel, name="attn")
    out_BTD, new = attend(norm(x_BTD), segments, rotation, seen, own_BTT)
    x_BTD = layers.constrain(x_BTD + out_BTD, "batch", "length", "embed")
    norm = layers.RMSNorm(size.norm_eps, self.dtype, name="mlp_norm")
    x_BTD = x_BTD + MLP(size, self.dtype, name="mlp")(norm(x_BTD))
    x_BTD = layers.constrain(x_BTD, "batch", "length", "embed")
    return x_BTD, (None if past is None else new)


class Decoder(nn.Module):
  """Embedding, layers, final norm and head.

  Attributes:
    apart: the layers have parameters and caches of their own (`apart`), for decoding
      where a slice of what is stacked is a copy. Without a gradient.
  """

  size: Size
  dtype: Any = jnp.float32
  remat: str = "none"
  head_chunks: int = 1
  kernel: str = "plain"
  apart: bool = False

  def setup(self):
    size = self.size
    self.embed = Embedding(size, self.dtype)
    own = (size, self.dtype, self.kernel)
    if self.apart:
      self.layers = [Layer(*own) for _ in range(size.layers)]
    else:
      scanned = (0, nn.broadcast, nn.broadcast, nn.broadcast)
      self.layers = layers.stacked(
        Layer, depth=size.layers, remat=self.remat, scanned=scanned
      )(*own)
    self.norm = layers.RMSNorm(size.norm_eps, self.dtype)
    self.head = layers.Linear(
      (size.vocabulary,), ("embed", "vocab"), self.dtype, output=jnp.float32
    )

  def __call__(
    self,
    x_BTD: Array,
    segment_BT: Array,
    position_BT: Array,
    prefix_BT: Array | None = None,
  ) -> Array:
    """Embeddings to the final norm's output; causal within each segment.

    Args:
      prefix_BT: another segment that a position sees, see attention.attend.
    """
    return self._run(x_BTD, segment_BT, position_BT, None, prefix_BT)[0]

  def prefill(self, x_BTD, segment_BT, position_BT) -> tuple[Array, Cache]:
    """The same, and a full cache of the T slots."""
    return self._run(x_BTD, segment_BT, position_BT, ())

  def extend(
    self, x_BTD, segment_BT, position_BT, cache: Cache, before: Sequence[Cache] = ()
  ) -> tuple[Array, Cache]:
    """The same for the next T slots, which also see what `cache` holds; fills it on.

    Args:
      before: caches to be seen and left as they are, such as the prompts'. One of
        fewer rows is shared: each of its rows serves equally many that touch.
    """
    x_BTD, new = self._run(x_BTD, segment_BT, position_BT, (*before, cache))
    return x_BTD, appended(cache, new)

  def branches(self, prompt, reply):
    """Prompts, and replies that go on from them; each prompt is computed once.

    Args:
      prompt: x_BTD, segment_BT and position_BT.
      reply: the same of B·Q rows, the Q replies to a prompt behind each other.

    Returns:
      x_BTD of the prompts and of the replies.
    """
    x_prompt_BTD, cache = self.prefill(*prompt)
    x_reply_BTD, _ = self._run(*reply, (cache,))
    return x_prompt_BTD, x_reply_BTD

  def logits(self, x: Array) -> Array:
    """float32 logits of the final norm's output [..., D]."""
    middle = ("length",) * (x.ndim == 3)
    return layers.constrain(self.head(x), "batch", *middle, "vocab")

  def judged(self, x_BTD: Array, token_BT: Array, temperature: Any) -> TokenScores:
    """Scores of tokens under the logits of the final norm's output at each."""
    kernel = self.head.variables["params"]["kernel"]
    kernel_DV = layers.used(kernel, ("embed", "vocab"), self.dtype)
    return vocabulary.judged(
      x_BTD.astype(self.dtype), kernel_DV, token_BT, temperature, self.head_chunks
    )

  def _run(
    self,
    x_BTD,
    segment_BT,
    position_BT,
    caches: Sequence[Cache] | None,
    prefix_BT=None,
  ):
    """(x_BTD, a cache of these slots), the latter None where `caches` is."""
    size = self.size
    rotation = layers.rotations(position_BT, size.head_width, size.rope_theta)
    x_BTD = layers.constrain(x_BTD, "batch", "length", "embed")
    seen = caches or ()
    past = None if caches is None else tuple((c.k_ZBKSh, c.v_ZBKSh) for c in seen)
    masks = tuple(attention.visible(segment_BT, c.segment_BS) for c in seen)
    if masks:
      masks += (attention.own_visible(segment_BT, segment_BT, causal=True),)
    through = self._one_by_one if self.apart else self.layers
    x_BTD, new = through(x_BTD, past, masks, (segment_BT, prefix_BT), rotation)
    if new is not None:
      used = jnp.asarray(x_BTD.shape[1], jnp.int32)
      if not self.apart:
        new = tuple(layers.constrain(x, *_CACHE_AXES) for x in new)
      new = Cache(*new, segment_BT.astype(jnp.int32), used)
    return self.norm(x_BTD), new

  def _one_by_one(self, x_BTD, past, *seen):
    """What the scan over layers does, and keys and values as tuples."""
    new = []
    for z, layer in enumerate(self.layers):
      own = None if past is None else tuple((k[z], v[z]) for k, v in past)
      x_BTD, keys = layer(x_BTD, own, *seen)
      new.append(keys)
    return x_BTD, (None if past is None else tuple(zip(*new, strict=True)))


class Embedding(nn.Module):
  size: Size
  dtype: Any

  @nn.compact
  def __call__(self, token_BT: Array) -> Array:
    shape = (self.size.vocabulary, self.size.width)
    init = nn.initializers.normal(0.02)
    names = ("vocab", "embed")
    table = layers.parameter(self, "embedding", init, names, shape)
    # Cast first where rows travel between devices; elsewhere only what is taken.
    used = layers.used(table, names, self.dtype) if layers.is_split() else table
    return jnp.take(used, token_BT, axis=0).astype(self.dtype)
