"""Our parameters → a Hugging Face model folder that loads on its own."""

import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import disk, storage, threads, tree
from stepaudio_jax.core import files as core_files
from stepaudio_jax.core.crc import Crc
from stepaudio_jax.core.disk import Stored
from stepaudio_jax.core.types import Params
from stepaudio_jax.hf import blocks, files, heads, safe, table
from stepaudio_jax.hf.folder import INDEX
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000
DTYPES = {"bfloat16": safe.DTYPES["BF16"], "float32": safe.DTYPES["F32"], "keep": None}


@dataclasses.dataclass(frozen=True)
class Weights:
  """What is written.

  Attributes:
    leaves: (path, host array), in any order, read once.
    shapes, dtypes: path → of each leaf.
    files: path → of each leaf, if they can be read in place of `leaves`.
    prove: raises where the sums of all that was read of those files are wrong.
  """

  leaves: Iterable[tuple[str, np.ndarray]]
  shapes: Mapping[str, tuple[int, ...]]
  dtypes: Mapping[str, np.dtype]
  files: Mapping[str, Stored] = dataclasses.field(default_factory=dict)
  prove: Callable[[Mapping[str, Crc]], None] = lambda sums: None

  @classmethod
  def of(cls, params: Params) -> "Weights":
    """Of parameters that are in memory, unboxed."""
    leaves = {path: np.asarray(leaf) for path, leaf in tree.named_leaves(params)}
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    return cls(leaves.items(), shapes, {p: leaf.dtype for p, leaf in leaves.items()})


def export(
  weights: Weights,
  size: Size,
  folder: str | epath.PathLike,
  *,
  tokenizer: Tokenizer,
  card: Mapping[str, Any],
  dtype: str = "bfloat16",
  shard_bytes: int = SHARD_BYTES,
  reward_heads: heads.Heads | None = None,
) -> None:
  """Writes weights, configs, tokenizer, remote code and model card to a new folder.

  The folder appears under its name only when it is complete.

  Args:
    weights: of "encoder", "adaptor" and "decoder" of that size.
    card: what README.md says, exactly `files.CARD_KEYS`.
    dtype: of the tensors, one of DTYPES; "keep" is the parameters' own.
    shard_bytes: most tensor bytes of a file, unless a single tensor has more.

  Raises:
    FileExistsError: there is something under that name already.
    ValueError: a parameter, the tokenizer, the card or the dtype does not fit, or
      values are not finite, all counted; nothing is left behind.
  """
  if dtype not in DTYPES:
    raise ValueError(f"unknown dtype {dtype!r}; the choices are {sorted(DTYPES)}")
  if shard_bytes < 1:
    raise ValueError(f"shard_bytes={shard_bytes} must be at least 1")
  if tokenizer.vocabulary_size > size.vocabulary:
    raise ValueError(
      f"tokenizer {tokenizer.name!r} has {tokenizer.vocabulary_size} ids, the "
      f"embedding of size {size.name} only {size.vocabulary}"
    )
  table.check(weights.shapes, size)
  dtypes = {path: DTYPES[dtype] or its for path, its in weights.dtypes.items()}
  unknown = {path: its for path, its in dtypes.items() if its not in safe.NAMES}
  if unknown:
    raise ValueError(f"dtypes that cannot be exported: {unknown}")
  named = collections.Counter(str(its) for its in dtypes.values()).most_common(1)[0][0]
  count = sum(math.prod(shape) for shape in weights.shapes.values())
  with core_files.folder_aside(folder) as aside:
    described = reward_heads.described if reward_heads is not None else None
    files.write(aside, size, tokenizer, named, card, count, described)
    if reward_heads is not None:
      heads.write(aside, reward_heads)
    with _local(aside) as here:
      _write_weights(here, weights, size, dtypes, shard_bytes)


@contextlib.contextmanager
def _local(to: epath.Path) -> Iterator[pathlib.Path]:
  """A folder in which files can be written out of order; `to` itself if it can."""
  if not core_files.is_remote(to):
    yield pathlib.Path(to)
    return
  with tempfile.TemporaryDirectory() as room:
    yield pathlib.Path(room)
    for path in sorted(pathlib.Path(room).iterdir()):
      with path.open("rb") as source, (to / path.name).open("wb") as target:
        shutil.copyfileobj(source, target)


