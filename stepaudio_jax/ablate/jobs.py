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
  board = _Board(jobs, folder, slots, variables)
  with _ended_with_us(board.running):
    while board.waiting or board.running:
      board.begin()
      board.settle()
      if board.running or board.waiting:
        time.sleep(_POLL_S)
  return {job.name: board.found[job.name] for job in jobs}


class _Board:
  """What waits, what runs and what is found."""

  def __init__(
    self,
    jobs: Sequence[Job],
    folder: epath.Path,
    slots: int,
    variables: Sequence[Mapping[str, str]],
  ):
    self.waiting, self.running = [*jobs], []
    self.found: dict[str, dict[str, Any]] = {}
    self._folder, self._slots, self._variables = folder, slots, variables
    self._free, self._all, self._blocked = [*range(slots)], len(jobs), set()
    self._begun, self._before = time.monotonic(), 0

  def begin(self) -> None:
    """Starts what may start; a job that was done before is found so."""
    for job in [*self.waiting]:
      if (task := _next(job, self._folder)) is None:
        self.waiting.remove(job)
        self._before += job.name not in self.found
        self.found[job.name] = _told(job, self._folder, None)
      elif self._free:
        self._start(job, task)

  def _start(self, job: Job, task: Task) -> None:
    slot = self._free[0]
    process = _started(job, task, self._folder, slot, self._slots, self._variables)
    if process is None:
      if job.name not in self._blocked:
        logs.say(f"{job.name}: an earlier start's process is at work; waits for it")
      self._blocked.add(job.name)
      return
    self.waiting.remove(job)
    self._free.remove(slot)
    self.running.append(_Running(job, task, slot, process, time.monotonic()))
    logs.say(f"{job.name}: {task.name} begins")

  def settle(self) -> None:
    """Notes what has ended; a job's next task comes before other jobs."""
    for one in [one for one in self.running if one.process.poll() is not None]:
      self.running.remove(one)
      self._free.append(one.slot)
      message = _outcome(one, self._folder)
      if message is None and _next(one.job, self._folder):
        self.waiting.insert(0, one.job)
        continue
      self.found[one.job.name] = _told(one.job, self._folder, message)
      said = f"FAILED: {message.splitlines()[-1]}" if message else "done"
      logs.say(f"{one.job.name}: {said}; {self._left()}")

  def _left(self) -> str:
    """Progress, and how long it will take if the others take as long."""
    ended = len(self.found)
    told = f"{ended} of {self._all} jobs"
    each = (time.monotonic() - self._begun) / max(ended - self._before, 1)
    minutes = each * (self._all - ended) / 60
    return f"{told}, about {minutes:.0f} min left" if ended < self._all else told


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
  return log.read_bytes().decode(errors="replace").strip()[-_SAID:]


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
