"""This machine's devices in the place of a slice, and slices of no devices at all."""

import dataclasses
import itertools

import jax

from stepaudio_jax.core import entry
from stepaudio_jax.fit import command
from stepaudio_jax.fit.programs import Job
from stepaudio_jax.pricing import chips, topology
from stepaudio_jax.pricing.collectives import Links
from stepaudio_jax.pricing.topology import Topology


@dataclasses.dataclass(frozen=True)
class Device:
  """What the order of a mesh is made of."""

  id: int
  coords: tuple[int, int, int]
  device_kind: str
  core_on_chip: int = 0
  process_index: int = 0
  slice_index: int = 0
  platform: str = "tpu"


def described(name: str) -> Topology:
  """A slice as libtpu would describe it: x runs fastest, hosts are squares of 2 × 2."""
  links = topology.slice_of(name)
  lengths = (*links.shape, 1)[:3]
  wide, high = lengths[0] // 2, lengths[1] // 2
  places = itertools.product(*map(range, reversed(lengths)))
  devices = (
    Device(
      number,
      (x, y, z),
      links.chip.kind,
      process_index=x // 2 + wide * (y // 2 + high * z),
    )
    for number, (z, y, x) in enumerate(places)
  )
  return Topology(name, links, tuple(devices))


def here() -> Topology:
  devices = tuple(jax.devices())
  return Topology("here", Links(chips.chip("v5e"), (1, 1), (False, False)), devices)


def job(recipe: str = "configs/sft.py", **overrides: str) -> Job:
  c = entry.recipe_of(recipe)
  for key, text in overrides.items():
    entry.override(c, key.replace("__", "."), text)
  return command.job_of(c, here())
