"""The processes of one run: who writes, and where all wait for each other."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def first() -> bool:
  """Whether this is the one process that writes what all of them share."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Returns once every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def everywhere(holds: bool) -> bool:
  """Whether it holds on every process; all of them must ask."""
  if jax.process_count() == 1:
    return holds
  return bool(multihost_utils.process_allgather(np.asarray(holds)).all())
