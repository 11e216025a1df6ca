"""Shapes, dtypes and places of what programs take: no array is ever made."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stepaudio_jax import sharding
from stepaudio_jax.core import tree
from stepaudio_jax.core.types import Batch, PackedReplies, Params, Replies, TrainState
from stepaudio_jax.data import packing
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.sizes import Size


@contextlib.contextmanager
def over(mesh: Mesh) -> Iterator[None]:
  """`sharding.over` for devices that are only described.

  Constants of a program are made while it is traced; under the mesh itself jax would
  make them on its devices.
  """
  with (
    jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
    nn.logical_axis_rules(tuple(sharding.RULES.items())),
  ):
    yield


def at(place: NamedSharding, shape: tuple[int, ...], dtype: Any) -> Any:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def placed(shapes: Any, places: Any) -> Any:
  """The tree `shapes`, every leaf where `places` says."""
  return jax.tree.map(lambda x, place: at(place, x.shape, x.dtype), shapes, places)


def params(size: Size, mesh: Mesh, dtypes: Mapping[str, Any]) -> Params:
  """Of the parts that `dtypes` names."""
  shapes = step_audio.abstract_params(size)
  held = {
    part: jax.tree.map(
      lambda x, d=dtype: jax.ShapeDtypeStruct(x.shape, d), shapes[part]
    )
    for part, dtype in dtypes.items()
  }
  return placed(held, sharding.parameters(mesh, step_audio.axis_names(size), held))


def state(
  params: Params,
  trained: tuple[str, ...],
  tx: optax.GradientTransformation,
  *,
  offload: bool = False,
) -> TrainState:
  """A training state before its first step: see steps.initial_state."""
  ours, frozen = tree.split(params, trained)
  key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
  step = jax.ShapeDtypeStruct((), jnp.int32)
  shapes = TrainState(ours, frozen, jax.eval_shape(tx.init, ours), step, key)
  places = jax.tree.map(lambda leaf: leaf.sharding, params)
  mesh = jax.tree.leaves(places)[0].mesh
  lies = sharding.state(mesh, shapes, places)
  if offload:
    far = sharding.far(shapes.opt_state, lies.opt_state)
    lies = dataclasses.replace(lies, opt_state=far)
  return placed(shapes, lies)


def batch(rows: int, row: Limits, encoder_width: int, mesh: Mesh) -> Batch:
  """What data/collate.py makes of the recipe's rows."""
  by_rows = sharding.by_rows(mesh)
  numbers = at(by_rows, (rows, row.max_tokens), jnp.int32)
  frames = (rows, row.max_clips, row.max_clip_frames, encoder_width)
  return Batch(
    token_BT=numbers,
    segment_BT=numbers,
    position_BT=numbers,
    loss_BT=at(by_rows, numbers.shape, jnp.bool_),
    example_BT=numbers,
    source_BT=numbers,
    frames_BRUE=at(by_rows, frames, jnp.float32),
    frame_count_BR=at(by_rows, frames[:2], jnp.int32),
    audio_BT=numbers,
  )


def replies(prompts: Batch, copies: int, tokens: int, mesh: Mesh) -> Replies:
  rows, by_rows = prompts.token_BT.shape[0], sharding.by_rows(mesh)
  return Replies(
    prompts=prompts,
    token_BQT=at(by_rows, (rows, copies, tokens), jnp.int32),
    count_BQ=at(by_rows, (rows, copies), jnp.int32),
  )


def packed(
  row: Limits,
  prompts: int,
  copies: int,
  tokens: int,
  encoder_width: int,
  mesh: Mesh,
  *,
  shared: bool,
  parts: int = 1,
  row_tokens: int = 0,
  row_counts: Sequence[int] = (),
) -> PackedReplies:
  """The longest replies to full prompts, in the rows that data/packing.py gives them.

  Args:
    shared: whether the rows are those of shared prompts.
    parts: packs of a device.
    row_tokens: of a row; 0: one prompt with one reply.
    row_counts: declared, see packing.room.
  """
  packs, by_rows = sharding.packs(mesh, parts), sharding.by_rows(mesh)
  row_tokens = row_tokens or row.max_tokens + tokens
  own = prompts // packs
  plan = packing.planned(
    np.full(own, row.max_tokens),
    np.full((own, copies), tokens),
    row_tokens,
    shared=shared,
  )
  rows, clips = packing.room(len(plan), row.max_clips * max(map(len, plan)), row_counts)
  clips = clips if row.max_clips else 0
  whole = dataclasses.replace(row, max_tokens=row_tokens, max_clips=clips)
  spread = jax.tree.map(
    lambda leaf: at(by_rows, (packs, rows, *leaf.shape[1:]), leaf.dtype),
    batch(1, whole, encoder_width, mesh),
  )
  slots = at(by_rows, (packs, prompts // packs, copies, tokens), jnp.int32)
  return PackedReplies(
    batch=spread,
    slot_PBQT=slots,
    last_PBQ=at(by_rows, slots.shape[:3], jnp.int32),
    token_PBQT=slots,
    count_PBQ=at(by_rows, slots.shape[:3], jnp.int32),
    prefix_PBT=spread.segment_BT if shared else None,
  )


def by_shape(shapes: Any, mesh: Mesh) -> Any:
  """What a loop of sampling carries: caches [Z, B, K, S, h], and arrays of rows."""
  rows, rules = sharding.ROW_AXES, sharding.RULES
  cache = PartitionSpec(None, rows, rules["activation_kv_heads"], None, None)

  def one(x: Any) -> Any:
    spec = cache if x.ndim == 5 else PartitionSpec(rows) if x.ndim else PartitionSpec()
    return at(NamedSharding(mesh, spec), x.shape, x.dtype)

  return jax.tree.map(one, shapes)


def bytes_on_chip(tree_: Any) -> int:
  """Of abstract arrays, the part that lies in one device's own memory."""
  return sum(_shard(leaf) for leaf in jax.tree.leaves(tree_) if not _far(leaf))


def bytes_on_host(tree_: Any) -> int:
  """The part that waits for one device in the memory of its host."""
  return sum(_shard(leaf) for leaf in jax.tree.leaves(tree_) if _far(leaf))


def _shard(leaf: Any) -> int:
  shape = leaf.sharding.shard_shape(leaf.shape)
  return math.prod(shape) * leaf.dtype.itemsize


def _far(leaf: Any) -> bool:
  return leaf.sharding.memory_kind == "pinned_host"
