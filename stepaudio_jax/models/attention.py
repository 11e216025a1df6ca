"""Attention behind one interface: segments, causality, and pasts that share a softmax.

The plain form is everywhere the same; TPU and GPU have kernels that never hold a
[T, S] matrix.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as splash_mask,
)

from stepaudio_jax.core.types import Array
from stepaudio_jax.models import layers

KERNELS = ("plain", "splash", "cudnn")
_MASKED = -1e30  # finite: a row that sees nothing stays finite too
_BLOCK = 1024  # of the TPU kernel; the longest that its memory takes pays off most
_LANES = 128


def attend(
  q_BTHh: Array,
  k_BKTh: Array,
  v_BKTh: Array,
  query_segment_BT: Array,
  key_segment_BT: Array,
  *,
  causal: bool,
  past: Sequence[tuple[Array, Array, Array]] = (),
  own_BTT: Array | None = None,
  prefix_BT: Array | None = None,
  kernel: str = "plain",
) -> Array:
  """Attention of every kind the model needs.

  A query sees the keys of its own segment, if that is above 0, and with `causal`
  only those of its own slot or earlier ones. Each of `past` is (k_BKSh, v_BKSh,
  visible_BTS) of earlier slots (`visible`); all parts share one softmax, so the past
  need not be copied to lie beside the new keys. A past of fewer rows is not repeated
  either: each of its rows serves equally many that touch.

  Args:
    own_BTT: `own_visible` of the segments, for use beside a past; None makes it here.
    prefix_BT: int32, a segment of the keys that a query sees beside its own, above 0;
      for attention without a past.
    kernel: one of `KERNELS`, for attention without a past; all give the same up to
      rounding (tests/models/test_attention.py). Beside a past it is always "plain".

  Returns:
    [B, T, H, h]; a finite, meaningless row where nothing is visible.
  """
  if kernel != "plain" and not past:
    own = (q_BTHh, k_BKTh, v_BKTh, query_segment_BT, key_segment_BT)
    seen = {"causal": causal}
    seen |= {} if prefix_BT is None else {"prefix_BT": prefix_BT}
    return {"splash": splash, "cudnn": fused}[kernel](*own, **seen)
  rows, length, _, width = q_BTHh.shape
  kv_heads = k_BKTh.shape[1]
  # The heads of a group lie behind each other: one product per key head, not many.
  q_BTKGh = (q_BTHh * (width**-0.5)).reshape(rows, length, kv_heads, -1, width)
  q_BKGTh = q_BTKGh.transpose(0, 2, 3, 1, 4)
  q_BKXh = q_BKGTh.reshape(rows, kv_heads, -1, width)
  if own_BTT is None:
    own_BTT = own_visible(
      query_segment_BT, key_segment_BT, causal=causal, prefix_BT=prefix_BT
    )
  parts = [(k_BKTh, v_BKTh, own_BTT), *past]

  def masked_scores(k_BKSh: Array, visible_BTS: Array) -> Array:
    scores_BKGTS = _scores(q_BKXh, k_BKSh).reshape(*q_BKGTh.shape[:4], -1)
    return jnp.where(visible_BTS[:, None, None], scores_BKGTS, _MASKED)

  # Divided by the sum at the end, on the narrow side of the product: its gradient then
  # needs no pass over [T, S] (FlashAttention, arXiv 2205.14135, section 3.1).
  scores = [masked_scores(k_BKSh, visible_BTS) for k_BKSh, _, visible_BTS in parts]
  tops = [part.max(axis=-1, keepdims=True) for part in scores]
  top_BKGT1 = lax.stop_gradient(functools.reduce(jnp.maximum, tops))
  total_BKGT1, out_BKXh = 0.0, 0.0
  for part, (_, v_BKSh, _) in zip(scores, parts, strict=True):
    weight_BKGTS = jnp.exp(part - top_BKGT1)
    total_BKGT1 += weight_BKGTS.sum(axis=-1, keepdims=True)
    weight_BKXS = weight_BKGTS.reshape(*q_BKXh.shape[:3], -1).astype(v_BKSh.dtype)
    out_BKXh += _mixed(weight_BKXS, v_BKSh)
  out_BKGTh = out_BKXh.reshape(q_BKGTh.shape) / total_BKGT1
  out_BTKGh = out_BKGTh.astype(q_BTHh.dtype).transpose(0, 3, 1, 2, 4)
  return out_BTKGh.reshape(q_BTHh.shape)


def _scores(q_BKXh: Array, k_BKSh: Array) -> Array:
  """float32 [B, K, X, S]; keys of fewer rows serve equally many queries each."""
  q_shared = _gathered(q_BKXh, k_BKSh.shape[0])
  scores = jnp.einsum(
    "BKXh,BKSh->BKXS", q_shared, k_BKSh, preferred_element_type=jnp.float32
  )
  return _scattered(scores, q_BKXh.shape[0])


def _mixed(weight_BKXS: Array, v_BKSh: Array) -> Array:
  """float32 [B, K, X, h]: values under the weights, see `_scores`."""
  weight_shared = _gathered(weight_BKXS, v_BKSh.shape[0])
  mixed = jnp.einsum(
    "BKXS,BKSh->BKXh", weight_shared, v_BKSh, preferred_element_type=jnp.float32
  )
  return _scattered(mixed, weight_BKXS.shape[0])


def _gathered(x_BKXh: Array, keys: int) -> Array:
  """[keys, K, R·X, h]: the queries of the R rows that share a row of keys together."""
  rows, kv_heads, queries, width = x_BKXh.shape
  if keys == rows:
    return x_BKXh
  x_BRKXh = x_BKXh.reshape(keys, -1, kv_heads, queries, width)
  return x_BRKXh.transpose(0, 2, 1, 3, 4).reshape(keys, kv_heads, -1, width)


def _scattered(x_BKXh: Array, rows: int) -> Array:
  """The reverse of `_gathered`, to `rows` rows."""
  keys, kv_heads, _, width = x_BKXh.shape
  if keys == rows:
    return x_BKXh
  x_BKRXh = x_BKXh.reshape(keys, kv_heads, rows // keys, -1, width)
  return x_BKRXh.transpose(0, 2, 1, 3, 4).reshape(rows, kv_heads, -1, width)


def fused(
  q_BTHh: Array,
  k_BKTh: Array,
  v_BKTh: Array,
  query_segment_BT: Array,
  key_segment_BT: Array,
  *,
  causal: bool,
  prefix_BT: Array | None = None,
  implementation: str = "cudnn",
) -> Array:
  """`attend` without a past by jax.nn's fused attention, cuDNN's on a GPU.

  Args:
    implementation: "xla" runs anywhere, for comparison.
  """
  visible_BTS = _seen(query_segment_BT, key_segment_BT, prefix_BT)
  k_BTKh, v_BTKh = heads_first(k_BKTh), heads_first(v_BKTh)  # their own inverse
  return jax.nn.dot_product_attention(
    q_BTHh,
    k_BTKh,
    v_BTKh,
    mask=visible_BTS[:, None],
    is_causal=causal,
    implementation=implementation,
  )


def splash(
  q_BTHh: Array,
  k_BKTh: Array,
  v_BKTh: Array,
  query_segment_BT: Array,
  key_segment_BT: Array,
  *,
  causal: bool,
  interpret: bool = False,
) -> Array:
  """`attend` without a past by the TPU kernel that skips what a mask hides.

  Rows and heads go where the axis rules put them. A length that is split over devices
  is split for the queries; keys and values are then gathered.

  Args:
    interpret: run the kernel as plain operations, on any device.
  """
  length = q_BTHh.shape[1]
  padding = -length % _LANES

  def padded(x: Array, axis: int) -> Array:
    return jnp.pad(x, [(0, padding * (axis == a)) for a in range(x.ndim)])

  q_BHTh = padded(heads_first(q_BTHh * (q_BTHh.shape[-1] ** -0.5)), 2)
  operands = (q_BHTh, padded(k_BKTh, 2), padded(v_BKTh, 2))
  # Padding is a segment, but no query that counts is of it.
  operands += (padded(query_segment_BT, 1), padded(key_segment_BT, 1))
  out_BHTh = _splash_split(operands, causal=causal, interpret=interpret)
  return heads_first(out_BHTh)[:, :length]


def _splash_split(operands: Sequence[Array], *, causal: bool, interpret: bool) -> Array:
  """The kernel on each device's own rows, heads and queries."""
  q_BHTh, k_BKTh = operands[:2]
  names = ("activation_batch", "activation_heads", "activation_length", None)
  keys = ("activation_batch", "activation_kv_heads", None, None)
  q_spec, k_spec = layers.spec(q_BHTh, names), layers.spec(k_BKTh, keys)
  shards = _shards(q_spec) if layers.is_split() else (1, 1, 1, 1)
  kernel = _kernel(
    q_BHTh.shape[1], q_BHTh.shape[2], shards[1], shards[2], causal, interpret
  )
  if not layers.is_split():
    return _by_row(kernel, *operands)
  segment = (q_spec[0], q_spec[2])
  rows = (jax.P(*segment), jax.P(q_spec[0], None))
  lies = jax.NamedSharding(jax.sharding.get_abstract_mesh(), jax.P(*q_spec[1:3]))
  return jax.shard_map(
    _by_row,
    in_specs=(kernel.manual_sharding_spec(lies), q_spec, k_spec, k_spec, *rows),
    out_specs=q_spec,
    check_vma=False,
  )(kernel, *operands)


