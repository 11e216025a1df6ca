"""Attention behind one interface: segments, causality, and pasts that share a softmax.

The plain form is everywhere the same; TPU and GPU have kernels that never hold a
[T, S] matrix.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array
from stepaudio_jax.models.splash import splash

KERNELS = ("plain", "splash", "cudnn")
_MASKED = -1e30  # finite: a row that sees nothing stays finite too
_BLOCK = 1024  # queries at a time where a [T, S] matrix must not exist


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
    if prefix_BT is None:
      return {"splash": splash, "cudnn": fused}[kernel](*own, causal=causal)
    by_blocks = {"splash": _in_blocks, "cudnn": fused}[kernel]
    return by_blocks(*own, causal=causal, prefix_BT=prefix_BT)
  if own_BTT is None:
    own_BTT = own_visible(
      query_segment_BT, key_segment_BT, causal=causal, prefix_BT=prefix_BT
    )
  return shared(q_BTHh, [(k_BKTh, v_BKTh, own_BTT), *past])


def shared(
  q_BTHh: Array, parts: Sequence[tuple[Array, Array, Array]], turned: bool = False
) -> Array:
  """One softmax over the visible keys of all parts (k_BKSh, v_BKSh, visible_BTS).

  Args:
    turned: keys are k_BKhS.
  """
  rows, length, _, width = q_BTHh.shape
  kv_heads = parts[0][0].shape[1]
  # The heads of a group lie behind each other: one product per key head, not many.
  q_BTKGh = (q_BTHh * (width**-0.5)).reshape(rows, length, kv_heads, -1, width)
  q_BKGTh = q_BTKGh.transpose(0, 2, 3, 1, 4)
  q_BKXh = q_BKGTh.reshape(rows, kv_heads, -1, width)

  def masked_scores(k_BKSh: Array, visible_BTS: Array) -> Array:
    scores_BKGTS = _scores(q_BKXh, k_BKSh, turned).reshape(*q_BKGTh.shape[:4], -1)
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


def _scores(q_BKXh: Array, k_BKSh: Array, turned: bool) -> Array:
  """float32 [B, K, X, S]; keys of fewer rows serve equally many queries each."""
  q_shared = _gathered(q_BKXh, k_BKSh.shape[0])
  product = "BKXh,BKhS->BKXS" if turned else "BKXh,BKSh->BKXS"
  scores = jnp.einsum(product, q_shared, k_BKSh, preferred_element_type=jnp.float32)
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


def _in_blocks(
  q_BTHh: Array,
  k_BKSh: Array,
  v_BKSh: Array,
  query_segment_BT: Array,
  key_segment_BS: Array,
  *,
  causal: bool,
  prefix_BT: Array,
  block: int = _BLOCK,
) -> Array:
  """The plain form for a block of queries after the other: no [T, S] matrix is whole.

  What the TPU kernel, whose segments are either equal or not, cannot do.
  """
  length = q_BTHh.shape[1]
  block = min(block, length)
  slot_1T = jnp.arange(length, dtype=jnp.int32)[None]
  slot_1S = jnp.arange(key_segment_BS.shape[1], dtype=jnp.int32)[None]

  def cut(x_BT: Array) -> Array:
    padding = [(0, 0), (0, -length % block)] + [(0, 0)] * (x_BT.ndim - 2)
    x_BT = jnp.pad(x_BT, padding)
    return jnp.moveaxis(x_BT.reshape(len(x_BT), -1, block, *x_BT.shape[2:]), 1, 0)

  @jax.checkpoint
  def one(some: tuple[Array, ...]) -> Array:
    q_BTHh, segment_BT, prefix_BT, slot_1T = some
    visible_BTS = _seen(segment_BT, key_segment_BS, prefix_BT)
    if causal:
      visible_BTS &= slot_1T[:, :, None] >= slot_1S[:, None]
    return shared(q_BTHh, [(k_BKSh, v_BKSh, visible_BTS)])

  queries = (q_BTHh, query_segment_BT, prefix_BT, slot_1T)
  out_XBTHh = lax.map(one, tuple(map(cut, queries)))
  out_BTHh = jnp.moveaxis(out_XBTHh, 0, 1)
  return out_BTHh.reshape(len(q_BTHh), -1, *q_BTHh.shape[2:])[:, :length]


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
