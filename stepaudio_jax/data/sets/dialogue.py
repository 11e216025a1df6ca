"""Dialogues in JSON Lines, `c.data.options.<name>.path`; a raw sample:

{"id": "d1", "messages": [
  {"role": "system", "content": "Listen closely."},
  {"role": "human", "content": [{"type": "text", "text": "How fast is it? "},
    {"type": "audio", "path": "clips/a.flac", "start_s": 0.5, "end_s": 3.0}]},
  {"role": "assistant", "content": "Fast.", "think": "Six words in two seconds."}],
 "answer": "fast", "choices": ["slow", "normal", "fast"],
 "rubric": [{"text": "names the rate", "weight": 1.0}], "meta": {"task": "rate"}}

Audio paths are relative to the file. Files of TRL and ms-swift (`audios`) load too.
"""

from collections.abc import Sequence

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row, Rows


def source(split: str, *, path: str) -> Sequence[Row]:
  """Rows of the file; "{split}" in `path` is filled in."""
  return Rows(path.format(split=split))


def example(raw: Row) -> schema.Dialogue:
  return schema.dialogue(raw)
