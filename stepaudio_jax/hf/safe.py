"""Safetensors files: headers that are checked before they are believed, lazy tensors.

Format: 8 bytes, little-endian, of the header's length; the header, JSON; the tensors.
A file from a stranger is only ever parsed as JSON and numbers; nothing in it is run.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from stepaudio_jax.core.disk import Stored

MAX_HEADER_BYTES = 100_000_000
# Those that weights come in; integers and 8-bit floats would need scales.
DTYPES = {
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F16": np.dtype(np.float16),
  "F32": np.dtype(np.float32),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def header(path: epath.Path) -> tuple[dict[str, Stored], list[str]]:
  """(tensors by key, problems); a tensor with a problem is left out."""
  size = path.stat().length
  with path.open("rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
      limit = f"its {size} bytes or the limit of {MAX_HEADER_BYTES}"
      return {}, [f"{path.name}: a header of {length} bytes is beyond {limit}"]
    text = file.read(length)
  try:
    rows = json.loads(text, object_pairs_hook=_without_twins)
  except (ValueError, RecursionError) as error:
    return {}, [f"{path.name}: the header is no JSON object of tensors: {error}"]
  if not isinstance(rows, dict):
    return {}, [f"{path.name}: the header is no JSON object of tensors"]
  rows.pop("__metadata__", None)
  return _tensors(path, rows, data=8 + length, size=size)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError("a key stands there twice")
  return found


def _tensors(
  path: epath.Path, rows: dict[str, Any], *, data: int, size: int
) -> tuple[dict[str, Stored], list[str]]:
  """`data` is where the tensors begin, `size` the file's length."""
  tensors, spans, problems, beyond = {}, [], [], []
  for key, row in rows.items():
    wrong = _malformed(row)
    if wrong:
      problems.append(f"{path.name}: tensor {key!r}: {wrong}")
      continue
    begin, end = row["data_offsets"]
    tensor = Stored(path, DTYPES[row["dtype"]], tuple(row["shape"]), data + begin)
    if end - begin != tensor.nbytes:
      what = f"{end - begin} bytes for {row['dtype']} {row['shape']}"
      problems.append(f"{path.name}: tensor {key!r}: {what}")
    elif data + end > size:
      beyond.append((end, key))
    else:
      tensors[key] = tensor
      spans.append((begin, end, key))
  if beyond:
    end, key = max(beyond)
    ends = f"tensor {key!r} ends at byte {data + end} of {size}"
    count = f"{len(beyond)} of its {len(rows)} tensors are cut off"
    problems.append(f"{path.name}: truncated: {ends}; {count}")
  return tensors, problems + (
    _overlaps(path, spans, size - data) if not problems else []
  )


def _malformed(row: Any) -> str:
  """What is wrong with a header's row, without its sizes; "" if nothing is."""
  if not isinstance(row, dict) or {"dtype", "shape", "data_offsets"} - set(row):
    return "no dtype, shape and data_offsets"
  if row["dtype"] not in DTYPES:
    return f"dtype {row['dtype']!r} is none of {sorted(DTYPES)}"
  shape, offsets = row["shape"], row["data_offsets"]
  for name, numbers in (("shape", shape), ("data_offsets", offsets)):
    # Exactly int: JSON's true would count as 1.
    if not isinstance(numbers, list) or any(
      type(n) is not int or n < 0 for n in numbers
    ):
      return f"{name} {numbers!r} is no list of natural numbers"
  if len(offsets) != 2 or offsets[0] > offsets[1]:
    return f"data_offsets {offsets} are no beginning and end"
  return ""


def _overlaps(
  path: epath.Path, spans: list[tuple[int, int, str]], bytes_: int
) -> list[str]:
  """The format wants tensors side by side from the first byte to the last."""
  problems, before, name = [], 0, "the header"
  for begin, end, key in sorted(spans):
    if begin < before:
      problems.append(f"{path.name}: tensor {key!r} overlaps {name}")
    elif begin > before:
      hole = f"{begin - before} bytes before tensor {key!r}"
      problems.append(f"{path.name}: {hole} belong to none")
    before, name = max(before, end), repr(key)
  if before < bytes_:
    problems.append(
      f"{path.name}: the last {bytes_ - before} bytes belong to no tensor"
    )
  return problems


def layout(
  tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
) -> tuple[bytes, dict[str, int], int]:
  """(header, key → where the tensor begins, the file's length) of a file to write."""
  rows: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  end = 0
  for key, (dtype, shape) in tensors.items():
    begin, end = end, end + math.prod(shape) * dtype.itemsize
    row = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    rows[key] = row
  text = json.dumps(rows, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # readers map the tensors: they begin at multiples
  starts = {
    key: 8 + len(text) + row["data_offsets"][0]
    for key, row in rows.items()
    if key != "__metadata__"
  }
  return len(text).to_bytes(8, "little") + text, starts, 8 + len(text) + end
