"""Commands in processes of their own, side by side; those that are done stay done.

DIR/jobs/NAME.json tells which commands of a job have ended well, NAME.log what they
said. A job's process holds NAME.lock: where a start was killed and its process lives
on, the next start waits for it instead of beginning another one in the same folder.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax import logs

_POLL_S = 0.2
_SAID = 1500  # letters of a log that tell why a command failed
_PROBE = "import jax; print(jax.default_backend())"


@dataclasses.dataclass(frozen=True)
class Task:
  """A command, and what says whether it did all its work.

  Attributes:
    name: of the task within its job.
    lacking: what is still to be done, or None; asked after the command's end.
  """

  name: str
  command: tuple[str, ...]
  lacking: Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Job:
  """Commands that follow each other."""

  name: str
  tasks: Sequence[Task]


@dataclasses.dataclass
class _Running:
  job: Job
  task: Task
  slot: int
  process: subprocess.Popen
  started: float


def run(
  jobs: Sequence[Job],
  folder: epath.Path,
  *,
  slots: int,
  variables: Sequence[Mapping[str, str]] = ({},),
) -> dict[str, dict[str, Any]]:
  """Runs all that is not done, and goes on where one fails.

  Args:
    folder: of the jobs' logs.
    slots: jobs at a time; each has an equal part of the visible cores.
    variables: of the environment, of each slot in turn.

  Returns:
    {job: {"state": "done" or "failed", "seconds", "message"}}.
  """
  folder.mkdir(parents=True, exist_ok=True)
  waiting, found = [*jobs], {}
  free, running = [*range(slots)], []
  begun = time.monotonic()
  with _ended_with_us(running):
    while waiting or running:
      for job in [*waiting]:
        if not free:
          break
        if (task := _next(job, folder)) is None:
          waiting.remove(job)
          found[job.name] = _told(job, folder, None)
        elif process := _started(job, task, folder, free[0], slots, variables):
          waiting.remove(job)
          logs.say(f"{job.name}: {task.name} begins")
          running.append(_Running(job, task, free.pop(0), process, time.monotonic()))
      for one in [*running]:
        if one.process.poll() is None:
          continue
        running.remove(one)
        free.append(one.slot)
        if message := _outcome(one, folder):
          found[one.job.name] = _told(one.job, folder, message)
        else:
          waiting.insert(0, one.job)
          continue
        left = len(jobs) - len(found)
        logs.say(f"{one.job.name}: FAILED: {message.splitlines()[-1]}; {left} left")
      if running or waiting:
        time.sleep(_POLL_S)
  logs.say(f"{len(jobs)} jobs in {time.monotonic() - begun:.0f} s")
  return {job.name: found[job.name] for job in jobs}


def _next(job: Job, folder: epath.Path) -> Task | None:
  """The first task that has not ended well with this very command."""
  done = _done(job, folder)
  for task in job.tasks:
    if done.get(task.name, {}).get("command") != [*task.command]:
      return task
  return None


def _done(job: Job, folder: epath.Path) -> dict[str, Any]:
  path = folder / f"{job.name}.json"
  return json.loads(path.read_text()) if path.exists() else {}


def _told(job: Job, folder: epath.Path, message: str | None) -> dict[str, Any]:
  seconds = sum(one["seconds"] for one in _done(job, folder).values())
  state = "failed" if message else "done"
  return {"state": state, "seconds": seconds, "message": message}


def _started(
  job: Job,
  task: Task,
  folder: epath.Path,
  slot: int,
  slots: int,
  variables: Sequence[Mapping[str, str]],
) -> subprocess.Popen | None:
  """The process; None where one of an earlier start is still at work."""
  lock = (folder / f"{job.name}.lock").open("w")
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    lock.close()
    return None
  with lock, (folder / f"{job.name}.log").open("a") as log, _cores(slot, slots):
    log.write(f"$ {' '.join(task.command)}\n")
    log.flush()
    return subprocess.Popen(
      task.command,
      env=os.environ | variables[slot % len(variables)],
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      pass_fds=(lock.fileno(),),  # held as long as the process lives
    )


@contextlib.contextmanager
def _cores(slot: int, slots: int) -> Iterator[None]:
  """What is started in here sees its slot's part of the cores, as many as the others.

  The same program gives other bits on another number of cores.
  """
  if slots == 1 or not hasattr(os, "sched_setaffinity"):
    yield
    return
  ours = sorted(os.sched_getaffinity(0))
  each = max(len(ours) // slots, 1)
  first = slot * each % len(ours)
  os.sched_setaffinity(0, ours[first : first + each])
  try:
    yield
  finally:
    os.sched_setaffinity(0, ours)


def _outcome(one: _Running, folder: epath.Path) -> str | None:
  """Why a command has not done its work; None, and it is noted, where it has."""
  code = one.process.returncode
  lacking = one.task.lacking() if code == 0 else f"exit status {code}"
  if lacking:
    return f"{_end(folder / f'{one.job.name}.log')}\n{one.task.name}: {lacking}"
  seconds = time.monotonic() - one.started
  noted = {"command": [*one.task.command], "seconds": round(seconds, 1)}
  done = _done(one.job, folder) | {one.task.name: noted}
  logs.write_json(folder / f"{one.job.name}.json", done)
  logs.say(f"{one.job.name}: {one.task.name} done in {seconds:.0f} s")
  return None


def _end(log: epath.Path) -> str:
  return log.read_text(errors="replace").strip()[-_SAID:]


@contextlib.contextmanager
def _ended_with_us(running: list[_Running]) -> Iterator[None]:
  """Whatever ends this block, SIGTERM too, ends its processes: runs save and leave."""

  def leave(number: int, frame: Any) -> None:
    del frame
    raise SystemExit(128 + number)

  before = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
    for one in running:
      one.process.terminate()
    for one in running:
      one.process.wait()


def at_a_time(parallel: int, devices: Sequence[str]) -> int:
  """Jobs side by side: those asked for; one a device, or else one for two cores.

  Asked of a process of its own, so that no device is held here.
  """
  if devices or parallel:
    return len(devices) or parallel
  probe = [sys.executable, "-c", _PROBE]
  told = subprocess.run(probe, capture_output=True, text=True, check=True)
  if told.stdout.strip() != "cpu":
    return 1
  has = hasattr(os, "sched_getaffinity")
  cores = len(os.sched_getaffinity(0)) if has else os.cpu_count() or 1
  return max(cores // 2, 1)
