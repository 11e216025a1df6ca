"""Content keys of clips, kept so that a restart does not read all audio again."""

import json
import os
import pathlib

from stepaudio_jax.audio import io
from stepaudio_jax.core import files
from stepaudio_jax.data.schema import Audio

_SPAN = 3  # of a place: path, start, end; then the file's version


class Keys:
  """`audio.io.content_key` of clips.

  Args:
    path: file on a local disk that `save` writes and the next start reads. A local
      audio file is hashed anew where its size or time of change is another.
  """

  def __init__(self, path: str | os.PathLike | None = None):
    self._path = None if path is None else pathlib.Path(path)
    self._saved = self._read()
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
    """Keeps the keys of local files that were asked for in this process.

    Those that other processes have kept meanwhile stay, unless they are of an older
    state of a file that was asked for here.
    """
    if self._path is None:
      return
    kept = {place[:_SPAN]: (place, key) for place, key in self._read().items()}
    kept |= {s: known for s, known in self._known.items() if not files.is_remote(s[0])}
    rows = [[*place, key] for place, key in kept.values()]
    with files.aside(self._path) as partial:
      partial.write_text(json.dumps(rows), encoding="utf-8")

  def _read(self) -> dict[tuple, str]:
    """{(path, start, end, size, time of change): key} as the file has it now."""
    if self._path is None or not self._path.exists():
      return {}
    rows = json.loads(self._path.read_text(encoding="utf-8"))
    return {tuple(place): key for *place, key in rows}


def _version(path: str) -> tuple[int, ...]:
  """Size and time of change of a local file; those in buckets are always read."""
  if files.is_remote(path):
    return ()
  stat = os.stat(path)
  return stat.st_size, stat.st_mtime_ns


def _hashed(audio: Audio) -> str:
  return io.content_key(audio.source, audio.start_s, audio.end_s, name=audio.name)
