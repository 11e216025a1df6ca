"""Checkpoints: one orbax directory per step with everything a run needs to go on.

A checkpoint is written aside and renamed, so a run killed while writing finds the one
before. This file and core/storage.py are the only ones that know orbax.
"""

import json
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from stepaudio_jax.core import storage
from stepaudio_jax.core.types import TrainState


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
    self.every_steps, self._workdir = every_steps, workdir
    self._checkpointer = ocp.training.Checkpointer(
      epath.Path(workdir).resolve() / storage.FOLDER,
      context=storage.context(),
      save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  def due(self, step: int, last: int) -> bool:
    return step == last or step % self.every_steps == 0

  def latest(self) -> int | None:
    found = self._checkpointer.latest
    return None if found is None else found.step

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
    """Writes state and the data iterator's position; returns when it is on disk."""
    self._checkpointer.save_checkpointables(
      step, {storage.STATE: _as_tree(state)}, custom_metadata={"data": json.dumps(data)}
    )

  def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint, with the shapes and shardings of `like`."""
    step = self.latest()
    loaded = self._checkpointer.load_checkpointables(
      step, {storage.STATE: _as_tree(like)}
    )
    meta = self._checkpointer.metadata(step).custom_metadata
    return TrainState(**loaded[storage.STATE]), json.loads(meta["data"])

  def close(self) -> None:
    self._checkpointer.close()


def _as_tree(state: TrainState) -> dict[str, Any]:
  names = ("params", "frozen", "opt_state", "step", "rng")
  return {name: getattr(state, name) for name in names}
