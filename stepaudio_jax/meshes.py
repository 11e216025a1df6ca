"""The mesh that a recipe asks for: lengths of four axes, laid over the devices.

data     rows of a batch; parameters are whole along it
fsdp     rows of a batch, and parameters in storage
tensor   heads and widths of a layer
context  the length of a row
"""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

MESH_AXES = ("data", "fsdp", "tensor", "context")


def named_lengths(text: str) -> dict[str, int]:
  """{"data": 1, "fsdp": 2, …} of "fsdp=2"; axes that are not named are 1.

  Raises:
    ValueError: another axis, or no number.
  """
  lengths = dict.fromkeys(MESH_AXES, 1)
  for item in text.split(","):
    axis, _, length = item.partition("=")
    if axis not in lengths or not length.removeprefix("-").isdigit():
      choices = ", ".join(f"{axis}=N" for axis in lengths)
      raise ValueError(f"mesh has {item!r}; the choices are {choices}")
    lengths[axis] = int(length)
  return lengths


def mesh(
  lengths: ConfigDict | Mapping[str, int],
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """The mesh of those lengths, of all devices; one length may be −1, what is left.

  Devices of one slice are neighbours in the order that its wiring asks for; where that
  has `tensor` and `context` cross processes, they are those of one process. Of several
  slices, which a slower network joins, `data` counts the slices first.

  Raises:
    ValueError: the lengths' product is not the number of devices, `data` is no multiple
      of the slices, or two processes would have to read the same rows.
  """
  devices = jax.devices() if devices is None else devices
  lengths = _filled(lengths, len(devices))
  ordered = _ordered(lengths, devices)
  _check_processes(lengths, ordered)
  return _of(ordered)


def another_mesh(lengths: ConfigDict | Mapping[str, int], like: Mesh) -> Mesh:
  """A mesh of the same devices in the same order, so that one program may use both.

  Raises:
    ValueError: the lengths' product is not the number of devices.
  """
  shape = tuple(_filled(lengths, like.size).values())
  return _of(like.devices.reshape(shape))


def _of(devices: np.ndarray) -> Mesh:
  # Explicit axes, the default now, make linen's logical constraints raise.
  return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _filled(lengths: Mapping[str, int], devices: int) -> dict[str, int]:
  """The lengths, with a number for −1."""
  lengths = {axis: lengths[axis] for axis in MESH_AXES}
  asked = dict(lengths)
  free = [axis for axis, length in lengths.items() if length == -1]
  known = math.prod(length for length in lengths.values() if length != -1)
  if len(free) == 1 and known > 0:
    lengths[free[0]] = devices // known
  if min(lengths.values()) < 1 or math.prod(lengths.values()) != devices:
    raise ValueError(
      f"mesh {asked} does not fit {devices} devices: the product of its lengths must "
      "be their number, and one length may be -1, which is all that the others leave"
    )
  return lengths


def _ordered(lengths: Mapping[str, int], devices: Sequence[jax.Device]) -> np.ndarray:
  shape = tuple(lengths.values())
  slices = len({getattr(device, "slice_index", 0) for device in devices})
  if slices == 1:
    # An axis of the mesh may be a part of one of the wiring, as 8 of a row of 16.
    found = mesh_utils.create_device_mesh(
      shape, devices, allow_split_physical_axes=True
    )
    return found if _apart(lengths, found) else _by_process(lengths, found)
  if lengths["data"] % slices:
    raise ValueError(
      f"mesh {dict(lengths)}: `data` is no multiple of the {slices} slices, and no "
      "other axis may cross the network between them"
    )
  within = (lengths["data"] // slices, *shape[1:])
  across = (slices, *(1 for _ in shape[1:]))
  return mesh_utils.create_hybrid_device_mesh(within, across, devices)


def _by_process(lengths: Mapping[str, int], devices: np.ndarray) -> np.ndarray:
  """With `tensor` and `context` within processes, if they have room for them.

  The four chips of a TPU's host are a square, while a ring of four crosses two hosts.
  """
  processes = len(np.unique(_processes(devices)))
  group = lengths["tensor"] * lengths["context"]
  rest, uneven = divmod(devices.size // processes, group)
  if not rest or uneven or lengths["fsdp"] % rest:
    return devices
  return mesh_utils.create_hybrid_device_mesh(
    (1, rest, lengths["tensor"], lengths["context"]),
    (lengths["data"], lengths["fsdp"] // rest, 1, 1),
    devices.ravel().tolist(),
    process_is_granule=True,
    allow_split_physical_axes=True,
  )


def _processes(devices: np.ndarray) -> np.ndarray:
  return np.vectorize(lambda device: device.process_index)(devices)


def _apart(lengths: Mapping[str, int], devices: np.ndarray) -> bool:
  """Whether each process reads rows that no other reads, as many as the others."""
  readers = _processes(devices).reshape(lengths["data"] * lengths["fsdp"], -1)
  shares = np.unique(readers[:, 0], return_counts=True)[1]
  return bool((readers == readers[:, :1]).all()) and len(set(shares)) == 1


def _check_processes(lengths: Mapping[str, int], devices: np.ndarray) -> None:
  if _apart(lengths, devices):
    return
  processes = len(np.unique(_processes(devices)))
  raise ValueError(
    f"mesh {dict(lengths)}: tensor × context crosses the {processes} processes of "
    f"{devices.size // processes} devices, so that two of them would have to read the "
    "same rows; make data × fsdp a multiple of the processes"
  )
