"""Parameters in a step's folder, read and written leaf by leaf.

Arrays that orbax wrote alone and uncompressed, as for an import, are also read and
written without it (core/plain.py). This file and checkpoint.py alone know orbax.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from stepaudio_jax.core import ahead, files, plain, tree
from stepaudio_jax.core.disk import Stored

FOLDER = "checkpoints"
STATE = "state"
_PARAMS = ("params", "frozen")
_SOME_BYTES = 256 << 20


def step_folder(folder: epath.PathLike) -> epath.Path:
  """The step directory meant by `folder`: itself, or a workdir's newest step.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  folder = epath.Path(folder)
  if (folder / STATE).exists():
    return folder
  steps = folder / FOLDER
  found = [p for p in steps.iterdir() if p.name.isdigit()] if steps.exists() else []
  if not found:
    raise FileNotFoundError(f"no checkpoint in {folder} (looked for {steps}/<step>)")
  return max(found, key=lambda path: int(path.name))


class Leaves:
  """Parameters of a workdir's newest step, read a few at a time.

  Attributes:
    shapes: path ("decoder/norm/scale") → shape.
    dtypes: path → dtype.
    files: path → where it lies, if all lie in plain local files; else {}, as of a
      training run, whose arrays share a store.
  """

  def __init__(self, folder: epath.PathLike):
    self._folder = files.absolute(step_folder(folder))
    self._saved = ocp.checkpointables_metadata(self._folder).metadata[STATE]
    found = {p: x for part in _PARAMS for p, x in tree.named_leaves(self._saved[part])}
    self.shapes = {path: tuple(leaf.shape) for path, leaf in found.items()}
    self.dtypes = {path: np.dtype(leaf.dtype) for path, leaf in found.items()}
    self.files = self._files()

  def _files(self) -> dict[str, Stored]:
    found = {}
    for part in () if files.is_remote(self._folder) else _PARAMS:
      for path, _ in tree.named_leaves(self._saved[part]):
        file = plain.opened(_array_folder(self._folder, part, path))
        if file is None:
          return {}
        found[path] = file
    return found

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
      state = ocp.load_checkpointables(self._folder, {STATE: like})[STATE]
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

  The checkpoint is one that `Leaves` reads; only about `_SOME_BYTES` of it, or the
  largest leaf, are in memory at a time.

  Args:
    sizes: path → bytes, in the order of `leaves`.
  """
  folder = files.absolute(workdir) / FOLDER / "0"
  saving = context()
  # A file for each leaf instead of a store for each part: half the time.
  saving.array.saving.use_ocdbt = False
  saving.memory.deepcopy_host_arrays = False  # no leaf changes while it is written
  with saving:
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


def save_blank(
  workdir: epath.PathLike,
  shapes: Mapping[str, tuple[int, ...]],
  dtypes: Mapping[str, np.dtype],
) -> dict[str, Stored]:
  """As `save_leaves`, of a local workdir, but of parameters that are still to come.

  Returns:
    path → the file that its bytes are to be written to.
  """
  small = {path: np.zeros((1,) * len(shapes[path]), dtypes[path]) for path in shapes}
  save_leaves(workdir, {p: x.nbytes for p, x in small.items()}, iter(small.items()))
  step = step_folder(workdir)
  return {
    path: plain.enlarged(_array_folder(step, "params", path), shape)
    for path, shape in shapes.items()
  }


def _array_folder(step: epath.Path, part: str, path: str) -> pathlib.Path:
  return pathlib.Path(step) / STATE / ".".join([part, *path.split("/")])


def context() -> ocp.Context:
  """How checkpoints are written."""
  out = ocp.Context()
  out.array.saving.use_compression = False  # zstd costs ¾ of the speed
  return out
