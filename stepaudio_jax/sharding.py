"""Where every array lies on a mesh.

One table, `RULES`, says which mesh axis splits a logical axis: of parameters and of
activations (models/layers.py names both). Rows of a batch go over `data` and `fsdp`,
parameters over `fsdp`, `context` and `tensor`, heads and widths of a layer over
`tensor`, the length of a row over `context`. The optimiser's moments lie as their
parameters do.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from stepaudio_jax.core import recipe, tree
from stepaudio_jax.core.types import Params, TrainState
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.layers import PARAMETER_AXES
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import StepAudio

ROW_AXES = ("data", "fsdp")
# These split a parameter in storage alone: each layer gathers its weights when it needs
# them, so devices that share rows need not hold the same ones.
STORAGE_AXES = ("fsdp", "context")
# Logical axis of a parameter → the mesh axes that split it; no others are split.
PARAMETER_RULES = {
  "embed": STORAGE_AXES,
  "audio_embed": STORAGE_AXES,
  "vocab": "tensor",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "audio_heads": "tensor",
  "audio_mlp": "tensor",
  "adaptor": "tensor",
}
RULES = {
  **PARAMETER_RULES,
  **{f"used_{k}": v for k, v in PARAMETER_RULES.items() if v != STORAGE_AXES},
  "activation_batch": ROW_AXES,
  "activation_length": "context",
  "activation_heads": "tensor",
  "activation_kv_heads": "tensor",
  "activation_mlp": "tensor",
  "activation_vocab": "tensor",
}


def model(c: ConfigDict, size: Size, mesh_: Mesh) -> StepAudio:
  """The model of a recipe, with the attention of the mesh's devices."""
  return step_audio.named(
    size,
    dtype=c.dtype,
    remat=c.remat,
    head_chunks=c.head_chunks,
    attention=c.attention,
    platform=mesh_.devices.flat[0].platform,
  )


@contextlib.contextmanager
def over(mesh_: Mesh) -> Iterator[None]:
  """Programs traced in here are split over the mesh by `RULES`.

  On one device there is nothing to split, and no constraint in any program.
  """
  with contextlib.ExitStack() as stack:
    if mesh_.size > 1:
      stack.enter_context(jax.set_mesh(mesh_))
      stack.enter_context(nn.logical_axis_rules(tuple(RULES.items())))
    yield


def parameter(
  mesh_: Mesh, path: str, shape: Sequence[int], names: Sequence[str | None]
) -> NamedSharding:
  """How a parameter with those logical axes lies on the mesh.

  Raises:
    ValueError: an axis is unknown, or no multiple of the devices that would split it.
  """
  unknown = [name for name in names if name and name not in PARAMETER_AXES]
  if unknown:
    raise ValueError(
      f"parameter {path}: unknown logical axes {unknown}; there are {PARAMETER_AXES}"
    )
  spec = [PARAMETER_RULES.get(name) for name in names]
  for length, name, split in zip(shape, names, spec, strict=bool(names)):
    axes = (split,) if isinstance(split, str) else split or ()
    devices = math.prod(mesh_.shape[axis] for axis in axes)
    if length % devices:
      raise ValueError(
        f"parameter {path}: its axis {name!r} of {length} cannot be split over the "
        f"{devices} devices of the mesh axes {axes}"
      )
  return NamedSharding(mesh_, PartitionSpec(*spec))


def parameters(
  mesh_: Mesh, axes: Mapping[str, Sequence[str | None]], abstract: Params
) -> Params:
  """How every parameter lies on the mesh, a tree like `abstract`.

  Args:
    axes: step_audio.axis_names's. A leaf has those of the path that ends its own, as
      the critic's copy of the decoder has the decoder's; without any, as heads are, it
      is on every device.
  """

  def one(path: Any, leaf: Any) -> NamedSharding:
    name, found = tree.path_text(path), _ending(path, axes)
    return parameter(mesh_, name, leaf.shape, axes[found] if found else ())

  return jax.tree_util.tree_map_with_path(one, abstract)


def state(mesh_: Mesh, abstract: TrainState, params: Params) -> TrainState:
  """Shardings of a state, given those of all its parameters, trained and frozen.

  A moment of the optimiser lies as the parameter whose path ends its own; what belongs
  to none, as its counters do, is on every device.

  Raises:
    ValueError: a moment of another shape than its parameter.
  """
  trained = {name: params[name] for name in abstract.params}
  shapes = {path: leaf.shape for path, leaf in tree.named_leaves(abstract.params)}
  places = dict(tree.named_leaves(trained))

  def moment(path: Any, leaf: Any) -> NamedSharding:
    found = _ending(path, places)
    if found and shapes[found] != leaf.shape:
      name = tree.path_text(path)
      raise ValueError(
        f"optimiser state {name} {leaf.shape} has not its parameter's shape "
        f"{shapes[found]}, so nothing says how it is to be split"
      )
    return places[found] if found else replicated(mesh_)

  return dataclasses.replace(
    abstract,
    params=trained,
    frozen={name: params[name] for name in abstract.frozen},
    opt_state=jax.tree_util.tree_map_with_path(moment, abstract.opt_state),
    step=replicated(mesh_),
    rng=replicated(mesh_),
  )


