"""Preference rows for the tests here, and commands as a person types them."""

from stepaudio_jax.preferences import __main__ as entry
from tests.data.rows import pair_row


def pair(
  name, *, task="t1", rater="r1", overall=-2, replies=("Fast.", "Slow."), **more
):
  """A row without thoughts or scores; `replies` are called x and y."""
  candidates = [
    {"cid": cid, "text": text, "model": "m"}
    for cid, text in zip("xy", replies, strict=True)
  ]
  plain = {"scores": None, "rubric": None, "confidence": None, "dims": {}}
  changes = plain | {"candidates": candidates, "overall": overall} | more
  return pair_row(id=name, task_id=task, rater=rater, **changes)


def call(*args) -> int:
  """The exit status of a command, run in this process."""
  try:
    entry.main([*map(str, args)])
  except SystemExit as stop:
    return stop.code
  return 0
