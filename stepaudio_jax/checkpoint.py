"""Checkpoints: one orbax directory per step with everything a run needs to go on.

The only file that knows orbax. A checkpoint is written aside and renamed, so a run
killed while writing finds the one before.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from stepaudio_jax.core import ahead, files, tree
from stepaudio_jax.core.types import Params, TrainState
from stepaudio_jax.models import sizes
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import PARTS
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

FOLDER = "checkpoints"
REWARD_PARTS = (*PARTS, "rewards")
_MODEL = "model.json"
_TOKENIZER = "tokenizer"
_REWARDS = "reward_model.json"
_SOURCES = "sources.json"
_STATE = "state"
_PARAMS = ("params", "frozen")
# Of a size, what no shape of a parameter depends on.
_UNSEEN = ("norm_eps", "rope_theta", "max_positions")
_SOME_BYTES = 256 << 20


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
      epath.Path(workdir).resolve() / FOLDER,
      context=_context(),
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
      step, {_STATE: _as_tree(state)}, custom_metadata={"data": json.dumps(data)}
    )

  def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint, with the shapes and shardings of `like`."""
    step = self.latest()
    loaded = self._checkpointer.load_checkpointables(step, {_STATE: _as_tree(like)})
    meta = self._checkpointer.metadata(step).custom_metadata
    return TrainState(**loaded[_STATE]), json.loads(meta["data"])

  def close(self) -> None:
    self._checkpointer.close()


def _as_tree(state: TrainState) -> dict[str, Any]:
  names = ("params", "frozen", "opt_state", "step", "rng")
  return {name: getattr(state, name) for name in names}


def step_folder(folder: epath.PathLike) -> epath.Path:
  """The step directory meant by `folder`: itself, or a workdir's newest step.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  folder = epath.Path(folder)
  if (folder / _STATE).exists():
    return folder
  steps = folder / FOLDER
  found = [p for p in steps.iterdir() if p.name.isdigit()] if steps.exists() else []
  if not found:
    raise FileNotFoundError(f"no checkpoint in {folder} (looked for {steps}/<step>)")
  return max(found, key=lambda path: int(path.name))


def pinned(
  workdir: epath.PathLike, folders: dict[str, epath.PathLike]
) -> dict[str, epath.Path]:
  """The step folders that a run reads, the same at every start of the run.

  A folder of another run means its newest step; should that run go on, this one would
  otherwise resume with another reference. The first start writes them down.

  Args:
    folders: {name: a workdir or one of its step folders}.
  """
  workdir = epath.Path(workdir)
  path = workdir / _SOURCES
  # Without config.json no run has begun: the file is that of a start that failed.
  if path.exists() and (workdir / "config.json").exists():
    known = json.loads(path.read_text())
    return {name: epath.Path(known[name]) for name in folders}
  found = {name: step_folder(folder).resolve() for name, folder in folders.items()}
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.aside(path) as partial:
    partial.write_text(json.dumps({k: str(v) for k, v in found.items()}, indent=1))
  return found


def load_params(folder: epath.PathLike, *, keep_dtype: bool = False) -> Params:
  """All parameters, trained and frozen, of a workdir's newest step, on the host.

  Args:
    keep_dtype: as they are stored; otherwise as the float32 that training needs.
  """
  return tree.nested(Leaves(folder).read(keep_dtype=keep_dtype))


class Leaves:
  """Parameters of a workdir's newest step, read a few at a time.

  Attributes:
    shapes: path ("decoder/norm/scale") → shape.
    dtypes: path → dtype.
  """

  def __init__(self, folder: epath.PathLike):
    self._folder = step_folder(folder).resolve()
    self._saved = ocp.checkpointables_metadata(self._folder).metadata[_STATE]
    found = {p: x for part in _PARAMS for p, x in tree.named_leaves(self._saved[part])}
    self.shapes = {path: tuple(leaf.shape) for path, leaf in found.items()}
    self.dtypes = {path: np.dtype(leaf.dtype) for path, leaf in found.items()}

  def read(
    self, paths: Iterable[str] | None = None, *, keep_dtype: bool = True
  ) -> Iterator[tuple[str, np.ndarray]]:
    """(path, host array) of those or all, about `_SOME_BYTES` in memory at a time."""
    dtypes = {path: self.dtypes[path] for path in paths or self.dtypes}
    dtypes = dtypes if keep_dtype else dict.fromkeys(dtypes, np.dtype(np.float32))
    size = {p: math.prod(self.shapes[p]) * dtypes[p].itemsize for p in dtypes}
    for paths in _batched(size, _SOME_BYTES):

      def wanted(path: Any, leaf: Any, paths=paths) -> Any:
        if path[0].key not in _PARAMS:  # whose paths may hold numbers
          return ocp.PLACEHOLDER
        name = "/".join(key.key for key in path[1:])
        if name not in paths:
          return ocp.PLACEHOLDER
        return np.empty(leaf.shape, dtypes[name])

      like = jax.tree_util.tree_map_with_path(wanted, dict(self._saved))
      state = ocp.load_checkpointables(self._folder, {_STATE: like})[_STATE]
      held = {p: x for part in _PARAMS for p, x in tree.named_leaves(state[part])}
      del state
      for path in paths:
        yield path, held.pop(path)


def _batched(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
  """Names in order, so many together as weigh no more than `most`, at least one."""
  names, used = [], 0
  for name, size in sizes.items():
    if names and used + size > most:
      yield names
      names, used = [], 0
    names.append(name)
    used += size
  if names:
    yield names


def save_leaves(
  workdir: epath.PathLike, sizes: dict[str, int], leaves: Iterator[tuple[str, Any]]
) -> None:
  """Writes step 0 of a workdir from parameters that come one after the other.

  The checkpoint is one that `load_params` reads; only about `_SOME_BYTES` of it, or the
  largest leaf, are in memory at a time.

  Args:
    sizes: path → bytes, in the order of `leaves`.
  """
  folder = epath.Path(workdir).resolve() / FOLDER / "0"
  context = _context()
  # A file for each leaf instead of a store for each part: half the time.
  context.array.saving.use_ocdbt = False
  context.memory.deepcopy_host_arrays = False  # no leaf changes while it is written
  with context:
    coming = ahead.ahead(leaves)
    for paths in _batched(sizes, _SOME_BYTES):
      some = [next(coming) for _ in paths]
      assert [path for path, _ in some] == paths, paths
      ocp.partial.save(folder, {"params": tree.nested(some)})
      del some
    rest = {"frozen": {}, "opt_state": {}, "step": np.zeros((), np.int32)}
    metadata = {"data": json.dumps({})}
    ocp.partial.save(folder, rest, custom_metadata=metadata)
    ocp.partial.finalize(folder)


def _context() -> ocp.Context:
  context = ocp.Context()
  context.array.saving.use_compression = False  # zstd costs ¾ of the speed
  return context


@dataclasses.dataclass(frozen=True)
class Model:
  """What a checkpoint holds for use: parameters (host arrays), size, tokenizer."""

  params: Params
  size: Size
  tokenizer: Tokenizer


def describe(workdir: epath.PathLike, size: Size, tokenizer: Tokenizer | None) -> None:
  """Writes model.json and the tokenizer beside the checkpoints, for `load_model`.

  An encoder alone has no tokenizer.
  """
  workdir = epath.Path(workdir)
  text = json.dumps(dataclasses.asdict(size), indent=1)
  (workdir / _MODEL).write_text(text)
  if tokenizer is not None:
    tokenizer.save(workdir / _TOKENIZER)


@dataclasses.dataclass(frozen=True)
class RewardModel:
  """A backbone with heads, `params["rewards"]`, that score replies.

  Attributes:
    params: host arrays.
    dimensions: names, in the order of the heads.
    dims_on_thought: those that read the turn with its thought.
  """

  params: Params
  size: Size
  tokenizer: Tokenizer
  dimensions: tuple[str, ...]
  dims_on_thought: tuple[str, ...]

  @property
  def on_thought(self) -> tuple[bool, ...]:
    """Of each dimension, as scoring.rewards takes it."""
    return tuple(name in self.dims_on_thought for name in self.dimensions)


def describe_rewards(
  workdir: epath.PathLike, dimensions: Sequence[str], dims_on_thought: Sequence[str]
) -> None:
  """Writes reward_model.json beside `describe`'s files, for `load_reward_model`."""
  row = {"dimensions": [*dimensions], "dims_on_thought": [*dims_on_thought]}
  (epath.Path(workdir) / _REWARDS).write_text(json.dumps(row, indent=1))


