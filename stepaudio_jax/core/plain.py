"""Arrays that lie in files of their own, bytes as in memory.

Where orbax writes an array alone and uncompressed, its folder holds zarr.json (zarr 3)
and one file: the elements in C order, little-endian, then an index of one entry, where
they begin and how many bytes they are, then the index's CRC-32C. Nothing else of zarr
is known here; an array stored in another way is not plain.
"""

import dataclasses
import json
import os
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from stepaudio_jax.core.disk import Stored

_META = "zarr.json"
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_DTYPES = {
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
  "float16": np.dtype("<f2"),
  "float32": np.dtype("<f4"),
}


def opened(folder: pathlib.Path) -> Stored | None:
  """The array in a folder; None where it is not plain.

  Raises:
    ValueError: it is, but its file is damaged.
  """
  if not (folder / _META).exists():
    return None
  meta = json.loads((folder / _META).read_text())
  shape, dtype = tuple(meta["shape"]), _DTYPES.get(meta["data_type"])
  if dtype is None or not shape or _meta(meta, shape) != meta:
    return None
  found = Stored(chunk(folder, shape), dtype, shape)
  length = found.file.stat().st_size if found.file.exists() else 0
  end = tail(found.nbytes)
  if length != found.nbytes + len(end) or _end(found.file, len(end)) != end:
    raise ValueError(f"{found.file} is damaged: no array of {found.nbytes} bytes")
  return found


def enlarged(folder: pathlib.Path, shape: tuple[int, ...]) -> Stored:
  """Makes the plain array in a folder one of that shape, and of any content.

  Raises:
    ValueError: there is no plain array.
  """
  found = opened(folder)
  if found is None:
    raise ValueError(f"{folder} holds no array of one uncompressed chunk")
  text = (folder / _META).read_text()
  meta = _meta(json.loads(text), shape)
  (folder / _META).write_text(json.dumps(meta, separators=(",", ":"), sort_keys=True))
  out = dataclasses.replace(found, shape=shape)
  with out.file.open("wb") as file:
    file.truncate(out.nbytes)
    file.seek(out.nbytes)
    file.write(tail(out.nbytes))
  return out


def _end(path: pathlib.Path, length: int) -> bytes:
  with path.open("rb") as file:
    file.seek(-length, os.SEEK_END)
    return file.read()


def chunk(folder: pathlib.Path, shape: tuple[int, ...]) -> pathlib.Path:
  """The file of a plain array of that shape."""
  return folder.joinpath("c", *("0" for _ in shape))


def _meta(meta: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
  """zarr.json of a plain array of that shape, the rest as in `meta`."""
  index = {
    "chunk_shape": [*shape],
    "codecs": [_BYTES],
    "index_codecs": [_BYTES, {"name": "crc32c"}],
  }
  return {
    **meta,
    "shape": [*shape],
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*shape]}},
    "chunk_key_encoding": {"name": "default"},
    "codecs": [{"name": "sharding_indexed", "configuration": index}],
    "zarr_format": 3,
    "node_type": "array",
  }


def tail(nbytes: int) -> bytes:
  """What follows the elements in a plain array's file."""
  index = struct.pack("<QQ", 0, nbytes)
  return index + struct.pack("<I", _crc32c(index))


def _crc32c(data: bytes) -> int:
  """Castagnoli's, bit by bit (RFC 3720, appendix B.4)."""
  value = 0xFFFFFFFF
  for byte in data:
    value ^= byte
    for _ in range(8):
      value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
  return value ^ 0xFFFFFFFF
