"""This machine's devices in the place of a slice."""

import jax

from stepaudio_jax.core import entry
from stepaudio_jax.fit import command
from stepaudio_jax.fit.programs import Job
from stepaudio_jax.pricing import chips
from stepaudio_jax.pricing.collectives import Links
from stepaudio_jax.pricing.topology import Topology


def here() -> Topology:
  devices = tuple(jax.devices())
  return Topology("here", Links(chips.chip("v5e"), (1, 1), (False, False)), devices)


def job(recipe: str = "configs/sft.py", **overrides: str) -> Job:
  c = entry.recipe_of(recipe)
  for key, text in overrides.items():
    entry.override(c, key.replace("__", "."), text)
  return command.job_of(c, here())
