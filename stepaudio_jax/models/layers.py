"""The parts that encoder, adaptor and decoder share.

Parameters are made float32, but may be used in bfloat16, as imports hold them. They
carry logical axis names (`PARAMETER_AXES`); activations are constrained by
`ACTIVATION_AXES`. Without a mesh and axis rules the names do nothing. Matrix products
run in `dtype`; statistics, rotations and softmax in float32.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array

PARAMETER_AXES = (
  "layers",
  "vocab",
  "embed",
  "heads",
  "kv_heads",
  "head",
  "mlp",
  "mel",
  "audio_embed",
  "audio_heads",
  "audio_head",
  "audio_mlp",
  "adaptor",
  "norm",
  "reward",
)
ACTIVATION_AXES = (
  "activation_batch",
  "activation_length",
  "activation_embed",
  "activation_heads",
  "activation_kv_heads",
  "activation_mlp",
  "activation_vocab",
)
REMAT_POLICIES = {
  "full": None,  # keep nothing but each layer's input
  "dots": jax.checkpoint_policies.dots_saveable,
  "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}

# So few layers are laid out one after another: on a CPU the loop costs a fifth more.
_UNROLLED = 4
_MASKED = -1e30  # finite: a row that sees nothing stays finite too


def constrain(x: Array, *axes: str | None) -> Array:
  """Shards an activation by logical names (short names of `ACTIVATION_AXES`)."""
  names = tuple(axis and f"activation_{axis}" for axis in axes)
  return nn.with_logical_constraint(x, names)


def raised(x: Array, ndim: int) -> Array:
  """`x` with leading axes of 1, since rank promotion is an error in tests."""
  return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def float32(x: Array, ndim: int) -> Array:
  """`raised`, and in float32 where a checkpoint of bfloat16 is used as it is."""
  return raised(x, ndim).astype(jnp.float32)


def fan_in(gain: float, inputs: int) -> Callable[..., Array]:
  """Truncated normal of std gain / √(product of the first `inputs` dimensions)."""

  def init(key, shape, dtype=jnp.float32):
    std = gain / math.sqrt(math.prod(shape[:inputs]))
    std /= 0.87962566  # what cutting a normal at two deviations leaves of its own
    return nn.initializers.truncated_normal(std)(key, shape, dtype)

  return init


def parameter(module: nn.Module, name: str, init, axes, shape) -> Array:
  boxed = nn.with_logical_partitioning(init, axes)
  return module.param(name, boxed, shape, jnp.float32)


class Linear(nn.Module):
  """Contracts the last `inputs` axes of x with a kernel [*inputs, *features].

  Attributes:
    features: widths of the new axes.
    axes: logical names of the kernel's axes, the contracted ones first.
    gain: initial output std for inputs of variance 1.
    output: dtype of the result; None is `dtype`.
  """

  features: tuple[int, ...]
  axes: tuple[str | None, ...]
  dtype: Any
  inputs: int = 1
  bias: bool = False
  gain: float = 1.0
  output: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (*x.shape[x.ndim - self.inputs :], *self.features)
    init = fan_in(self.gain, self.inputs)
    kernel = parameter(self, "kernel", init, self.axes, shape)
    x, leading = x.astype(self.dtype), x.shape[: x.ndim - self.inputs]
    if not nn.get_logical_axis_rules():
      # One axis of rows: XLA's CPU backend takes 1.6 times as long for the gradient of
      # a kernel over two. Where there are rules, the length may be split over devices
      # and cannot be merged with the rows.
      x = x.reshape(-1, *shape[: self.inputs])
    contracted = tuple(range(x.ndim - self.inputs, x.ndim))
    y = lax.dot_general(
      x,
      kernel.astype(self.dtype),
      ((contracted, tuple(range(self.inputs))), ((), ())),
      preferred_element_type=self.output or self.dtype,
    ).reshape(*leading, *self.features)
    if self.bias:
      zeros, names = nn.initializers.zeros, self.axes[self.inputs :]
      bias = parameter(self, "bias", zeros, names, self.features)
      y = y + raised(bias, y.ndim).astype(y.dtype)
    return y


class Conv(nn.Module):
  """Convolution over time: width 3, one frame of zeros on either side."""

  features: int
  axes: tuple[str | None, ...]
  dtype: Any
  stride: int = 1

  @nn.compact
  def __call__(self, x_BLE: Array) -> Array:
    shape = (3, x_BLE.shape[-1], self.features)
    kernel = parameter(self, "kernel", fan_in(1.0, 2), self.axes, shape)
    zeros = nn.initializers.zeros
    bias = parameter(self, "bias", zeros, self.axes[-1:], (self.features,))
    y_BLE = lax.conv_general_dilated(
      x_BLE.astype(self.dtype),
      kernel.astype(self.dtype),
      window_strides=(self.stride,),
      padding=((1, 1),),
      dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y_BLE + raised(bias, 3).astype(self.dtype)


class RMSNorm(nn.Module):
  epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = parameter(self, "scale", nn.initializers.ones, ("norm",), x.shape[-1:])
    x = x.astype(jnp.float32)
    x = x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * float32(scale, x.ndim)).astype(self.dtype)


class LayerNorm(nn.Module):
  dtype: Any
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = parameter(self, "scale", nn.initializers.ones, ("norm",), x.shape[-1:])
    bias = parameter(self, "bias", nn.initializers.zeros, ("norm",), x.shape[-1:])
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    x = x * float32(scale, x.ndim) + float32(bias, x.ndim)
    return x.astype(self.dtype)


def gelu(x: Array) -> Array:
  """x·Φ(x), not the tanh approximation; by erf, which costs less than jax's erfc."""
  half, scale = jnp.asarray(0.5, x.dtype), jnp.asarray(0.5**0.5, x.dtype)
  return x * (half + half * lax.erf(x * scale))


