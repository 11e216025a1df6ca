"""Pairs of replies with a rater's choice, schema pref/1; a raw sample:

{"schema": "pref/1", "id": "p1", "task_id": "rate-7", "rater": "r3",
 "context": [{"role": "human", "content": [{"type": "audio", "path": "a.flac"}]}],
 "candidates": [{"cid": "x", "text": "It is fast.", "model": "sft"},
                {"cid": "y", "text": "Slow.", "think": "Long vowels.", "model": "sft"}],
 "overall": -2, "dims": {"naturalness": -1, "coherence": null},
 "scores": {"x": {"naturalness": 4}, "y": {"naturalness": 3}},
 "confidence": 0.8, "ts": "2026-01-31T12:00:00Z", "order_seed": 5}

`overall` and `dims` are negative where the first candidate is better.
"""

from collections.abc import Sequence

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row, Rows


def source(split: str, *, path: str) -> Sequence[Row]:
  """Rows of the file; "{split}" in `path` is filled in."""
  return Rows(path.format(split=split))


def example(raw: Row) -> schema.Preference:
  return schema.preference(raw)
