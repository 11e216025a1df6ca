"""A model in many dialogues at once: the human's turns given, the replies its own."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from stepaudio_jax.data.schema import Audio, Dialogue
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts.prompts import Frames, Prompts
from stepaudio_jax.evals.parts.replies import Options, Reply, replies
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.workdirs import Model

Row = dict[str, Any]


class Said(NamedTuple):
  """One turn of one dialogue.

  Attributes:
    id: of the dialogue.
    turn: from 1.
    messages: what was read, own earlier replies without their thoughts.
    reply: None where the turn was not asked for, for the reason in `failed`.
  """

  id: str
  turn: int
  messages: list[Row]
  reply: Reply | None
  failed: str | None

  @property
  def answer(self) -> str:
    """What the human gets to hear; "" where nothing came."""
    return ((self.reply.answer or "") if self.reply else "").strip()


@dataclasses.dataclass(frozen=True)
class Conversation:
  """A model in all dialogues at once, a turn at a time."""

  model: Model
  dialogues: Sequence[Dialogue]
  frames: Frames
  key: Callable[[Audio], str]
  options: Options

  @property
  def max_tokens(self) -> int:
    """Of a prompt."""
    return self.options.room(self.model.size.max_positions)

  def turns(self, what: str) -> Iterator[Said]:
    """Turn 1 of all dialogues, then turn 2, …; `what` is named beside the progress bar.

    A prompt that no longer fits ends its dialogue: failed from that turn on.
    """
    heard = {
      talk.id: messages_lib.human_turns(talk.row["messages"]) for talk in self.dialogues
    }
    said: dict[str, list[Row]] = {talk.id: [] for talk in self.dialogues}
    failed: dict[str, str] = {}
    for k in range(max(map(len, heard.values()))):
      here = [talk for talk in self.dialogues if k < len(heard[talk.id])]
      for talk in here:
        said[talk.id] += heard[talk.id][k]
      asked = self._asked([t for t in here if t.id not in failed], said)
      failed |= {p.dialogue_id: f"turn {k + 1}: {why}" for p, why in asked.failed}
      found = {}
      if asked.fitting:
        label = f"{what}, turn {k + 1}"
        for reply in replies(self.model, asked, self.options, what=label):
          found[reply.prompt.dialogue_id] = reply
      for talk in here:
        reply = found.get(talk.id)
        read = [_without_thought(message) for message in said[talk.id]]
        yield Said(talk.id, k + 1, read, reply, failed.get(talk.id))
        said[talk.id].append(own_turn(reply))

  def _asked(self, here: Sequence[Dialogue], said: dict[str, list[Row]]) -> Prompts:
    """Prompts that end with what the human said last."""
    open_talks = [
      Dialogue(talk.id, {"id": talk.id, "messages": said[talk.id]}, talk.audio)
      for talk in here
    ]
    return prompts_lib.of_frames(
      self.model.tokenizer,
      open_talks,
      self.key,
      self.frames,
      max_tokens=self.max_tokens,
    )


def own_turn(reply: Reply | None) -> Row:
  """A reply as the next prompt shows it: the answer alone, empty where none came."""
  return messages_lib.own_turn(reply.answer if reply else None)


def _without_thought(message: Row) -> Row:
  return {key: part for key, part in message.items() if key != "think"}