def _ending(path: Any, known: Mapping[str, Any]) -> str | None:
  """The longest end of a path that is known."""
  ends = (tree.path_text(path[first:]) for first in range(len(path)))
  return next((end for end in ends if end in known), None)


def offloads(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
  """What a recipe keeps in the host's memory; an unknown name lists the choices."""
  for name in names:
    recipe.choose("offload", name, dict.fromkeys(known))
  return tuple(names)


def in_host_memory(shardings: Any) -> Any:
  """The same places, in the memory of the devices' host."""
  return _in_memory(shardings, "pinned_host")


def far(values: Any, shardings: Any) -> Any:
  """The same places, of arrays in the host's memory; counters stay near."""
  return jax.tree.map(
    lambda value, near: in_host_memory(near) if value.ndim else near, values, shardings
  )


def on_device(shardings: Any) -> Any:
  """The same places, in the devices' own memory."""
  return _in_memory(shardings, "device")


def _in_memory(shardings: Any, kind: str) -> Any:
  return jax.tree.map(lambda lies: lies.with_memory_kind(kind), shardings)


def places(values: Any) -> Any:
  """How arrays lie."""
  return jax.tree.map(lambda value: value.sharding, values)


def placed(value: Any, sharding: NamedSharding) -> jax.Array:
  """A host array, the same on every process, as one that lies so."""
  value = np.asarray(value)
  return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def placer(
  mesh_: Mesh,
  axes: Mapping[str, Sequence[str | None]],
  dtypes: Mapping[str, Any],
  *,
  offload: bool = False,
) -> Callable[[str, np.ndarray], jax.Array]:
  """(path, host array) → the parameter on the mesh: what a checkpoint's reader calls.

  Args:
    axes: see `parameters`.
    dtypes: of the parts that are placed ("decoder"); others stay as they are.
    offload: into the memory of the devices' host.
  """

  def place(path: str, leaf: np.ndarray) -> Any:
    part = path.split("/")[0]
    if part not in dtypes:
      return leaf
    lies = parameter(mesh_, path, leaf.shape, axes.get(path, ()))
    lies = in_host_memory(lies) if offload else lies
    return placed(leaf.astype(dtypes[part], copy=False), lies)

  return place


@functools.partial(jax.jit, static_argnames=("lies", "dtype"))
def relaid(values: Any, lies: Any, dtype: Any = None) -> Any:
  """Arrays as they are to lie, on another mesh of the same devices too.

  Args:
    lies: one sharding for all, or a tuple of one for each leaf.
    dtype: to be cast to first, so that the narrow type travels; None keeps each.
  """
  leaves, form = jax.tree.flatten(values)
  lies = lies if isinstance(lies, tuple) else (lies,) * len(leaves)
  cast = [x if dtype is None else x.astype(dtype) for x in leaves]
  moved = [
    jax.lax.with_sharding_constraint(x, where)
    for x, where in zip(cast, lies, strict=True)
  ]
  return jax.tree.unflatten(form, moved)


def gathered(values: Any) -> Any:
  """Arrays of any layout as whole host arrays, on every process."""

  def one(value: Any) -> np.ndarray:
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
      whole = NamedSharding(value.sharding.mesh, PartitionSpec())
      value = jax.device_put(value, whole).addressable_data(0)
    return np.asarray(value)

  return jax.tree.map(one, values)


def rows(batch_size: int, microbatches: int, mesh_: Mesh) -> int:
  """Rows of a micro-batch on one device.

  Raises:
    ValueError: they are not a whole number.
  """
  devices = row_devices(mesh_)
  parts = microbatches * devices
  if microbatches < 1 or batch_size % parts:
    raise ValueError(
      f"batch_size {batch_size} is not a multiple of {microbatches} microbatches × "
      f"{devices} devices on the axes {ROW_AXES}"
    )
  return batch_size // parts


def row_devices(mesh_: Mesh) -> int:
  """Devices, or groups of them, that have rows of their own."""
  return math.prod(mesh_.shape[axis] for axis in ROW_AXES)


def packs(mesh_: Mesh, parts: int) -> int:
  """Packs of this process's rows: one for each device and part of a batch."""
  return row_devices(mesh_) * parts // jax.process_count()


def replicated(mesh_: Mesh) -> NamedSharding:
  """Every device holds all of it."""
  return NamedSharding(mesh_, PartitionSpec())


def by_rows(mesh_: Mesh) -> NamedSharding:
  """Of arrays whose first axis are rows: those of a batch, the prompts of replies."""
  return NamedSharding(mesh_, PartitionSpec(ROW_AXES))


def put(batch: Any, mesh_: Mesh) -> Any:
  """Host arrays of this process's rows, as arrays of all rows."""
  rows_ = by_rows(mesh_)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(rows_, np.asarray(x)), batch
  )


def own(values: Any, mesh_: Mesh) -> Any:
  """Of arrays of all rows those of this process, on the host: `put`'s reverse."""
  rows_ = by_rows(mesh_)

  def one(value: jax.Array) -> np.ndarray:
    if value.is_fully_addressable:
      return np.asarray(value)
    shards = jax.device_put(value, rows_).addressable_shards
    parts = {shard.index[0].start or 0: shard.data for shard in shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

  return jax.tree.map(one, values)
