"""Our parameters → a Hugging Face model folder that loads on its own."""

import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from stepaudio_jax.core import files as core_files
from stepaudio_jax.core import tree
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
  """

  leaves: Iterable[tuple[str, np.ndarray]]
  shapes: Mapping[str, tuple[int, ...]]
  dtypes: Mapping[str, np.dtype]

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
      tensors are not finite; nothing is left behind.
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
    files.write(aside, size, tokenizer, named, card, count)
    if reward_heads is not None:
      heads.write(aside, reward_heads)
    with _local(aside) as here:
      _write_weights(here, weights.leaves, size, dtypes, shard_bytes)


@contextlib.contextmanager
def _local(to: epath.Path) -> Iterator[pathlib.Path]:
  """A folder in which files can be written out of order; `to` itself if it can."""
  if safe.local(to):
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


def _write_weights(
  to: pathlib.Path,
  leaves: Iterable[tuple[str, np.ndarray]],
  size: Size,
  dtypes: Mapping[str, np.dtype],
  cap: int,
) -> None:
  """Headers first, then each leaf's tensors at their places in the files."""
  entries: dict[str, list[table.Entry]] = {}
  tensors = {}
  for entry in table.entries(size):
    entries.setdefault(entry.row.path, []).append(entry)
    tensors[entry.key] = (dtypes[entry.row.path], table.their_shape(entry, size))
  nbytes = {key: math.prod(s) * dtype.itemsize for key, (dtype, s) in tensors.items()}
  packed = shards(nbytes, cap)
  where, wrong = weight_map(packed), []
  with contextlib.ExitStack() as stack:
    places: dict[str, tuple[BinaryIO, int]] = {}
    for keys in packed:
      head, starts, length = safe.layout({key: tensors[key] for key in keys})
      file = stack.enter_context((to / where[keys[0]]).open("wb"))
      file.write(head)
      file.truncate(length)
      places |= {key: (file, start) for key, start in starts.items()}
    scratch = safe.Scratch()
    for path, leaf in leaves:
      for entry in entries[path]:
        dtype, shape = tensors[entry.key]
        array = scratch.array(shape, dtype)
        blocks.copy(array, table.theirs(leaf, entry))
        wrong += [] if blocks.finite(array) else [f"{entry.key} as {dtype}"]
        file, start = places[entry.key]
        file.seek(start)
        file.write(memoryview(array.reshape(-1).view(np.uint8)))
  if wrong:
    raise ValueError("\n  ".join(["tensors that are not finite:", *wrong]))
  index = {"metadata": {"total_size": sum(nbytes.values())}, "weight_map": where}
  (to / INDEX).write_text(json.dumps(index, indent=2))
