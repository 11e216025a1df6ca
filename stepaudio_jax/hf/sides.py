"""A model as a directory holds it, of either kind, tensor by tensor in torch names."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from stepaudio_jax.hf import blocks, heads, kinds, table
from stepaudio_jax.hf import folder as folders
from stepaudio_jax.hf.table import Entry
from stepaudio_jax.models.sizes import Size

CHECKPOINT = "checkpoint"
# Key → its tensor.
_Read = Callable[[str], np.ndarray]


class Leaves(Protocol):
  """Parameters of a checkpoint by path, as storage.Leaves reads them."""

  shapes: Mapping[str, tuple[int, ...]]
  dtypes: Mapping[str, np.dtype]

  def read(self, paths: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]: ...


@dataclasses.dataclass(frozen=True)
class Side:
  """What a directory holds; nothing of it is in memory yet.

  Attributes:
    kind: CHECKPOINT, or the name of a Hugging Face kind.
    size: of the model; widths of parts that it lacks mean nothing.
    fields: of the size, those that the directory tells.
    shapes: key → torch shape; keys as in a Step-Audio directory. A tensor that has no
      name there has its own.
    dtypes: key → dtype.
    leaf: key → our leaf that it is of; such tensors are best read together.
    opened: leaf → a reader of its tensors, for as long as the context lasts.
  """

  path: epath.Path
  kind: str
  size: Size
  fields: Mapping[str, Any]
  shapes: Mapping[str, tuple[int, ...]]
  dtypes: Mapping[str, np.dtype]
  leaf: Mapping[str, str]
  opened: Callable[[str], contextlib.AbstractContextManager[_Read]]

  @property
  def parts(self) -> set[str]:
    """Of table.PARTS, those that are whole in here."""
    entries = table.entries(self.size)
    return {
      part
      for part in table.PARTS
      if all(
        self.shapes.get(entry.key) == table.their_shape(entry, self.size)
        for entry in entries
        if entry.row.part == part
      )
    }

  @property
  def parameters(self) -> int:
    return sum(map(math.prod, self.shapes.values()))

  @property
  def bytes(self) -> int:
    return sum(
      math.prod(shape) * self.dtypes[key].itemsize for key, shape in self.shapes.items()
    )

  def leaves(self) -> Iterator[tuple[str, np.ndarray]]:
    """(path, array) of our leaves of whole parts, in the dtype of the first tensor."""
    whole, shapes = self.parts, table.our_shapes(self.size)
    entries: dict[str, list[Entry]] = {}
    for entry in table.entries(self.size):
      if entry.row.part in whole:
        entries.setdefault(entry.row.path, []).append(entry)
    for path, rows in entries.items():
      out = np.empty(shapes[path], self.dtypes[rows[0].key])
      with self.opened(path) as read:
        for entry in rows:
          blocks.copy(table.theirs(out, entry), read(entry.key))
      yield path, out


def held(
  path: epath.PathLike, held: Leaves, size: Size, dimensions: Sequence[str] = ()
) -> Side:
  """A checkpoint of ours.

  Args:
    size: of its model.
    dimensions: of its reward heads, if it has some.

  Raises:
    ValueError: a leaf is not of that size.
  """
  entries, shapes = {}, {}
  for entry in table.entries(size):
    if entry.row.path in held.shapes:
      _check_leaf(held, entry.row.path, table.our_shapes(size), path)
      entries[entry.key] = entry
      shapes[entry.key] = table.their_shape(entry, size)
  for row in heads.rows(held.shapes) if dimensions else ():
    if row.path in held.shapes:
      entries[row.key] = Entry(row.key, row, None)
      shapes[row.key] = held.shapes[row.path][::-1]
  leaf = {key: entry.row.path for key, entry in entries.items()}
  for name in held.shapes.keys() - set(leaf.values()):
    shapes[name], leaf[name] = held.shapes[name], name

  @contextlib.contextmanager
  def opened(name: str) -> Iterator[_Read]:
    ((_, array),) = held.read([name])
    yield lambda key: table.theirs(array, entries[key]) if key in entries else array

  dtypes = {key: held.dtypes[name] for key, name in leaf.items()}
  fields = dataclasses.asdict(size)
  del fields["name"]
  return Side(epath.Path(path), CHECKPOINT, size, fields, shapes, dtypes, leaf, opened)


def _check_leaf(
  held: Leaves, name: str, wanted: Mapping[str, tuple[int, ...]], path: epath.PathLike
) -> None:
  if held.shapes[name] != wanted[name]:
    raise ValueError(
      f"{path}: parameter {name} is {held.shapes[name]}, but model.json says "
      f"{wanted[name]}"
    )


def directory(path: epath.PathLike) -> Side:
  """A Hugging Face directory.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no model, or with everything that is wrong in it.
  """
  folder = folders.opened(path)
  if not folder.config:
    wrong = [f"{path} is neither a checkpoint nor a Hugging Face model:"]
    raise ValueError("\n  ".join([*wrong, *folder.problems]))
  path, tensors, leaf, found = folder.path, {}, {}, {}
  kind, wrong = kinds.kind(folder.config, folder.tensors)
  problems = [*folder.problems, *wrong]
  if kind.measured:
    size = kinds.size([kind], "step_audio_2_mini")
    names = {kind.key(e.key): e for e in table.entries(size, kind.parts)}
    for key, tensor in folder.tensors.items():
      if not key.startswith(kind.left_out):
        name = names[key].key if key in names else key
        tensors[name] = tensor
        leaf[name] = names[key].row.path if key in names else key
    found, _ = heads.opened(path, size.width, problems)
  if problems:
    raise ValueError("\n  ".join([f"{path} cannot be read:", *problems]))
  for row in heads.rows(found) if found else ():
    tensors[row.key], leaf[row.key] = found[row.path], row.path

  @contextlib.contextmanager
  def opened(_: str) -> Iterator[_Read]:
    yield lambda key: tensors[key].read()

  return Side(
    path,
    kind.name,
    size,
    kind.fields,
    {key: tensor.shape for key, tensor in tensors.items()},
    {key: tensor.dtype for key, tensor in tensors.items()},
    leaf,
    opened,
  )
