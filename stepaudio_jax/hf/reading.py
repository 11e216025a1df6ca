"""The leaves of an import: each tensor is read once, straight to its place."""

import collections
import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Sharding

from stepaudio_jax.core import disk, threads, tree
from stepaudio_jax.core.crc import Crc
from stepaudio_jax.core.disk import Stored
from stepaudio_jax.core.types import Params
from stepaudio_jax.hf import blocks, heads, kinds, table
from stepaudio_jax.hf.plan import Plan, Taken
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.sizes import Size

# First and last + 1 of every axis.
_Bounds = tuple[tuple[int, int], ...]
Split = Callable[[str, tuple[int, ...], Sequence[str | None]], Sharding]


def sizes(plan: Plan) -> dict[str, int]:
  """Path → bytes of every leaf, in the order of `leaves`."""
  shapes = plan.shapes
  return {p: math.prod(s) * plan.dtypes[p].itemsize for p, s in shapes.items()}


def leaves(
  plan: Plan,
  *,
  seed: int = 0,
  split: Split | None = None,
  wrong: dict[str, int] | None = None,
) -> Iterator[tuple[str, np.ndarray | jax.Array]]:
  """(path, leaf) of the whole checkpoint; one leaf and one tensor are in memory.

  Args:
    seed: of the parts that are made anew.
    wrong: gets how many values of a tensor are not finite, by its key, if any.
    split: how a leaf of that path, shape and logical names of axes lies on a mesh.

  Raises:
    ValueError: before anything is read, with all that `split` raises.
  """
  shardings = _shardings(plan, split) if split is not None else {}

  def found() -> Iterator[tuple[str, np.ndarray | jax.Array]]:
    made, scratch = _made(plan, seed), disk.Scratch()
    for path, shape in plan.shapes.items():
      lies = shardings.get(path)
      yield path, _leaf(plan, path, shape, made, lies, scratch, wrong)

  return found()


def fill(
  plan: Plan,
  files: Mapping[str, Stored],
  sums: Mapping[str, Crc],
  *,
  seed: int = 0,
) -> dict[str, int]:
  """Writes all leaves to those files, a few tensors at a time.

  Args:
    files: path → file of that leaf's shape and dtype.
    sums: path → its checksum, to which what is written is added.
    seed: of the parts that are made anew.

  Returns:
    torch key, or the leaf's path, → how many of its values are not finite.
  """
  wrong, lock = collections.Counter(), threading.Lock()
  read, turned = disk.Scratch(), disk.Scratch()
  with disk.writable(file.file for file in files.values()) as targets:

    def put(
      path: str, array: np.ndarray, layer: int | None, first: int, name: str
    ) -> None:
      file = files[path]
      start = file.layer(layer).start + first * file.dtype.itemsize
      for place, piece in blocks.pieces(array, file.dtype, turned, start):
        targets[file.file].write(piece, place)
        sums[path].add(piece, place)
        bad = blocks.not_finite(piece)
        if bad:
          with lock:
            wrong[name] += bad

    def one(item: tuple[str, Taken, int]) -> None:
      path, taken, first = item
      entry, tensor = taken.entry, _tensor(taken, files[path].dtype, read)
      straight = entry.row.straight
      ours = tensor if straight else table.ours(tensor, entry, plan.size)
      put(path, ours, entry.layer, first, entry.key)

    for path, array in _made(plan, seed).items():
      put(path, array, None, 0, path)
    threads.each(one, _parts(plan))
  return dict(sorted(wrong.items()))


def _parts(plan: Plan) -> Iterator[tuple[str, Taken, int]]:
  """(path, tensor, which of its elements is the first) of everything to read.

  In the order in which it lies in the sources, but first of all what would keep one
  thread busy when the others have no more to do; large tensors in parts, if they need
  not be turned.
  """
  found = [(path, taken) for path, some in plan.taken.items() for taken in some]
  found.sort(key=lambda item: (str(item[1].tensor.file), item[1].tensor.start))
  found.sort(key=lambda item: item[1].tensor.nbytes < disk.LARGE_BYTES)
  for path, taken in found:
    if _padded(taken) or not taken.entry.row.straight:
      yield path, taken, 0
      continue
    for first, part in taken.tensor.parts():
      yield path, dataclasses.replace(taken, tensor=part), first


def _padded(taken: Taken) -> bool:
  """Whether it is Qwen's vocabulary, which gets more rows."""
  return taken.kind.extended and taken.entry.row.theirs == "V D"


