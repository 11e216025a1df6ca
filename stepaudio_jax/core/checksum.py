"""Checksums of arrays that do not depend on how they lie on devices."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from stepaudio_jax.core import threads
from stepaudio_jax.core import tree as tree_lib
from stepaudio_jax.core.types import Array

# Words of a part for one thread, and of what its cache holds.
_PART, _SOME = 1 << 22, 1 << 15
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def checksums(tree: Any) -> dict[str, int]:
  """{place in the tree: checksum of the array there}, the same on every process.

  Each element is hashed with its place in the whole array, and the hashes are added
  modulo 2³²: an order-free sum that every device can do for its own part. So another
  mesh gives the same number, and any one element that has changed gives another.
  """
  names, leaves = zip(*tree_lib.named_leaves(tree), strict=True)
  if all(map(_is_near, leaves)):  # no program, whose compiling would take longer
    return {name: of_host(np.asarray(x)) for name, x in zip(names, leaves, strict=True)}
  waiting = tuple(_device_of(leaf) for leaf in leaves)
  sums = jax.device_get(_program(_replicated(leaves), waiting)(leaves))
  return dict(zip(names, sums.tolist(), strict=True))


def of_host(x: np.ndarray) -> int:
  """That of `checksums`, of one array in the host's memory and by the host."""
  x = np.ascontiguousarray(x).reshape(-1)
  words, parts = x.view(_UNSIGNED[x.dtype.itemsize]), []
  threads.each(
    lambda start: parts.append(_host_sum(words[start : start + _PART], start)),
    range(0, len(words), _PART),
  )
  return sum(parts) % 2**32


def _host_sum(words: np.ndarray, start: int) -> int:
  """Of the words from place `start` on; a few at a time, which stay in the cache."""
  total, room = 0, np.empty(_SOME, np.uint32)
  for first in range(0, len(words), _SOME):
    some = words[first : first + _SOME]
    place = np.arange(start + first, start + first + len(some)).astype(np.uint32)
    _mix(place, room[: len(some)])
    place += some
    _mix(place, room[: len(some)])
    total += int(place.sum(dtype=np.uint64))
  return total


def _mix(x: np.ndarray, room: np.ndarray) -> None:
  """`_mixed` in place."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
    np.right_shift(x, shift, out=room)
    x ^= room
    if factor is not None:
      x *= np.uint32(factor)


def of_text(text: str) -> int:
  return zlib.crc32(text.encode())


def changed(before: dict[str, int], now: dict[str, int]) -> list[str]:
  """Names of the arrays whose checksums differ, or that one side lacks."""
  names = sorted(before.keys() | now.keys())
  return [name for name in names if before.get(name) != now.get(name)]


def _is_near(leaf: Any) -> bool:
  """Whether all of an array lies on this host's one device, where numpy reads it."""
  if not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
    return False
  return [device.platform for device in leaf.sharding.device_set] == ["cpu"]


def _replicated(leaves: Sequence[Any]) -> NamedSharding | None:
  """Every process shall hold all sums: where leaves lie on a mesh, all over it."""
  for leaf in leaves:
    if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
      return NamedSharding(leaf.sharding.mesh, PartitionSpec())
  return None


def _device_of(leaf: Any) -> Any:
  """Where an array is read that waits in the host's memory; None for others."""
  if isinstance(leaf, jax.Array) and leaf.sharding.memory_kind == "pinned_host":
    return leaf.sharding.with_memory_kind("device")
  return None


@functools.lru_cache(maxsize=8)
def _program(out: NamedSharding | None, waiting: tuple[Any, ...]) -> Any:
  """One program for all leaves; compiled anew for other shapes."""

  def sums(leaves: Sequence[Array]) -> Array:
    near = [
      jax.device_put(leaf, place) if place else leaf
      for leaf, place in zip(leaves, waiting, strict=True)
    ]
    return jnp.stack([_checksum(leaf) for leaf in near])

  return jax.jit(sums, out_shardings=out)


def _checksum(x: Array) -> Array:
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  word = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
  word = word.astype(jnp.uint32)
  return _mixed(word + _mixed(_places(word.shape))).sum(dtype=jnp.uint32)


def _places(shape: tuple[int, ...]) -> Array:
  """The number of each element in row-major order, modulo 2³²."""
  out, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    step = jnp.uint32(stride % 2**32)
    out += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * step
    stride *= shape[axis]
  return out


def _mixed(x: Array) -> Array:
  """A bijection of 32 bits that spreads each over all (MurmurHash3's last step)."""
  x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> jnp.uint32(16))
