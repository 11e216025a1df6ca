"""Decoding on a CPU: a token of every row at a time, the rows as columns.

XLA's CPU backend multiplies a large matrix by a few columns a sixth faster than a few
rows by the matrix. So the weights of a rollout are turned once, [out, in], and what
lies between two products is [D, B]. Keys are cached [h, S], as their product with a
query wants them, angles are looked up, and a token's own key is among those of its
block: fewer and faster products for each token than `Decoder.extend`, of the same
model (tests/models/test_turned.py).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Batch, Params
from stepaudio_jax.models import attention, layers
from stepaudio_jax.models.decoder import Cache
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import StepAudio

_Keys = tuple[Array, Array]  # (k_BKhS, v_BKSh) of a layer


class Turned(nn.Module):
  """What sampling asks of a StepAudio, in float32.

  Its parameters are those of `plain` and `turned`, made by `weights`.
  """

  plain: StepAudio
  apart: ClassVar[bool] = True
  turned: ClassVar[bool] = True

  @property
  def size(self) -> Size:
    return self.plain.size

  @property
  def dtype(self):
    return self.plain.dtype

  def prefill(self, batch: Batch) -> tuple[Array, Cache]:
    """StepAudio.prefill; the cache is turned."""
    x_BTD, cache = self.plain.prefill(batch)
    k_ZBKhS = tuple(k_BKSh.swapaxes(-1, -2) for k_BKSh in cache.k_ZBKSh)
    told = (cache.segment_BS, cache.used)
    return x_BTD, Cache(k_ZBKhS, tuple(cache.v_ZBKSh), *told, turned=True)

  def extend(
    self,
    token_B1: Array,
    position_B1: Array,
    segment_B1: Array,
    cache: Cache,
    before: Sequence[Cache] = (),
  ) -> tuple[Array, Cache]:
    """StepAudio.extend by one token a row."""
    held, place = self.variables["params"]["turned"], cache.used
    rotation = tuple(
      jnp.take(x, position_B1, axis=0, mode="clip") for x in held["rotation"]
    )
    segment_BS = lax.dynamic_update_slice_in_dim(
      cache.segment_BS, segment_B1, place, axis=1
    )
    caches = (*before, dataclasses.replace(cache, segment_BS=segment_BS))
    masks = [attention.visible(segment_B1, c.segment_BS) for c in caches]
    x_DB, new = self.plain.decoder.embed(token_B1)[:, 0].T, []
    for z, layer in enumerate(held["layers"]):
      *past, own = [(c.k_ZBKSh[z], c.v_ZBKSh[z]) for c in caches]
      x_DB, keys = _layer(layer, x_DB, past, own, masks, rotation, place, self.size)
      new.append(keys)
    x_B1D = _normed(x_DB, held["norm"], self.size).T[:, None]
    k_Z, v_Z = zip(*new, strict=True)
    return x_B1D, Cache(k_Z, v_Z, segment_BS, place + 1, turned=True)

  def logits(self, x_BD: Array) -> Array:
    """float32 logits_BV."""
    logits_VB = _left(self.variables["params"]["turned"]["head"], x_BD)
    # Or XLA would turn the product round again.
    return lax.optimization_barrier(logits_VB).T


def weights(decoder: Params, size: Size, positions: int) -> Params:
  """A decoder's parameters as `Turned` reads them, in float32.

  Args:
    positions: as many as prompts and replies can have.
  """
  decoder = jax.tree.map(lambda x: x.astype(jnp.float32), decoder)
  stacked = decoder["layers"]
  attn, mlp = stacked["attn"], stacked["mlp"]
  projected = [attn[name] for name in ("query", "key", "value")]
  # The stack is turned whole: one pass over the weights.
  whole = lax.optimization_barrier(
    {
      "qkv": _joined([part["kernel"] for part in projected]),
      "bias": jnp.concatenate(
        [part["bias"].reshape(size.layers, -1) for part in projected], axis=1
      ),
      "out": _joined([attn["out"]["kernel"]], inputs=2),
      "gate_up": _joined([mlp["gate"]["kernel"], mlp["up"]["kernel"]]),
      "down": _joined([mlp["down"]["kernel"]]),
      "attn_norm": stacked["attn_norm"]["scale"],
      "mlp_norm": stacked["mlp_norm"]["scale"],
    }
  )
  position_1P = jnp.arange(positions, dtype=jnp.int32)[None]
  rotation = layers.rotations(position_1P, size.head_width, size.rope_theta)
  return {
    "layers": [jax.tree.map(lambda x, z=z: x[z], whole) for z in range(size.layers)],
    "norm": decoder["norm"]["scale"],
    "head": decoder["head"]["kernel"].T,
    "rotation": tuple(x_1P1h[0] for x_1P1h in rotation),
  }


def _joined(kernels: Sequence[Array], inputs: int = 1) -> Array:
  """[Z, out, in] of stacked kernels [Z, *in, *out], one behind the other."""
  width = kernels[0].shape[1 : 1 + inputs]
  flat = [k.reshape(len(k), *width, -1) for k in kernels]
  flat = [k.reshape(len(k), -1, k.shape[-1]).swapaxes(1, 2) for k in flat]
  return jnp.concatenate(flat, axis=1)


def _left(weight_FD: Array, x_BD: Array) -> Array:
  """[F, B]."""
  return lax.dot_general(weight_FD, x_BD, (((1,), (1,)), ((), ())))


def _normed(x_DB: Array, scale_D: Array, size: Size) -> Array:
  """layers.RMSNorm of each column."""
  power_1B = jnp.mean(x_DB * x_DB, axis=0, keepdims=True)
  return x_DB * lax.rsqrt(power_1B + size.norm_eps) * scale_D[:, None]


def _layer(
  layer: Params,
  x_DB: Array,
  past: Sequence[_Keys],
  own: _Keys,
  masks: Sequence[Array],
  rotation: tuple[Array, Array],
  place: Array,
  size: Size,
) -> tuple[Array, _Keys]:
  """x_DB behind the layer, and `own` with this token's keys and values at `place`.

  Args:
    masks: of the pasts and, last, of `own`.
  """
  qkv_FB = layer["qkv"] @ _normed(x_DB, layer["attn_norm"], size)
  qkv_FB = qkv_FB + layer["bias"][:, None]
  heads_B1Xh = qkv_FB.reshape(-1, size.head_width, x_DB.shape[1]).transpose(2, 0, 1)
  ends = (size.heads, size.heads + size.kv_heads)
  q_B1Hh, k_B1Kh, v_B1Kh = jnp.split(heads_B1Xh[:, None], ends, axis=2)
  q_B1Hh = layers.rotate(q_B1Hh, rotation)
  k_BKh1 = layers.rotate(k_B1Kh, rotation).transpose(0, 2, 3, 1)
  write = lax.dynamic_update_slice_in_dim
  own = (
    write(own[0], k_BKh1, place, axis=3),
    write(own[1], attention.heads_first(v_B1Kh), place, axis=2),
  )
  parts = [(*keys, mask) for keys, mask in zip((*past, own), masks, strict=True)]
  out_B1Hh = attention.shared(q_B1Hh, parts, turned=True)
  x_DB = x_DB + _left(layer["out"], out_B1Hh.reshape(len(out_B1Hh), -1))
  return x_DB + _mlp(layer, _normed(x_DB, layer["mlp_norm"], size)), own


def _mlp(layer: Params, x_DB: Array) -> Array:
  gate_FB, up_FB = jnp.split(layer["gate_up"] @ x_DB, 2)
  return layer["down"] @ (nn.silu(gate_FB) * up_FB)
