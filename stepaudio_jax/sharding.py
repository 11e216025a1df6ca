"""The mesh a recipe asks for. Rows are split over `data`; parameters are replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

MESH_AXES = ("data", "fsdp", "tensor", "context")


def mesh(c: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of `c.{data,fsdp,tensor,context}`; `data` may be −1, all devices.

  Raises:
    ValueError: `data` is not the number of devices, or an axis that would split
      parameters is not 1.
  """
  split = {axis: c[axis] for axis in MESH_AXES if axis != "data" and c[axis] != 1}
  if split:
    raise ValueError(f"mesh axes {split} must be 1: parameters are not split as yet")
  devices = jax.devices() if devices is None else devices
  data = len(devices) if c.data == -1 else c.data
  if data != len(devices):
    raise ValueError(f"mesh {dict(c)} does not fit {len(devices)} devices")
  return jax.make_mesh(
    (data, 1, 1, 1),
    MESH_AXES,
    # Explicit axes, the default now, make linen's logical constraints raise.
    axis_types=(AxisType.Auto,) * len(MESH_AXES),
    devices=devices,
  )


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
