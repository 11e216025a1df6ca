"""A list of a folder's files in the folder, to see later whether all are still there.

What is written and then cut short, lost or changed by a disk that was full, a copy that
was interrupted, or a bucket's clean-up is seen without reading large files.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from stepaudio_jax.core import files

NAME = "seal.json"
_SMALL = 1 << 20  # bytes: files up to here are hashed too


class Damaged(ValueError):
  """What is there is not what was written."""


def seal(folder: epath.PathLike, known: Mapping[str, int] | None = None) -> None:
  """Writes down size, and of small files the CRC-32, of every file of a folder.

  Args:
    known: name → CRC-32 of large files, from whoever wrote them.
  """
  folder, known = epath.Path(folder), known or {}
  paths = [path for path in files.within(folder) if path.name != NAME]
  found = {str(path.relative_to(folder)): _described(path) for path in paths}
  for name, crc in known.items():
    found[name]["crc32"] = crc
  with files.aside(folder / NAME) as partial:
    partial.write_text(json.dumps(found, indent=1))


def sealed(folder: epath.PathLike) -> bool:
  """Folders of earlier versions are not."""
  return (epath.Path(folder) / NAME).exists()


def fault(folder: epath.PathLike) -> str:
  """What is wrong with a sealed folder, in words; "" if nothing is, or no seal is."""
  folder = epath.Path(folder)
  try:
    known = _read(folder)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    return f"{NAME} cannot be read: {error}"
  for name, (nbytes, crc) in known.items():
    path = folder / name
    if not path.exists():
      return f"{name} is missing"
    now = _described(path)
    if now["bytes"] != nbytes:
      return f"{name} has {now['bytes']} bytes, not {nbytes}"
    if crc is not None and now["crc32"] not in (None, crc):
      return f"the content of {name} has changed"
  return ""


def crcs(folder: epath.PathLike) -> dict[str, int]:
  """Name → CRC-32 of the files that have one in the seal, which is there and whole."""
  known = _read(epath.Path(folder))
  return {name: crc for name, (_, crc) in known.items() if crc is not None}


def digest(folder: epath.PathLike) -> str | None:
  """A hash of what was sealed, which stays as it is copied; None without a seal."""
  if not sealed(folder):
    return None
  content = (epath.Path(folder) / NAME).read_bytes()
  return hashlib.blake2b(content, digest_size=8).hexdigest()


def _read(folder: epath.Path) -> dict[str, tuple[int, int | None]]:
  """Name → (bytes, CRC-32) of a seal, if there is one."""
  if not sealed(folder):
    return {}
  rows = json.loads((folder / NAME).read_text())
  return {name: (row["bytes"], row["crc32"]) for name, row in rows.items()}


def _described(path: epath.Path) -> dict[str, Any]:
  size = path.stat().length
  crc = zlib.crc32(path.read_bytes()) if size <= _SMALL else None
  return {"bytes": size, "crc32": crc}
