"""The parts that encoder, adaptor and decoder share.

Parameters are made float32, but may be used in bfloat16, as imports hold them. They
carry logical axis names (`PARAMETER_AXES`); activations are constrained by
`ACTIVATION_AXES`. Where no axis rules are set (flax's `logical_axis_rules`), the names
do nothing. Matrix products
run in `dtype`; statistics, rotations and softmax in float32.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

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
# What the backward pass finds again instead of computing it (names of `kept`).
_ATTENTION = ("query", "key", "value", "attention", "out")
_ALL = (*_ATTENTION, "gate", "up")
_policies = jax.checkpoint_policies
REMAT_POLICIES = {
  "full": None,  # nothing but each layer's input
  "attention": _policies.save_only_these_names(*_ATTENTION),
  "minimal": _policies.save_only_these_names(*_ALL),
  "offload": _policies.save_and_offload_only_these_names(  # in the host's memory
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[*_ATTENTION],
    offload_src="device",
    offload_dst="pinned_host",
  ),
  "dots": _policies.dots_saveable,
  "dots_no_batch": _policies.dots_with_no_batch_dims_saveable,
}

# So few layers are laid out one after another: on a CPU the loop costs a fifth more.
_UNROLLED = 8


def constrain(x: Array, *axes: str | None) -> Array:
  """Shards an activation by logical names (short names of `ACTIVATION_AXES`)."""
  return _split(x, [axis and f"activation_{axis}" for axis in axes])


def used(weight: Array, axes: Sequence[str | None], dtype: Any) -> Array:
  """A parameter as a layer uses it: in `dtype`, gathered where storage alone splits it.

  The cast comes first, so that the narrow type travels between devices.
  """
  return _split(weight.astype(dtype), [axis and f"used_{axis}" for axis in axes])


def kept(x: Array, name: str) -> Array:
  """Names an activation for `REMAT_POLICIES`."""
  return checkpoint_name(x, name)


def is_split() -> bool:
  """Whether axis rules are set: the program is one for several devices."""
  return bool(nn.get_logical_axis_rules())


def _split(x: Array, names: Sequence[str | None]) -> Array:
  return lax.with_sharding_constraint(x, spec(x, names)) if is_split() else x


def spec(x: Array, names: Sequence[str | None]) -> PartitionSpec:
  """Mesh axes that split an array, by the rules of its axes' logical names.

  An axis of length 1, such as one token of many, stays where it is.
  """
  rules = dict(nn.get_logical_axis_rules())
  lengths = zip(names, x.shape, strict=True)
  return PartitionSpec(*(rules.get(n) if length > 1 else None for n, length in lengths))


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
    if not is_split():
      # One axis of rows: XLA's CPU backend takes 1.6 times as long for the gradient of
      # a kernel over two. Where there are rules, the length may be split over devices
      # and cannot be merged with the rows.
      x = x.reshape(-1, *shape[: self.inputs])
    contracted = tuple(range(x.ndim - self.inputs, x.ndim))
    y = lax.dot_general(
      x,
      used(kernel, self.axes, self.dtype),
      ((contracted, tuple(range(self.inputs))), ((), ())),
      preferred_element_type=self.output or self.dtype,
    )
    if self.has_variable("adapters", "a"):
      y = y + self._low_rank(x).astype(y.dtype)
    y = y.reshape(*leading, *self.features)
    if self.bias:
      zeros, names = nn.initializers.zeros, self.axes[self.inputs :]
      bias = parameter(self, "bias", zeros, names, self.features)
      y = y + raised(bias, y.ndim).astype(y.dtype)
    return y

  def _low_rank(self, x: Array) -> Array:
    """x·A·B of this kernel's adapter, see models/adapters.py."""
    inputs = tuple(range(self.inputs))
    a, b = (self.get_variable("adapters", n).astype(self.dtype) for n in ("a", "b"))
    contracted = tuple(range(x.ndim - self.inputs, x.ndim))
    narrow = lax.dot_general(x, a, ((contracted, inputs), ((), ())))
    return lax.dot_general(narrow, b, (((narrow.ndim - 1,), (0,)), ((), ())))


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
      used(kernel, self.axes, self.dtype),
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
    variable_axes={"params": 0, "adapters": 0},
    split_rngs={"params": True},
    in_axes=tuple(scanned),
    length=depth,
    unroll=depth if depth <= _UNROLLED else 1,
    metadata_params={nn.PARTITION_NAME: "layers"},
  )
