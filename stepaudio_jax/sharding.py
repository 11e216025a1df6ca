"""One table of logical axes → mesh axes, and the mesh a recipe asks for."""

import math
from collections.abc import Sequence

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

MESH_AXES = ("data", "fsdp", "tensor", "context")

BATCH = PartitionSpec(("data", "fsdp"))


def mesh(c: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of `c.{data,fsdp,tensor,context}`; one of them may be −1 (the rest).

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
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