def load_reward_model(folder: epath.PathLike) -> RewardModel:
  """A reward model from a run's workdir (newest step) or one of its step folders.

  Raises:
    FileNotFoundError: no checkpoint is there.
    ValueError: the checkpoint holds no reward model.
  """
  params, row = load_params(folder, keep_dtype=True), reward_dimensions(folder)
  lacking = [part for part in REWARD_PARTS if part not in params]
  if lacking or not row:
    raise ValueError(
      f"{folder} holds no reward model: parameters {sorted(params)}, lacking {lacking}"
      f"; {_REWARDS} is {'there' if row else 'absent'}"
    )
  return RewardModel(
    {part: params[part] for part in REWARD_PARTS},
    load_size(folder),
    load_tokenizer(folder),
    tuple(row["dimensions"]),
    tuple(row["dims_on_thought"]),
  )


def reward_dimensions(folder: epath.PathLike) -> dict[str, list[str]]:
  """{"dimensions", "dims_on_thought"} of a reward model; {} of another."""
  described = _workdir(folder) / _REWARDS
  return json.loads(described.read_text()) if described.exists() else {}


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
  """The tokenizer of a workdir's model."""
  return tokenizers.load(_workdir(folder) / _TOKENIZER)


def load_size(folder: epath.PathLike) -> Size:
  """The size of a workdir's model."""
  return Size(**json.loads((_workdir(folder) / _MODEL).read_text()))


def start_size(name: str, init: epath.PathLike) -> Size:
  """The size that a run trains: the row `name`, with what shapes do not show of `init`.

  Weights go with the rotations and the epsilon that they were trained with, which
  differ between releases of one shape. "init" is `init`'s own size, row or not.
  """
  if name == "init" and init:
    return load_size(init)
  row = sizes.size(name)
  if not init:
    return row
  its = load_size(init)
  return dataclasses.replace(row, **{key: getattr(its, key) for key in _UNSEEN})


def load_model(folder: epath.PathLike) -> Model:
  """A model from a run's workdir (newest step) or one of its step folders.

  Raises:
    FileNotFoundError: no checkpoint is there.
    ValueError: the checkpoint is of a stage that trains no whole model, or it is a
      reward model, whose decoder has forgotten how to write.
  """
  params = load_params(folder, keep_dtype=True)
  if (_workdir(folder) / _REWARDS).exists():
    raise ValueError(f"{folder} holds a reward model, which writes no replies")
  lacking = [part for part in PARTS if part not in params]
  if lacking:
    raise ValueError(f"{folder} holds {sorted(params)} and lacks {lacking}")
  return Model(
    {part: params[part] for part in PARTS},
    load_size(folder),
    load_tokenizer(folder),
  )


def _workdir(folder: epath.PathLike) -> epath.Path:
  return step_folder(folder).parent.parent
