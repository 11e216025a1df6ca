"""The processes of one run: how they find each other, who writes, where all wait.

Each process is started with the same command (experiments/launch_local.py on one
machine, experiments/launch_tpu.sh on every worker of a TPU VM, srun) and learns from
its environment who the others are:

  STEPAUDIO_COORDINATOR=HOST:PORT  where process 0 listens, with
  STEPAUDIO_PROCESSES=N            how many they are, and
  STEPAUDIO_PROCESS=I              which one this is; or
  STEPAUDIO_PROCESSES=auto         JAX asks the TPU VM or the cluster's scheduler.

Under srun nothing needs to be set. Without any of these a process is alone.
"""

import itertools
import os
import zlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

COORDINATOR, COUNT, INDEX = (
  "STEPAUDIO_COORDINATOR",
  "STEPAUDIO_PROCESSES",
  "STEPAUDIO_PROCESS",
)
_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
# One that has died or hangs ends the others after so long; JAX waits 100 and 300.
_SILENCE_S, _GOODBYE_S = 40, 20
_LATEST_MS = 7 * 24 * 3600 * 1000  # a week: no live process is given up
_barriers = itertools.count()  # their names may come again, their numbers do not


def start() -> None:
  """Joins the other processes, before anything asks JAX for its devices.

  Raises:
    ValueError: the environment names the others only in part, or wrongly.
  """
  if jax.distributed.is_initialized():
    return
  known = _known(os.environ)
  if known is None:
    return
  # Of the CPU's collectives only these work between processes. They wait for each other
  # in the order in which they come: two programs at once may wait for ever.
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  jax.distributed.initialize(
    **known,
    heartbeat_timeout_seconds=_SILENCE_S,
    shutdown_timeout_seconds=_GOODBYE_S,
  )


def _known(environ: Mapping[str, str]) -> dict[str, str | int] | None:
  """What jax.distributed.initialize is told; {} where it finds out, None if alone."""
  named = {
    name: environ[name] for name in (COORDINATOR, COUNT, INDEX) if environ.get(name)
  }
  if not named:
    return {} if int(environ.get(_SLURM_TASKS, 1)) > 1 else None
  if named == {COUNT: "auto"}:
    return {}
  count, index = named.get(COUNT, ""), named.get(INDEX, "")
  numbers = count.isdecimal() and index.isdecimal()
  if COORDINATOR in named and numbers and int(index) < int(count):
    return {
      "coordinator_address": named[COORDINATOR],
      "num_processes": int(count),
      "process_id": int(index),
    }
  raise ValueError(
    f"the environment has {named}; it needs {COORDINATOR}=HOST:PORT, {COUNT}=N and "
    f"{INDEX}=0…N-1 together, or {COUNT}=auto alone"
  )


def first() -> bool:
  """Whether this is the one process that writes what all of them share."""
  return jax.process_index() == 0


def index() -> int:
  """Which of the processes this is."""
  return jax.process_index()


def barrier(name: str) -> None:
  """Returns once every process has come here, however late the last one is."""
  if jax.process_count() == 1:
    return
  # Devices of CPUs give up on each other after half a minute if they have not met
  # before; one process may be at work for hours longer than another. So the service
  # that started them waits, which knows who has died, and the devices meet then.
  client = multihost_utils.distributed.global_state.client
  if client is not None:  # a TPU's processes may have found each other without it
    client.wait_at_barrier(f"{next(_barriers)} {name}", _LATEST_MS)
  multihost_utils.sync_global_devices(name)


def everywhere(holds: bool) -> bool:
  """Whether it holds on every process; all of them must ask."""
  if jax.process_count() == 1:
    return holds
  return bool(multihost_utils.process_allgather(np.asarray(holds)).all())


def gathered(rows: T) -> T:
  """Host arrays of all processes' rows, behind each other in the processes' order."""
  if jax.process_count() == 1:
    return rows
  return multihost_utils.process_allgather(rows, tiled=True)


def largest(number: int) -> int:
  """The largest of all processes' numbers; all of them must ask."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.process_allgather(np.asarray(number)).max())


def part(items: Sequence[T]) -> Sequence[T]:
  """Those of this process, of items that go with the rows of a batch of all."""
  size = len(items) // jax.process_count()
  return items[jax.process_index() * size :][:size]


def every(items: Sequence[T]) -> Sequence[T]:
  """Of a list that all processes have, this one's: each N-th of N processes."""
  return items[jax.process_index() :: jax.process_count()]


def share(items: Mapping[str, T]) -> dict[str, T]:
  """Those that fall to this process; by their keys, so that no list of them counts."""
  count, index = jax.process_count(), jax.process_index()
  return {k: x for k, x in items.items() if zlib.crc32(k.encode()) % count == index}