def _made(plan: Plan, seed: int) -> dict[str, np.ndarray]:
  """The leaves that are no tensors of the directories': heads, and parts anew."""
  anew = tree.named_leaves(_anew(plan.size, plan.fresh, seed))
  found = {path: np.asarray(leaf) for path, leaf in anew}
  return found | {p: heads.leaf(p, tensor) for p, tensor in plan.heads.items()}


def _shardings(plan: Plan, split: Split) -> dict[str, Sharding]:
  boxed = step_audio.abstract_params(plan.size, boxed=True)
  names = {}
  flat = jax.tree_util.tree_flatten_with_path(boxed, is_leaf=_is_box)[0]
  for path, box in flat:
    names["/".join(key.key for key in path)] = box.names
  found, problems = {}, []
  for path, shape in plan.shapes.items():
    axes = names.get(path, (None,) * len(shape))  # heads are small and on every device
    try:
      found[path] = split(path, shape, axes)
    except ValueError as error:
      problems.append(str(error))
  if problems:
    raise ValueError("\n  ".join(["the mesh does not fit:", *problems]))
  return found


def _is_box(leaf: object) -> bool:
  return isinstance(leaf, nn.meta.AxisMetadata)


def _anew(size: Size, parts: tuple[str, ...], seed: int) -> Params:
  def made(key: jax.Array) -> Params:
    params = step_audio.init_params(key, size)
    return {part: params[part] for part in parts}

  # As one program, what is not asked for is not computed.
  return jax.jit(made)(jax.random.key(seed)) if parts else {}


def _leaf(
  plan: Plan,
  path: str,
  shape: tuple[int, ...],
  made: dict[str, np.ndarray],
  split: Sharding | None,
  scratch: disk.Scratch,
  wrong: dict[str, int] | None,
) -> np.ndarray | jax.Array:
  whole = tuple((0, length) for length in shape)
  bounds = {whole}
  if split is not None:
    indices = split.addressable_devices_indices_map(shape).values()
    bounds = {_bounds(index, shape) for index in indices}
  dtype = plan.dtypes[path]
  buffers = {each: np.empty([b - a for a, b in each], dtype) for each in bounds}
  if path in made:
    _distribute(buffers, made[path], ())
  for taken in plan.taken.get(path, ()):
    tensor = _tensor(taken, dtype, scratch)
    bad = blocks.not_finite(tensor) if wrong is not None else 0
    if bad:
      wrong[taken.entry.key] = bad
    layer = () if taken.entry.layer is None else (taken.entry.layer,)
    _distribute(buffers, table.ours(tensor, taken.entry, plan.size), layer)
  if split is None:
    return buffers[whole]
  return jax.make_array_from_callback(
    shape, split, lambda index: buffers[_bounds(index, shape)]
  )


def _bounds(index: tuple[slice, ...], shape: tuple[int, ...]) -> _Bounds:
  whole = (each.indices(length) for each, length in zip(index, shape, strict=True))
  return tuple((start, stop) for start, stop, _ in whole)


def _distribute(
  buffers: dict[_Bounds, np.ndarray], array: np.ndarray, layer: tuple[int, ...]
) -> None:
  """Puts what each buffer covers of `array`, one layer or the whole leaf, there."""
  for bounds, buffer in buffers.items():
    ahead, rest = bounds[: len(layer)], bounds[len(layer) :]
    if all(a <= i < b for (a, b), i in zip(ahead, layer, strict=True)):
      place = tuple(i - a for (a, _), i in zip(ahead, layer, strict=True))
      blocks.copy(buffer[place], array[tuple(slice(a, b) for a, b in rest)])


def _tensor(taken: Taken, dtype: np.dtype, scratch: disk.Scratch) -> np.ndarray:
  """The tensor; Qwen's vocabulary padded, its new rows the mean of the trained ones."""
  tensor = taken.tensor.read(scratch)
  if not _padded(taken):
    return tensor
  trained = tensor[: kinds.FIRST_NEW_ROW]
  out = np.empty((kinds.PADDED_VOCABULARY, tensor.shape[1]), dtype)
  blocks.copy(out[: len(trained)], trained)
  out[len(trained) :] = _mean(trained).astype(dtype)
  return out


def _mean(rows: np.ndarray) -> np.ndarray:
  """Over the rows, in float64, a few at a time."""
  total = np.zeros(rows.shape[1])
  for start, stop in itertools.pairwise([*range(0, len(rows), 4096), len(rows)]):
    total += rows[start:stop].astype(np.float32).sum(axis=0, dtype=np.float64)
  return total / len(rows)
