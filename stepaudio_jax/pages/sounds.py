"""Clips inside a page: mono MP3, which every browser plays, up to so many bytes."""

import base64
import io
from collections import Counter
from typing import Any

import numpy as np
import soundfile
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core.lengths import SAMPLE_RATE

# About 27 kbit/s of speech at 16 kHz.
_MP3 = {
  "format": "MP3",
  "subtype": "MPEG_LAYER_III",
  "bitrate_mode": "VARIABLE",
  "compression_level": 0.5,
}
_FLAC = {"format": "FLAC", "subtype": "PCM_16"}

Row = dict[str, Any]


class Sounds:
  """The clips of a page, each held once however often it is heard.

  Attributes:
    clips: {"mime", "seconds", "source", "absent"} each; absent says why there is no
      sound, None where there is.
    contents: base64 of each, "" where it is absent.
  """

  def __init__(self, folder: epath.PathLike, most_bytes: int):
    """
    Args:
      folder: where relative paths start.
      most_bytes: of all contents together.
    """
    self.clips: list[Row] = []
    self.contents: list[str] = []
    self._folder, self._left = epath.Path(folder), most_bytes
    self._places: dict[Any, int] = {}

  def add(self, block: Row) -> int:
    """The place of an audio block's clip.

    Args:
      block: {"type": "audio"} with "path", "bytes_file" or "bytes" (base64 or bytes),
        and maybe "start_s" and "end_s".
    """
    source, span = self._source(block), (block.get("start_s"), block.get("end_s"))
    if (source, span) not in self._places:
      self._places[source, span] = len(self.clips)
      self._hold(source, span)
    return self._places[source, span]

  def absent(self) -> dict[str, int]:
    """{why: how many clips have no sound for it}."""
    kinds = (clip["kind"] for clip in self.clips if clip["absent"])
    return dict(Counter(kinds))

  def _source(self, block: Row) -> str | bytes | None:
    if "bytes" in block:
      content = block["bytes"]
      return content if isinstance(content, bytes) else base64.b64decode(content)
    path = block.get("path") or block.get("bytes_file")
    return None if path is None else str(self._place(self._folder / path))

  def _place(self, path: epath.Path) -> epath.Path:
    """Where a file is: a folder that was moved may have it where it had it before."""
    moved = self._folder / path.parent.name / path.name
    return moved if not path.exists() and moved.exists() else path

  def _hold(self, source: str | bytes | None, span: tuple) -> None:
    named = f"{len(source)} bytes" if isinstance(source, bytes) else source
    clip = {"source": named or "no path", "mime": None, "seconds": None}
    clip |= {"absent": None, "kind": None}
    content = b""
    try:
      if source is None:
        raise audio_io.AudioError("the row names no file")
      samples_N = audio_io.read(source, *span)
    except audio_io.AudioError as error:
      clip |= {"absent": str(error), "kind": "could not be read"}
    else:
      clip["mime"], content = encoded(samples_N)
      clip["seconds"] = len(samples_N) / SAMPLE_RATE
    text = base64.b64encode(content).decode()
    if len(text) > self._left:
      text = ""
      clip |= {"absent": "left out: the page holds enough sound", "kind": "left out"}
    self._left -= len(text)
    self.clips.append(clip)
    self.contents.append(text)


def encoded(samples_N: np.ndarray) -> tuple[str, bytes]:
  """Media type and file of samples at 16 kHz: MP3, or FLAC without an encoder."""
  if "MP3" in soundfile.available_formats():
    return "audio/mpeg", _file(samples_N, _MP3)
  return "audio/flac", _file(samples_N, _FLAC)


def _file(samples_N: np.ndarray, form: Row) -> bytes:
  file = io.BytesIO()
  soundfile.write(file, np.clip(samples_N, -1, 1), SAMPLE_RATE, **form)
  return file.getvalue()
