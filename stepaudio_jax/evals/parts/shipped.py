"""The files of a benchmark, as they are shipped, to raw rows with their places.

A list in a JSON file, JSON Lines, or the Parquet files of a Hugging Face dataset.
"""

import json
import re
from collections.abc import Iterator, Sequence

import pyarrow
import pyarrow.parquet
from etils import epath

from stepaudio_jax.data import jsonl

PARQUET = ("*.parquet", "*/*.parquet")  # as shards, in the folder or one below
_BATCH = 64  # rows of a Parquet file at a time: they hold audio
_SHARD = re.compile(r"(?:(.*?)-)?\d+(?:-of-\d+)?")


def found(folder: epath.Path, patterns: Sequence[str]) -> list[epath.Path]:
  """The files of the first pattern that has any; `folder` may be such a file itself.

  Raises:
    ValueError: there is none, or a glob for one file has several.
  """
  if not folder.exists():
    raise ValueError(f"there is no folder {folder}")
  if not folder.is_dir():
    return [folder]
  for pattern in patterns:
    paths = sorted(folder.glob(pattern), key=str)
    if len(paths) > 1 and pattern not in PARQUET:
      names = [path.name for path in paths]
      raise ValueError(f"{folder} has several files {pattern}: {names}; name one")
    if paths:
      return paths
  there = sorted(path.name for path in folder.iterdir())
  raise ValueError(
    f"{folder} holds none of {list(patterns)}; it holds {there[:20] or 'nothing'}"
  )


def split_of(path: epath.Path) -> str:
  """ "test" of "test-00000-of-00003.parquet", "test/0000.parquet", "test.jsonl"."""
  shard = _SHARD.fullmatch(path.stem) if path.suffix == ".parquet" else None
  if not shard:
    return path.stem
  return shard[1] or path.parent.name


def rows(path: epath.Path) -> Iterator[jsonl.Row | str]:
  """The rows of a file; in the place of those that cannot be read, what is wrong."""
  kinds = {".json": _list, ".jsonl": _lines, ".parquet": _table}
  if path.suffix not in kinds:
    yield f"{path}: the kinds of files that are read are {sorted(kinds)}"
    return
  n = 0
  try:
    for row in kinds[path.suffix](path):
      n += 1
      yield row
  except (ValueError, OSError) as error:
    yield str(error) if str(path) in str(error) else f"{path}: {error}"
  else:
    if not n:
      yield f"{path} is empty: it holds no rows"


def _list(path: epath.Path) -> Iterator[jsonl.Row | str]:
  content = path.read_bytes()
  if not content.strip():
    return
  values = json.loads(content, parse_constant=_refused)
  if not isinstance(values, list):
    raise ValueError(f"a {type(values).__name__} where a list of objects is wanted")
  for number, value in enumerate(values, 1):
    at = f"{path}:row {number}"
    if isinstance(value, dict):
      yield jsonl.Row(value, at, str(path.parent))
    else:
      yield f"{at}: a {type(value).__name__} where an object is wanted: {value!r:.80}"


def _lines(path: epath.Path) -> Iterator[jsonl.Row | str]:
  lines = jsonl.Rows(path)
  for k in range(len(lines)):
    try:
      yield lines[k]
    except ValueError as error:
      yield str(error)


def _table(path: epath.Path) -> Iterator[jsonl.Row]:
  number = 0
  with path.open("rb") as file:
    try:
      table = pyarrow.parquet.ParquetFile(file)
      for batch in table.iter_batches(_BATCH):
        for value in batch.to_pylist():
          number += 1
          yield jsonl.Row(value, f"{path}:row {number}", str(path.parent))
    except pyarrow.ArrowException as error:
      raise ValueError(f"no Parquet file, or a broken one: {error}") from error


def _refused(constant: str) -> None:
  raise ValueError(f"{constant} is no JSON number")