def rotations(position_BT: Array, head_width: int, theta: float) -> tuple[Array, Array]:
  """Cosines and sines [B, T, 1, h/2] in float32 (RoPE, arXiv 2104.09864)."""
  exponent = jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width
  angle = position_BT[..., None].astype(jnp.float32) * raised(theta**-exponent, 3)
  return jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]


def rotate(x_BTHh: Array, rotation: tuple[Array, Array]) -> Array:
  """Rotates the pairs (i, i + h/2): Qwen's and LLaMA-HF's half-split layout."""
  cos, sin = rotation
  first, second = jnp.split(x_BTHh.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x_BTHh.dtype)


def attend(
  q_BTHh: Array,
  k_BKTh: Array,
  v_BKTh: Array,
  query_segment_BT: Array,
  key_segment_BT: Array,
  *,
  causal: bool,
  past: Sequence[tuple[Array, Array, Array]] = (),
) -> Array:
  """Attention of every kind the model needs; the one place to put a fast kernel.

  A query sees the keys of its own segment, if that is above 0, and with `causal`
  only those of its own slot or earlier ones. Each of `past` is (k_BKSh, v_BKSh,
  segment_BS) of earlier slots, all of them visible by segment alone; all parts share
  one softmax, so the past need not be copied to lie beside the new keys. A past of
  fewer rows is not repeated either: each of its rows serves equally many that touch.

  Returns:
    [B, T, H, h]; a finite, meaningless row where nothing is visible.
  """
  rows, length, _, width = q_BTHh.shape
  kv_heads = k_BKTh.shape[1]
  # The heads of a group lie behind each other: one product per key head, not many.
  q_BTKGh = (q_BTHh * (width**-0.5)).reshape(rows, length, kv_heads, -1, width)
  q_BKGTh = q_BTKGh.transpose(0, 2, 3, 1, 4)
  q_BKXh = q_BKGTh.reshape(rows, kv_heads, -1, width)
  visible = same_segment(query_segment_BT, key_segment_BT)
  if causal:
    visible &= jnp.tril(jnp.ones((1, length, length), bool))
  parts = [(k_BKTh, v_BKTh, visible)]
  for k_BKSh, v_BKSh, segment_BS in past:
    own_BS = jnp.repeat(segment_BS, rows // segment_BS.shape[0], axis=0)
    parts.append((k_BKSh, v_BKSh, same_segment(query_segment_BT, own_BS)))

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


def heads_first(x_BTKh: Array) -> Array:
  """[B, K, T, h]: keys and values as `attend` and caches hold them."""
  return x_BTKh.transpose(0, 2, 1, 3)


def same_segment(query_BT: Array, key_BS: Array) -> Array:
  """bool [B, T, S]: both in one segment, and not in padding."""
  return (query_BT[:, :, None] == key_BS[:, None]) & (key_BS > 0)[:, None]


def stacked(
  layer: type[nn.Module], *, depth: int, remat: str, scanned: Sequence[Any]
) -> Any:
  """The module class `layer` repeated `depth` times by a scan over its parameters.

  Args:
    remat: "none" or a name of `REMAT_POLICIES`.
    scanned: for every argument after the carry, 0 (its leading axis is the layer)
      or `nn.broadcast`.
  """
  if remat != "none":
    if remat not in REMAT_POLICIES:
      choices = ["none", *REMAT_POLICIES]
      raise ValueError(f"unknown remat {remat!r}; the choices are {choices}")
    layer = nn.remat(layer, policy=REMAT_POLICIES[remat], prevent_cse=False)
  return nn.scan(
    layer,
    variable_axes={"params": 0},
    split_rngs={"params": True},
    in_axes=tuple(scanned),
    length=depth,
    unroll=depth if depth <= _UNROLLED else 1,
    metadata_params={nn.PARTITION_NAME: "layers"},
  )
