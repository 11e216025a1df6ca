"""A list of a folder's files in the folder, to see later whether all are still there.

What is written and then cut short, lost or changed by a disk that was full, a copy that
was interrupted, or a bucket's clean-up is seen without reading large files.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from stepaudio_jax.core import files

NAME = "seal.json"
_SMALL = 1 << 20  # bytes: files up to here are hashed too


def seal(folder: epath.PathLike) -> None:
  """Writes down size, and of small files the CRC-32, of every file of a folder."""
  folder = epath.Path(folder)
  found = {str(path.relative_to(folder)): _described(path) for path in _files(folder)}
  with files.aside(folder / NAME) as partial:
    partial.write_text(json.dumps(found, indent=1))


def fault(folder: epath.PathLike) -> str:
  """What is wrong with a sealed folder, in words; "" if nothing is, or no seal is."""
  folder = epath.Path(folder)
  if not (folder / NAME).exists():
    return ""
  try:
    known = json.loads((folder / NAME).read_text())
  except ValueError as error:
    return f"{NAME} cannot be read: {error}"
  for name, row in known.items():
    path = folder / name
    if not path.exists():
      return f"{name} is missing"
    now = _described(path)
    if now["bytes"] != row["bytes"]:
      return f"{name} has {now['bytes']} bytes, not {row['bytes']}"
    if now["crc32"] != row["crc32"]:
      return f"the content of {name} has changed"
  return ""


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  """All but the seal, those of sub-folders too."""
  for path in sorted(folder.iterdir()):
    if path.is_dir():
      yield from _files(path)
    elif path.name != NAME:
      yield path


def _described(path: epath.Path) -> dict[str, Any]:
  size = path.stat().length
  crc = zlib.crc32(path.read_bytes()) if size <= _SMALL else None
  return {"bytes": size, "crc32": crc}
