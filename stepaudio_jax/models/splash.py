"""The TPU's attention kernel on the decoder's rows: splash attention by Pallas."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_mask as splash_mask,
)

from stepaudio_jax.core.types import Array
from stepaudio_jax.models import layers

_BLOCK = 1024  # the longest that the kernel's memory takes pays off most
_LANES = 128


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

  q_BHTh = padded(_swapped(q_BTHh * (q_BTHh.shape[-1] ** -0.5)), 2)
  operands = (q_BHTh, padded(k_BKTh, 2), padded(v_BKTh, 2))
  # Padding is a segment, but no query that counts is of it.
  operands += (padded(query_segment_BT, 1), padded(key_segment_BT, 1))
  out_BHTh = _splash_split(operands, causal=causal, interpret=interpret)
  return _swapped(out_BHTh)[:, :length]


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


def _swapped(x: Array) -> Array:
  """[B, T, H, h] of [B, H, T, h], and the reverse."""
  return x.transpose(0, 2, 1, 3)
