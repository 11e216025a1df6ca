"""Content keys of clips, kept so that a restart does not read all audio again."""

import json
import os
import pathlib

from stepaudio_jax.audio import io
from stepaudio_jax.data.schema import Audio


class Keys:
  """`audio.io.content_key` of clips.

  Args:
    path: file on a local disk that `save` writes and the next start reads. A local
      audio file is hashed anew where its size or time of change is another.
  """

  def __init__(self, path: str | os.PathLike | None = None):
    self._path = None if path is None else pathlib.Path(path)
    self._saved: dict[tuple, str] = {}
    if self._path is not None and self._path.exists():
      rows = json.loads(self._path.read_text(encoding="utf-8"))
      self._saved = {tuple(place): key for *place, key in rows}
    self._known: dict[tuple, tuple[tuple, str]] = {}

  def __getitem__(self, audio: Audio) -> str:
    """Reads the file at most once in a process; bytes are hashed each time."""
    if isinstance(audio.source, bytes):
      return _hashed(audio)
    span = (audio.source, audio.start_s, audio.end_s)
    if span not in self._known:
      place = (*span, *_version(audio.source))
      key = self._saved[place] if place in self._saved else _hashed(audio)
      self._known[span] = (place, key)
    return self._known[span][1]

  def save(self) -> None:
    """Keeps the keys of local files that were asked for in this process."""
    if self._path is None:
      return
    rows = [[*p, key] for p, key in self._known.values() if "://" not in p[0]]
    self._path.parent.mkdir(parents=True, exist_ok=True)
    aside = self._path.with_name(self._path.name + ".partial")
    aside.write_text(json.dumps(rows), encoding="utf-8")
    aside.replace(self._path)


def _version(path: str) -> tuple[int, ...]:
  """Size and time of change of a local file; those in buckets are always read."""
  if "://" in path:
    return ()
  stat = os.stat(path)
  return stat.st_size, stat.st_mtime_ns


def _hashed(audio: Audio) -> str:
  return io.content_key(audio.source, audio.start_s, audio.end_s, name=audio.name)
