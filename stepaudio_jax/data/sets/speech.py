"""Single clips with transcript and attributes, for pre-alignment; a raw sample:

{"id": "c1", "audio": {"path": "speech/00000/c1.flac"}, "transcript": "three one four",
 "attributes": {"pitch": "low", "rate": "fast", "speakers": "one"}}

A label that nobody knows is an absent key. Paths are relative to the file.
"""

from collections.abc import Sequence

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row, Rows


def source(split: str, *, path: str) -> Sequence[Row]:
  """Rows of the file; "{split}" in `path` is filled in."""
  return Rows(path.format(split=split))


def example(raw: Row) -> schema.SpeechClip:
  return schema.speech_clip(raw)