def shards(nbytes: Mapping[str, int], cap: int) -> list[list[str]]:
  """Keys of each shard: packed in order, a new shard where the next would not fit."""
  out: list[list[str]] = [[]]
  used = 0
  for key, needed in nbytes.items():
    if out[-1] and used + needed > cap:
      out.append([])
      used = 0
    out[-1].append(key)
    used += needed
  return out


def weight_map(packed: list[list[str]]) -> dict[str, str]:
  """Key → file name, as the index has it."""
  names = [
    f"model-{i + 1:05d}-of-{len(packed):05d}.safetensors" for i in range(len(packed))
  ]
  return {key: name for name, keys in zip(names, packed, strict=True) for key in keys}


class _Shards:
  """Where every tensor goes: a file, a byte, a dtype."""

  def __init__(
    self, to: pathlib.Path, size: Size, dtypes: Mapping[str, np.dtype], cap: int
  ):
    self.entries = table.entries(size)
    self.dtypes = {entry.key: dtypes[entry.row.path] for entry in self.entries}
    shapes = {entry.key: table.their_shape(entry, size) for entry in self.entries}
    nbytes = {k: math.prod(s) * self.dtypes[k].itemsize for k, s in shapes.items()}
    packed = shards(nbytes, cap)
    self.total, self.names = sum(nbytes.values()), weight_map(packed)
    self.heads, self.starts = {}, {}
    for keys in packed:
      kinds = {key: (self.dtypes[key], shapes[key]) for key in keys}
      head, starts, length = safe.layout(kinds)
      self.heads[to / self.names[keys[0]]] = head, length
      self.starts |= starts


def _write_weights(
  to: pathlib.Path,
  weights: Weights,
  size: Size,
  dtypes: Mapping[str, np.dtype],
  cap: int,
) -> None:
  """Headers first, then every tensor at its place in the files."""
  target, wrong = _Shards(to, size, dtypes, cap), collections.Counter()
  read, made = disk.Scratch(), disk.Scratch()
  sums, lock = storage.sums(weights.files), threading.Lock()
  with disk.writable(target.heads) as outs:
    for path, (head, length) in target.heads.items():
      outs[path].resize(length)
      outs[path].write(np.frombuffer(head, np.uint8), 0)

    def one(item: tuple[table.Entry, np.ndarray | Stored, int]) -> None:
      entry, part, first = item
      key, straight = entry.key, entry.row.straight
      array = part
      if isinstance(part, Stored):
        array = part.read(read)
        sums[entry.row.path].add(array, part.start)
      view = array if straight else table.of_layer(array, entry)
      dtype = target.dtypes[key]
      start = target.starts[key] + first * dtype.itemsize
      for place, piece in blocks.pieces(view, dtype, made, start):
        bad = blocks.not_finite(piece)
        if bad:
          with lock:
            wrong[key] += bad
        outs[to / target.names[key]].write(piece, place)

    threads.each(one, _parts(weights, target.entries))
  weights.prove(sums)
  if wrong:
    found = [
      f"{key} as {its}: {wrong[key]:,} values"
      for key, its in target.dtypes.items()
      if key in wrong
    ]
    raise ValueError("\n  ".join(["values that are not finite:", *found]))
  index = {"metadata": {"total_size": target.total}, "weight_map": target.names}
  (to / INDEX).write_text(json.dumps(index, indent=2))


def _parts(
  weights: Weights, entries: Sequence[table.Entry]
) -> Iterator[tuple[table.Entry, np.ndarray | Stored, int]]:
  """(tensor, our layer that it is, which of its elements is the first) of all.

  In packing order if any will do, but first what would keep one thread busy when the
  others have no more to do; large ones in parts, if they need not be turned.
  """
  if weights.files:
    layers = [(e, weights.files[e.row.path].layer(e.layer)) for e in entries]
    layers.sort(key=lambda item: item[1].nbytes < disk.LARGE_BYTES)
    for entry, layer in layers:
      parts = layer.parts() if entry.row.straight else ((0, layer),)
      yield from ((entry, part, first) for first, part in parts)
    return
  of_leaf: dict[str, list[table.Entry]] = {}
  for entry in entries:
    of_leaf.setdefault(entry.row.path, []).append(entry)
  for path, leaf in weights.leaves:
    for entry in of_leaf[path]:
      yield entry, leaf if entry.layer is None else leaf[entry.layer], 0
