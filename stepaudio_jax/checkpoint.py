"""Checkpoints: one orbax directory per step with everything a run needs to go on.

A thread writes them while the run goes on, aside and renamed, so a run killed while
writing finds the one before. What is read is proved to be what was written: the list of
files by core/seal.py, the arrays by core/checksum.py. This file and core/storage.py are
the only ones that know orbax.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from stepaudio_jax.core import checksum, errors, files, processes, seal, storage
from stepaudio_jax.core.types import TrainState

_WRITING = ".orbax-checkpoint-tmp"  # what orbax adds to a name until all is written
_COMMITTED = "commit_success.txt"  # orbax's last file
_LEAVING = ".leaving"  # ours, while an old one is deleted
_DAMAGED = ".damaged"


class NotSaved(OSError):
  """A checkpoint could not be written; those before it are whole."""


class Checkpoints:
  """Saves and restores the checkpoints of one workdir.

  Args:
    workdir: the run's folder; checkpoints lie in its sub-folder `checkpoints`.
    every_steps: a checkpoint is due after each multiple of it.
    keep: how many of the newest stay.
  """

  def __init__(self, workdir: epath.PathLike, *, every_steps: int, keep: int):
    if every_steps < 1 or keep < 1:
      raise ValueError(f"every_steps={every_steps} and keep={keep} must be at least 1")
    self.every_steps, self._workdir, self._keep = every_steps, workdir, keep
    self._folder = files.absolute(workdir) / storage.FOLDER
    self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    self._writing: tuple[int, Future] | None = None
    if processes.first():
      self._folder.mkdir(parents=True, exist_ok=True)
      for path in self._entries():
        if _is_half(path):  # a killed run's
          path.rmtree()
    processes.barrier("checkpoints are in order")

  def due(self, step: int, last: int) -> bool:
    return step == last or step % self.every_steps == 0

  def latest(self) -> int | None:
    """The newest step that is on disk, damaged or not."""
    return max(self._steps(), default=None)

  def begun(self, total_steps: int) -> bool:
    """Whether there is a checkpoint to resume from.

    Raises:
      ValueError: it lies beyond `total_steps`.
    """
    latest = self.latest()
    if latest is not None and latest > total_steps:
      has = f"{self._workdir} holds step {latest}"
      raise ValueError(f"total_steps={total_steps}, but {has}")
    return latest is not None

  def save(self, step: int, state: TrainState, data: dict[str, Any]) -> None:
    """Takes a copy of state and data iterator's position; a thread writes it.

    Raises:
      NotSaved: the checkpoint before this one could not be written, or this one cannot
        even be begun.
    """
    self.wait()
    held, position = _as_tree(state), json.dumps(data)
    proof = checksum.checksums(held) | {"data": checksum.of_text(position)}
    try:
      with storage.context():
        response = ocp.save_checkpointables_async(
          self._folder / str(step),
          {storage.STATE: held},
          custom_metadata={"data": position, "checksums": proof},
        )
    except (OSError, ValueError) as error:
      raise self._not_saved(step, error) from error
    self._writing = step, self._pool.submit(self._finish, step, response)

  def wait(self) -> None:
    """Returns when what `save` took is on disk.

    Raises:
      NotSaved: it could not be written.
    """
    if self._writing is None:
      return
    (step, written), self._writing = self._writing, None
    try:
      written.result()
    except Exception as error:
      raise self._not_saved(step, error) from error

  def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The newest whole checkpoint, with the shapes and shardings of `like`.

    Damaged ones that are newer are renamed, with a warning: nothing is lost, and the
    run that goes on can write their steps again.

    Raises:
      ValueError: none is whole; each is named with what is wrong with it.
    """
    faults: dict[int, str] = {}
    for step in sorted(self._steps(), reverse=True):
      try:
        found = self._read(step, like)
      except seal.Damaged as error:
        faults[step] = str(error)
        continue
      for bad, fault in faults.items():
        self._set_aside(bad, fault, step)
      processes.barrier("damaged checkpoints are aside")
      return found
    listed = "; ".join(f"step {step}: {fault}" for step, fault in faults.items())
    raise ValueError(
      f"no checkpoint in {self._folder} is whole: {listed}. Nothing was changed; to "
      "begin anew, name another workdir or move this one's checkpoints away"
    )

  def close(self) -> None:
    """Waits for what is being written.

    Raises:
      NotSaved: it could not be written.
    """
    try:
      self.wait()
    finally:
      self._pool.shutdown()

  def _steps(self) -> list[int]:
    return [int(p.name) for p in self._entries() if p.name.isdigit()]

  def _entries(self) -> list[epath.Path]:
    """None in a bucket, where what is empty is not there."""
    return [*self._folder.iterdir()] if self._folder.exists() else []

  def _finish(self, step: int, response: ocp.AsyncResponse[None]) -> None:
    response.result()
    if processes.first():
      seal.seal(self._folder / str(step))
      for old in sorted(self._steps())[: -self._keep]:
        _remove(self._folder / str(old))

  def _not_saved(self, step: int, error: Exception) -> NotSaved:
    if processes.first():  # a disk that is full needs the room
      (self._folder / f"{step}{_WRITING}").rmtree(missing_ok=True)
    latest = self.latest()
    before = "there is none before it" if latest is None else f"step {latest} is whole"
    return NotSaved(
      f"the checkpoint of step {step} was not written to {self._folder}: "
      f"{errors.short(error)} ({before}; the same command goes on from there)"
    )

  def _read(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """One checkpoint, if all processes find it whole.

    Raises:
      seal.Damaged: saying what is wrong.
    """
    folder = self._folder / str(step)
    _agree(seal.fault(folder))
    loaded, meta, fault = None, {}, ""
    try:
      loaded = _load(folder, _as_tree(like))
      meta = ocp.checkpointables_metadata(folder).custom_metadata or {}
      fault = "" if "data" in meta else "the position in the data is lost"
    except (MemoryError, RuntimeError):  # of this machine, not of the checkpoint
      raise
    except Exception as error:  # orbax and its storage raise what they like
      fault = f"it cannot be read: {errors.short(errors.origin(error))}"
    _agree(fault)
    proof = checksum.checksums(loaded) | {"data": checksum.of_text(meta["data"])}
    # Runs of earlier versions wrote no checksums.
    changed = checksum.changed(meta.get("checksums", proof), proof)
    _agree(f"changed since it was written: {', '.join(changed)}" if changed else "")
    return TrainState(**loaded), json.loads(meta["data"])

  def _set_aside(self, step: int, fault: str, used: int) -> None:
    logging.warning(
      "the checkpoint of step %d in %s is damaged (%s); it is set aside and the run "
      "goes on from step %d",
      step,
      self._folder,
      fault,
      used,
    )
    if processes.first():
      path, names = self._folder / str(step), {p.name for p in self._entries()}
      free = (f"{step}{_DAMAGED}" + (f".{n}" if n else "") for n in range(len(names)))
      path.rename(self._folder / next(name for name in free if name not in names))


def _as_tree(state: TrainState) -> dict[str, Any]:
  names = ("params", "frozen", "opt_state", "step", "rng")
  return {name: getattr(state, name) for name in names}


def _load(folder: epath.Path, like: dict[str, Any]) -> dict[str, Any]:
  """Each process for itself: one that fails leaves no other waiting."""
  alone = storage.context()
  alone.multiprocessing.active_processes = {jax.process_index()}
  alone.multiprocessing.primary_host = jax.process_index()
  with alone:
    return ocp.load_checkpointables(folder, {storage.STATE: like})[storage.STATE]


def _is_half(path: epath.Path) -> bool:
  """Whether a kill left it while it was written or deleted."""
  if not files.is_remote(path):
    return path.name.endswith((_WRITING, _LEAVING))
  # In a bucket nothing is renamed: a last file says that all others are there.
  return path.name.isdigit() and not (path / _COMMITTED).exists()


def _remove(folder: epath.Path) -> None:
  """Deletes an old one; half of it must not look like a whole one after a kill."""
  if files.is_remote(folder):
    (folder / _COMMITTED).unlink(missing_ok=True)
  else:
    folder = folder.rename(folder.with_name(folder.name + _LEAVING))
  folder.rmtree()


def _agree(fault: str) -> None:
  """Raises seal.Damaged on every process where one has found a fault."""
  if not processes.everywhere(not fault):
    raise seal.Damaged(fault or "another process cannot read it")
