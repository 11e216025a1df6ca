"""What a benchmark asks and what a reply is worth: the types of evals/<name>.py."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Dialogue


@dataclasses.dataclass(frozen=True)
class Item:
  """One question of a benchmark.

  Attributes:
    talk: what the model reads; its last turn is the human's.
    gold: the right answer as shown to people; None where a judge decides.
    choices: the texts of the options.
    groups: {"task": "sound", …}: the names under which it is counted.
    row: as shipped, without the audio's bytes.
  """

  talk: Dialogue
  gold: str | None
  choices: tuple[str, ...] = ()
  groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
  row: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

  @property
  def id(self) -> str:
    return self.talk.id


@dataclasses.dataclass(frozen=True)
class Score:
  """What one reply is worth.

  Attributes:
    value: 0 to 1; None where no answer can be read (it counts as 0).
    extracted: the answer that was read.
    detail: whatever a reader of the item wants to see: JSON.
  """

  value: float | None
  extracted: str | None = None
  detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def talk(name: str, messages: list[dict[str, Any]], at: str, folder: str) -> Dialogue:
  """Messages of the dialogue schema, checked.

  Args:
    name: the item's id.
    at: its place in the files, for errors.
    folder: where relative paths of audio start.

  Raises:
    ValueError: naming the place and what is wrong there.
  """
  return schema.dialogue(Row({"id": name, "messages": messages}, at, folder))


def not_asked(name: str, why: str, sample: int) -> dict[str, Any]:
  """The row of an item without a reply."""
  nothing = dict.fromkeys(("raw", "think", "reply", "think_tokens"))
  return {"id": name, "sample": sample, **nothing, "truncated": False, "failed": why}
