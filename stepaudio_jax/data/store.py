"""Arrays of clips on disk under content keys: frozen encoder frames, or log-mels.

A pack is two files that hold the chunks of many clips end to end:

  pack-<name>.npy   float32 [rows, width], read by memory map
  pack-<name>.json  {"bytes": size of the .npy, "clips": {key: {"row": first row,
                    "chunks": [[rows, samples], …], "crc32": of the clip's bytes}}}

Both are written aside and renamed, the .json last: a pack without it does not exist,
so a kill at any moment leaves a valid store.
"""

import dataclasses
import hashlib
import io
import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from absl import logging
from etils import epath

from stepaudio_jax.core import files

_ABANDONED_S = 86_400.0  # what a killed process left aside is swept up after a day


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Frames of at most 25 s of sound.

  Attributes:
    rows: float32 [frames, width].
    samples: the chunk's length at 16 kHz.
  """

  rows: np.ndarray
  samples: int


class Store:
  """Chunks of clips by key. Reading is safe from several threads.

  Args:
    folder: shared by all kinds.
    kind: what the arrays depend on besides the sound, such as the encoder's hash.
  """

  def __init__(self, folder: epath.PathLike, kind: str):
    self._folder = epath.Path(folder) / kind
    self._folder.mkdir(parents=True, exist_ok=True)
    self.reload()

  def __contains__(self, key: str) -> bool:
    return key in self._entries

  def __len__(self) -> int:
    return len(self._entries)

  def reload(self) -> None:
    """Looks at the folder anew, for packs that other processes have written."""
    self._entries: dict[str, tuple[str, dict[str, Any]]] = {}
    self._arrays: dict[str, np.ndarray] = {}
    self._checked: set[str] = set()
    for path in sorted(self._folder.glob("pack-*.json")):
      self._open(path)
    for path in self._folder.glob(f"*{files.PARTIAL}"):
      if time.time() - path.stat().mtime > _ABANDONED_S:
        path.unlink(missing_ok=True)

  def missing(self, keys: Iterable[str]) -> list[str]:
    """Those of `keys` that are not here, each once, in order of their text."""
    return sorted({key for key in keys if key not in self._entries})

  def shape(self, key: str) -> tuple[tuple[int, int], ...]:
    """(rows, samples) of every chunk of a clip, without reading it."""
    return tuple((rows, samples) for rows, samples in self._entry(key)[1]["chunks"])

  def read(self, key: str) -> tuple[Chunk, ...]:
    """The clip's chunks, as views of the file.

    Raises:
      KeyError: the clip is not here.
      ValueError: its bytes are not those that were written. The pack is set aside,
        so that the next start computes it anew.
    """
    pack, entry = self._entry(key)
    rows = sum(count for count, _ in entry["chunks"])
    block = self._array(pack)[entry["row"] : entry["row"] + rows]
    if key not in self._checked:
      if zlib.crc32(block) != entry["crc32"]:
        self._set_aside(pack)
        raise ValueError(
          f"clip {key} in {self._folder}/{pack}.npy is damaged (its checksum differs); "
          "the pack was set aside: run again to compute it anew"
        )
      self._checked.add(key)
    ends = np.cumsum([count for count, _ in entry["chunks"]])
    parts = np.split(block, ends[:-1])
    return tuple(
      Chunk(part, samples)
      for part, (_, samples) in zip(parts, entry["chunks"], strict=True)
    )

  def write(self, clips: Mapping[str, Sequence[Chunk]]) -> None:
    """Adds one pack. The same clips give the same files."""
    pack = f"pack-{_name(clips)}"
    entries, row = {}, 0
    for key in sorted(clips):
      sizes = [[len(chunk.rows), chunk.samples] for chunk in clips[key]]
      crc = zlib.crc32(_block(clips[key]))
      entries[key] = {"row": row, "chunks": sizes, "crc32": crc}
      row += sum(count for count, _ in sizes)
    array, index = self._folder / f"{pack}.npy", self._folder / f"{pack}.json"
    with files.aside(array) as partial:
      with partial.open("wb") as file:
        _save(file, row, [clips[key] for key in sorted(clips)])
      content = json.dumps({"bytes": partial.stat().length, "clips": entries})
    with files.aside(index) as partial:
      partial.write_text(content)
    self._open(index)

  def _open(self, path: epath.Path) -> None:
    pack, array = path.stem, path.with_suffix(".npy")
    size = array.stat().length if array.exists() else 0
    try:
      index = json.loads(path.read_text())
    except json.JSONDecodeError:
      index = {"bytes": -1}
    if size != index["bytes"]:
      logging.warning(
        "%s has %d bytes, not the %d that were written: its clips are computed anew",
        array,
        size,
        index["bytes"],
      )
      self._set_aside(pack)
      return
    self._arrays.pop(pack, None)
    for key, entry in index["clips"].items():
      self._entries[key] = (pack, entry)
      self._checked.discard(key)

  def _set_aside(self, pack: str) -> None:
    """Renames the index, which makes the pack's clips missing."""
    path = self._folder / f"{pack}.json"
    path.replace(path.with_suffix(".damaged"))
    gone = [key for key, (owner, _) in self._entries.items() if owner == pack]
    for key in gone:
      del self._entries[key]

  def _entry(self, key: str) -> tuple[str, dict[str, Any]]:
    if key not in self._entries:
      raise KeyError(f"clip {key} is not in {self._folder}; fill the store first")
    return self._entries[key]

  def _array(self, pack: str) -> np.ndarray:
    if pack not in self._arrays:
      path = self._folder / f"{pack}.npy"
      if files.is_remote(path):  # a bucket has no memory maps
        self._arrays[pack] = np.load(io.BytesIO(path.read_bytes()))
      else:
        self._arrays[pack] = np.load(path, mmap_mode="r")
    return self._arrays[pack]


def _name(keys: Iterable[str]) -> str:
  text = "\n".join(sorted(keys))
  return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _block(chunks: Sequence[Chunk]) -> np.ndarray:
  return np.concatenate([chunk.rows for chunk in chunks], dtype=np.float32)


def _save(file: BinaryIO, rows: int, clips: Sequence[Sequence[Chunk]]) -> None:
  """A .npy of all blocks, written one by one: a pack may be large."""
  width = clips[0][0].rows.shape[1]
  header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
  np.lib.format.write_array_header_1_0(file, header)
  for chunks in clips:
    file.write(_block(chunks).tobytes())
