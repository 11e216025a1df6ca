"""The mesh a recipe asks for. Rows are split over `data`; parameters are replicated."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

MESH_AXES = ("data", "fsdp", "tensor", "context")


def mesh(c: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of `c.{data,fsdp,tensor,context}`; one of them may be −1 (the rest).

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or an axis that
      would split parameters is not 1.
  """
  split = {axis: c[axis] for axis in MESH_AXES if axis != "data" and c[axis] != 1}
  if split:
    raise ValueError(f"mesh axes {split} must be 1: parameters are not split as yet")
  devices = jax.devices() if devices is None else devices
  sizes = {axis: c[axis] for axis in MESH_AXES}
  free = [axis for axis, size in sizes.items() if size == -1]
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(free) == 1 and len(devices) % fixed == 0:
    sizes[free[0]] = len(devices) // fixed
  if any(size < 1 for size in sizes.values()) or (
    math.prod(sizes.values()) != len(devices)
  ):
    raise ValueError(f"mesh {dict(c)} does not fit {len(devices)} devices")
  return jax.make_mesh(
    tuple(sizes.values()),
    MESH_AXES,
    # Explicit axes, the default now, make linen's logical constraints raise.
    axis_types=(AxisType.Auto,) * len(MESH_AXES),
    devices=devices,
  )


def replicated(mesh_: Mesh) -> NamedSharding:
  """Every device holds all of it."""
  return NamedSharding(mesh_, PartitionSpec())


def put(batch: Any, mesh_: Mesh) -> Any:
  """Host arrays of this process, as arrays sharded by rows over the data axis."""
  rows = NamedSharding(mesh_, PartitionSpec("data"))
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
  )
