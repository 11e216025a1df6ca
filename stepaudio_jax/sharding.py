"""The mesh a recipe asks for. Rows are split over `data`; parameters are replicated.

An import may split parameters too (`parameter`): each goes to its shard as it is read.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

MESH_AXES = ("data", "fsdp", "tensor", "context")
# Logical axis of a parameter (models/layers.py) → the mesh axis that splits it.
PARAMETER_RULES = {
  "embed": "fsdp",
  "audio_embed": "fsdp",
  "vocab": "tensor",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "audio_heads": "tensor",
  "audio_mlp": "tensor",
  "adaptor": "tensor",
}


def mesh(c: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of `c.{data,fsdp,tensor,context}`; `data` may be −1, all devices.

  Raises:
    ValueError: `data` is not the number of devices, or an axis that would split
      parameters is not 1.
  """
  split = {axis: c[axis] for axis in MESH_AXES if axis != "data" and c[axis] != 1}
  if split:
    raise ValueError(f"mesh axes {split} must be 1: parameters are not split as yet")
  return split_mesh(c, devices)


def split_mesh(
  lengths: Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """The mesh of those lengths, of all devices; one length may be −1, what is left.

  Raises:
    ValueError: their product is not the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  lengths = {axis: lengths[axis] for axis in MESH_AXES}
  free = [axis for axis, length in lengths.items() if length == -1]
  if len(free) == 1:
    lengths[free[0]] = -(len(devices) // math.prod(lengths.values()))
  if min(lengths.values()) < 1 or math.prod(lengths.values()) != len(devices):
    raise ValueError(f"mesh {lengths} does not fit {len(devices)} devices")
  return jax.make_mesh(
    tuple(lengths.values()),
    MESH_AXES,
    # Explicit axes, the default now, make linen's logical constraints raise.
    axis_types=(AxisType.Auto,) * len(MESH_AXES),
    devices=devices,
  )


def parameter(
  mesh_: Mesh, path: str, shape: Sequence[int], names: Sequence[str | None]
) -> NamedSharding:
  """How a parameter with those logical axes lies on the mesh.

  Raises:
    ValueError: an axis is no multiple of the devices that would split it.
  """
  spec = [PARAMETER_RULES.get(name) for name in names]
  for length, name, axis in zip(shape, names, spec, strict=True):
    if axis and length % mesh_.shape[axis]:
      raise ValueError(
        f"parameter {path}: its axis {name!r} of {length} cannot be split over the "
        f"{mesh_.shape[axis]} devices of the mesh axis {axis!r}"
      )
  return NamedSharding(mesh_, PartitionSpec(*spec))


def rows(batch_size: int, microbatches: int, mesh_: Mesh) -> int:
  """Rows of a micro-batch on one device.

  Raises:
    ValueError: they are not a whole number.
  """
  parts = microbatches * mesh_.shape["data"]
  if microbatches < 1 or batch_size % parts:
    raise ValueError(
      f"batch_size {batch_size} is not a multiple of {microbatches} microbatches × "
      f"{mesh_.shape['data']} devices on the data axis"
    )
  return batch_size // parts


def replicated(mesh_: Mesh) -> NamedSharding:
  """Every device holds all of it."""
  return NamedSharding(mesh_, PartitionSpec())


def put(batch: Any, mesh_: Mesh) -> Any:
  """Host arrays of this process, as arrays sharded by rows over the data axis."""
  rows = NamedSharding(mesh_, PartitionSpec("data"))
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
  )
