"""Replies that others are compared with, y_ref of R1.5 eq. 2: they never change."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from stepaudio_jax.data import keys
from stepaudio_jax.data.schema import Audio
from stepaudio_jax.evals.parts import suite
from stepaudio_jax.evals.parts.speaker import Speaker
from stepaudio_jax.judges import kept
from stepaudio_jax.judges.kept import Kept, Said
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.workdirs import Model

_BATCH_SIZE = 16

Row = Mapping[str, Any]


class References:
  """A prompt's own reference reply, or one greedy sample of the reference policy.

  The samples are kept on disk, under what is said and heard before them: another sound
  in a file of the same name is another prompt. The policy is not opened before one is
  needed.

  Args:
    open_model: gives the reference policy.
    who: what it is, by its content where that is known; samples are kept under that.
    max_new_tokens: of a sample.
    cache: of encoder frames, with a folder of its own for what was said.
  """

  def __init__(
    self,
    open_model: Callable[[], Model],
    who: str,
    max_new_tokens: int,
    cache: epath.PathLike,
  ):
    self._open, self._who, self._cache = open_model, who, epath.Path(cache)
    self._options = suite.Options(_BATCH_SIZE, max_new_tokens, temperature=0.0)
    self._kept = Kept(self._cache / "references")
    self._sounds = keys.Keys()

  def __call__(self, rows: Sequence[Row]) -> list[str | None]:
    """Answers without thoughts; None where the sample's thought never closed."""
    found = [_own(row) for row in rows]
    lacking = {
      self._key(row): row for row, one in zip(rows, found, strict=True) if not one
    }
    if not lacking:
      return found
    said = self._said(lacking)
    return [one or said[self._key(row)] for row, one in zip(rows, found, strict=True)]

  @functools.cached_property
  def _speaker(self) -> Speaker:
    return Speaker(self._open(), self._cache)

  def _said(self, rows: Mapping[str, Row]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in rows:
      try:
        one = self._kept.read(name)
      except kept.Damaged as damaged:
        logging.warning("a kept reference reply is damaged: %s", damaged)
        one = None
      if one is not None:
        # A thought that never closed is kept too, or it would be asked at each visit.
        found[name] = None if one.cut else one.text
    new = [name for name in rows if name not in found]
    asked = [_heard(rows[name]) for name in new]
    said = self._speaker.say(asked, self._options) if new else []
    for name, text in zip(new, said, strict=True):
      self._kept.write(name, Said(text or "", cut=text is None))
      found[name] = text
    return found

  def _key(self, row: Row) -> str:
    tokens = self._options.max_new_tokens
    messages = [
      message | {"content": [*map(self._known, message["content"])]}
      for message in messages_lib.normalise(_heard(row), "a prompt")
    ]
    told = {"messages": messages, "max_new_tokens": tokens}
    return kept.key(self._who, told)

  def _known(self, block: dict[str, Any]) -> dict[str, Any]:
    """A block with its sound by its content."""
    if block["type"] != "audio":
      return block
    source = block["path"] if "path" in block else block["bytes"]
    span = block.get("start_s"), block.get("end_s")
    return {"type": "audio", "sound": self._sounds[Audio(source, *span, "a prompt")]}


def _own(row: Row) -> str | None:
  reference = row.get("reference")
  return messages_lib.text_of(reference).strip() or None if reference else None


def _heard(row: Row) -> list[dict[str, Any]]:
  """What the policy reads: earlier answers without their thoughts."""
  return [
    {key: value for key, value in message.items() if key != "think"}
    for message in row["messages"]
  ]