def _shards(spec: jax.P) -> tuple[int, ...]:
  """Devices that split each axis."""
  lengths = jax.sharding.get_abstract_mesh().shape

  def devices(entry: object) -> int:
    axes = () if entry is None else (entry,) if isinstance(entry, str) else entry
    out = 1
    for axis in axes:
      out *= lengths[axis]
    return out

  return tuple(devices(entry) for entry in spec)


def _by_row(kernel, q_BHTh, k_BKSh, v_BKSh, query_segment_BT, key_segment_BS):
  segments = splash_kernel.SegmentIds(query_segment_BT, key_segment_BS)
  return jax.vmap(kernel)(q_BHTh, k_BKSh, v_BKSh, segments)


@functools.lru_cache(maxsize=16)
def _kernel(
  heads: int,
  length: int,
  head_shards: int,
  length_shards: int,
  causal: bool,
  interpret: bool,
):
  square = (length, length)
  one = splash_mask.CausalMask(square) if causal else splash_mask.FullMask(square)
  block = _block(length // length_shards)
  whole = _block(length)
  sizes = splash_kernel.BlockSizes(
    block_q=block,
    block_kv=whole,
    block_kv_compute=whole,
    block_q_dkv=block,
    block_kv_dkv=whole,
    block_kv_dkv_compute=whole,
    block_q_dq=block,
    block_kv_dq=whole,
  )
  with jax.ensure_compile_time_eval():
    return splash_kernel.make_splash_mha(
      splash_mask.MultiHeadMask([one] * heads),
      head_shards=head_shards,
      q_seq_shards=length_shards,
      block_sizes=sizes,
      residual_checkpoint_name="attention",
      interpret=interpret,
    )


def _block(length: int) -> int:
  """The largest multiple of 128 up to `_BLOCK` that divides a length.

  Raises:
    ValueError: there is none.
  """
  fits = [b for b in range(_LANES, _BLOCK + 1, _LANES) if length % b == 0]
  if not fits:
    raise ValueError(
      f"{length} positions on a device are no multiple of {_LANES}: choose max_tokens "
      "and mesh.context so that they are"
    )
  return fits[-1]


def heads_first(x_BTKh: Array) -> Array:
  """[B, K, T, h]: keys and values as `attend` and caches hold them."""
  return x_BTKh.transpose(0, 2, 1, 3)


def same_segment(query_BT: Array, key_BS: Array) -> Array:
  """bool [B, T, S]: both in one segment, and not in padding."""
  return (query_BT[:, :, None] == key_BS[:, None]) & (key_BS > 0)[:, None]


def _seen(query_BT: Array, key_BS: Array, prefix_BT: Array | None) -> Array:
  """bool [B, T, S]: the key is of the query's segment, or of its prefix."""
  seen_BTS = same_segment(query_BT, key_BS)
  if prefix_BT is not None:
    seen_BTS |= same_segment(prefix_BT, key_BS)
  return seen_BTS


def own_visible(
  query_BT: Array, key_BT: Array, *, causal: bool, prefix_BT: Array | None = None
) -> Array:
  """bool [B, T, T] of the new keys."""
  own_BTT = _seen(query_BT, key_BT, prefix_BT)
  if causal:
    own_BTT &= jnp.tril(jnp.ones((1, *own_BTT.shape[1:]), bool))
  return own_BTT


def visible(query_segment_BT: Array, past_segment_BS: Array) -> Array:
  """bool [B, T, S] of a past, whose rows may be fewer; the same in every layer."""
  rows = query_segment_BT.shape[0] // past_segment_BS.shape[0]
  return same_segment(query_segment_BT, jnp.repeat(past_segment_BS, rows, axis=0))
