"""Parameters in a step's folder, read and written leaf by leaf.

Arrays that orbax wrote alone and uncompressed, as for an import, are also read and
written without it (core/plain.py). This file and checkpoint.py alone know orbax.

What is read is proved as it is read: the list of files by the seal, an array of a run
by the checksum among the run's metadata, one of an import by its file's CRC-32, which
is in the seal.
"""

import asyncio
import contextlib
import functools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from stepaudio_jax.core import (
  ahead,
  checksum,
  errors,
  files,
  low_rank,
  plain,
  seal,
  tree,
)
from stepaudio_jax.core.crc import Crc
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
  if not found and (folder / "config.json").exists() and _has_tensors(folder):
    raise FileNotFoundError(
      f"{folder} is a Hugging Face model, no checkpoint: import it first (python -m "
      f"stepaudio_jax.convert import --from {folder} --to CKPT)"
    )
  if not found:
    raise FileNotFoundError(f"no checkpoint in {folder} (looked for {steps}/<step>)")
  return max(found, key=lambda path: int(path.name))


def _has_tensors(folder: epath.Path) -> bool:
  return any(path.suffix == ".safetensors" for path in folder.iterdir())


class Leaves:
  """Parameters of a workdir's newest step, read a few at a time.

  Low-rank adapters are in the kernels that they adapt, see core/low_rank.py.

  Attributes:
    shapes: path ("decoder/norm/scale") → shape.
    dtypes: path → dtype.
    files: path → where it lies, if all lie in plain local files; else {}, as of a
      training run, whose arrays share a store.
  """

  def __init__(self, folder: epath.PathLike):
    """Raises:
    FileNotFoundError: there is no checkpoint.
    seal.Damaged: it is not what was written.
    """
    self._folder = files.absolute(step_folder(folder))
    fault = seal.fault(self._folder)
    if fault:
      raise _damaged(self._folder, fault)
    if not seal.sealed(self._folder):
      _warn_once(self._folder)
    self._crcs = seal.crcs(self._folder)
    with _explained(self._folder):
      described = ocp.checkpointables_metadata(self._folder)
      self._saved = described.metadata[STATE]
      found = [
        (part, path, leaf)
        for part in _PARAMS
        for path, leaf in tree.named_leaves(self._saved[part])
      ]
      self._part = {path: part for part, path, _ in found}
      self._adapted = low_rank.pairs(self._part)
      own = [path for path in self._part if not low_rank.is_part(path)]
      self._held = {path: np.dtype(leaf.dtype) for _, path, leaf in found}
      self._shape = {path: tuple(leaf.shape) for _, path, leaf in found}
      self.shapes = {path: self._shape[path] for path in own}
      self.dtypes = {path: self._held[path] for path in self.shapes}
      self._checksums = (described.custom_metadata or {}).get("checksums", {})
      self.files = self._files()

  def _files(self) -> dict[str, Stored]:
    found = {}
    if files.is_remote(self._folder) or self._adapted:
      return {}
    for path, part in self._part.items():
      file = plain.opened(_array_folder(self._folder, part, path))
      if file is None or (self._crcs and self._crc(path) is None):
        return {}
      found[path] = file
    return found

  def _crc(self, path: str) -> int | None:
    """Of its file, if it is plain and the seal knows."""
    array = _array_folder(self._folder, self._part[path], path)
    file = plain.chunk(array, self._shape[path])
    return self._crcs.get(str(file.relative_to(pathlib.Path(self._folder))))

  def read(
    self, paths: Iterable[str] | None = None, *, keep_dtype: bool = True
  ) -> Iterator[tuple[str, np.ndarray]]:
    """(path, host array) of those or all, about `_SOME_BYTES` in memory at a time.

    Args:
      keep_dtype: as they are stored; otherwise as float32.

    Raises:
      seal.Damaged: an array is not what was written.
    """
    for path, leaf in self._read(paths or self.dtypes):
      if path in self._adapted:
        names = (*self._adapted[path], low_rank.SCALE)
        beside = dict(self._read(names))
        leaf = low_rank.merged(leaf, *(beside[name] for name in names))
      yield path, leaf if keep_dtype else leaf.astype(np.float32, copy=False)

  def _read(self, wanted_paths: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(path, host array) as stored."""
    dtypes = {path: self._held[path] for path in wanted_paths}
    size = {p: math.prod(self._shape[p]) * dtypes[p].itemsize for p in dtypes}
    for paths in _batched(size, _SOME_BYTES):

      def wanted(path: Any, leaf: Any, paths=paths) -> Any:
        if path[0].key not in _PARAMS:  # whose paths may hold numbers
          return ocp.PLACEHOLDER
        name = "/".join(key.key for key in path[1:])
        if name not in paths:
          return ocp.PLACEHOLDER
        return np.empty(leaf.shape, dtypes[name])

      like = jax.tree_util.tree_map_with_path(wanted, dict(self._saved))
      with _explained(self._folder):
        state = ocp.load_checkpointables(self._folder, {STATE: like})[STATE]
      held = {p: x for part in _PARAMS for p, x in tree.named_leaves(state[part])}
      del state
      for path in paths:
        self._prove(path, held[path])
        yield path, held.pop(path)

  def _prove(self, path: str, array: np.ndarray) -> None:
    known = self._checksums.get(f"{self._part[path]}/{path}")
    if known is not None and checksum.of_host(array) != known:
      raise _damaged(self._folder, f"parameter {path} changed since it was written")
    if known is None and self._crc(path) is not None:
      crc = _crc(array.nbytes)
      crc.add(array, 0)
      self.prove({path: crc})

  def prove(self, sums: Mapping[str, Crc]) -> None:
    """Raises:
    seal.Damaged: the sum of a file, by `sums` and of all its bytes, is another than
      when it was written.
    """
    for path, crc in sums.items():
      if self._crc(path) not in (None, crc.value):
        raise _damaged(self._folder, f"parameter {path} changed since it was written")


def sums(stored: Mapping[str, Stored]) -> dict[str, Crc]:
  """Path → the checksum of a plain file, whose elements are still to be added."""
  return {path: _crc(file.nbytes) for path, file in stored.items()}


def _crc(nbytes: int) -> Crc:
  end = plain.tail(nbytes)
  out = Crc(nbytes + len(end))
  out.add(end, nbytes)
  return out


@contextlib.contextmanager
def _explained(folder: epath.Path) -> Iterator[None]:
  """What orbax and its storage raise, who raise what they like, in one line."""
  # Orbax's tasks that fail too would be told one by one when they are collected.
  asyncio.log.logger.addFilter(_is_other)
  try:
    yield
  except (MemoryError, RuntimeError):  # of this machine, not of the checkpoint
    raise
  except Exception as error:
    fault = f"it cannot be read: {errors.short(errors.origin(error))}"
    raise _damaged(folder, fault) from error


def _is_other(record: Any) -> bool:
  return "exception was never retrieved" not in record.getMessage()


def _damaged(folder: epath.Path, fault: str) -> seal.Damaged:
  """The error, with what can be done about it."""
  steps = [p for p in folder.parent.iterdir() if p.name.isdigit()]
  earlier = (
    sorted(
      (path for path in steps if int(path.name) < int(folder.name)),
      key=lambda path: -int(path.name),
    )
    if folder.name.isdigit()
    else []
  )
  whole = next((path for path in earlier if not seal.fault(path)), None)
  advice = (
    f"name an earlier step folder: {whole}"
    if whole
    else "no earlier one is whole: make it again, by the same import or training"
  )
  return seal.Damaged(f"the checkpoint {folder} is damaged: {fault}; {advice}")


@functools.cache
def _warn_once(folder: epath.Path) -> None:
  logging.warning(
    "the checkpoint %s has no %s, as of an earlier version: changes would not be seen",
    folder,
    seal.NAME,
  )


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
  """Writes and seals step 0 of a workdir from parameters that come one by one.

  The checkpoint is one that `Leaves` reads; only about `_SOME_BYTES` of it, or the
  largest leaf, are in memory at a time.

  Args:
    sizes: path → bytes, in the order of `leaves`.
  """
  _save(workdir, sizes, leaves, prove=True)
  seal.seal(step_folder(workdir))


def _save(
  workdir: epath.PathLike,
  sizes: dict[str, int],
  leaves: Iterator[tuple[str, Any]],
  *,
  prove: bool,
) -> None:
  folder, proof = files.absolute(workdir) / FOLDER / "0", {}
  saving = context()
  # A file for each leaf instead of a store for each part: half the time.
  saving.array.saving.use_ocdbt = False
  saving.memory.deepcopy_host_arrays = False  # no leaf changes while it is written
  with saving:
    coming = ahead.ahead(leaves)
    for paths in _batched(sizes, _SOME_BYTES):
      some = [next(coming) for _ in paths]
      assert [path for path, _ in some] == paths, paths
      if prove:
        proof |= {f"params/{path}": _checksum(leaf) for path, leaf in some}
      ocp.partial.save(folder, {"params": tree.nested(some)})
      del some
    rest = {"frozen": {}, "opt_state": {}, "step": np.zeros((), np.int32)}
    metadata = {"data": json.dumps({})} | ({"checksums": proof} if prove else {})
    ocp.partial.save(folder, rest, custom_metadata=metadata)
    ocp.partial.finalize(folder)


def _checksum(leaf: Any) -> int:
  if isinstance(leaf, np.ndarray):
    return checksum.of_host(leaf)
  return checksum.checksums({"": leaf})[""]


def save_blank(
  workdir: epath.PathLike,
  shapes: Mapping[str, tuple[int, ...]],
  dtypes: Mapping[str, np.dtype],
) -> dict[str, Stored]:
  """As `save_leaves`, of a local workdir, but of parameters that are still to come.

  Returns:
    path → the file that its bytes are to be written to; then it is to be sealed.
  """
  small = {path: np.zeros((1,) * len(shapes[path]), dtypes[path]) for path in shapes}
  nbytes = {path: x.nbytes for path, x in small.items()}
  _save(workdir, nbytes, iter(small.items()), prove=False)
  step = step_folder(workdir)
  return {
    path: plain.enlarged(_array_folder(step, "params", path), shape)
    for path, shape in shapes.items()
  }


def seal_filled(
  workdir: epath.PathLike, stored: Mapping[str, Stored], sums: Mapping[str, Crc]
) -> None:
  """Seals what `save_blank` made, of whose files all bytes have been written."""
  step = pathlib.Path(step_folder(workdir))
  known = {
    str(pathlib.Path(file.file).relative_to(step)): sums[path].value
    for path, file in stored.items()
  }
  seal.seal(step, known)


def _array_folder(step: epath.Path, part: str, path: str) -> pathlib.Path:
  return pathlib.Path(step) / STATE / ".".join([part, *path.split("/")])


def context() -> ocp.Context:
  """How checkpoints are written."""
  out = ocp.Context()
  out.array.saving.use_compression = False  # zstd costs ¾ of the speed
  return out
