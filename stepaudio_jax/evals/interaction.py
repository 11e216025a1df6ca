"""Interaction over long dialogues: what listeners say of every turn, one by one.

The human's turns are given; the model answers each with its own earlier replies before
it, their thoughts taken out. So what it forgets or gets wrong stays in what it reads. A
reply whose thought never closes leaves an empty turn, a prompt that no longer fits ends
the dialogue: it failed, from that turn on. All is said once more in silence, see
evals/world.py.

Listeners are simulated (data/world/gold.py, from the truth behind synthetic speech,
data/world/talks.py): each scores a reply from 1 to 5.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import workdirs
from stepaudio_jax.data.corpus import LISTED
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.data.world import gold, talks
from stepaudio_jax.evals.parts import hearing, tables, turns
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.prompts import Frames, Prompts
from stepaudio_jax.evals.parts.replies import Reply, replies
from stepaudio_jax.workdirs import Model

DEFAULTS = {"temperature": 0.0, "max_new_tokens": 64, "batch_size": 64}

# What a turn asks for decides whose correctness it is: a fact's or the mood's.
ASKED = {"memory": "memory", "emotion": "mood"}
# Of every turn, by what gold calls them.
ALWAYS = {
  "instruction": "instruction_retention",
  "emotional_continuity": "emotional_continuity",
  "coherence": "coherence",
  "naturalness": "naturalness",
}
DIMENSIONS = ("memory", *list(ALWAYS.values())[:2], "mood", *list(ALWAYS.values())[2:])

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options(replies_lib.Options):
  """And `silence`: whether all is said again in silence. One sample only."""

  silence: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.samples != 1:
      raise ValueError(f"samples={self.samples}: a dialogue goes on from one reply")


def load(folder: epath.PathLike) -> Model:
  return workdirs.load_model(folder)


def evaluate(
  model: Model,
  data: epath.Path,
  *,
  cache: epath.Path,
  options: Options,
  limit: int | None = None,
) -> tuple[Row, list[Row]]:
  """Talks a model through long dialogues.

  Args:
    data: holds long-talks.jsonl, long-talks-truth.jsonl and the speech, as
      data/world/talks.py writes them.
    cache: where encoder frames are kept.
    limit: only the first so many dialogues.

  Returns:
    The summary, and its items: one of each dialogue, turn and condition.

  Raises:
    ValueError: files that are absent or wrong, or a dialogue without its truth.
  """
  corpus = prompts_lib.corpus(data / talks.DIALOGUES)
  dialogues = prompts_lib.dialogues(corpus, limit)
  truths = _truths(data / talks.TRUTH, dialogues)
  frames = prompts_lib.heard(model, dialogues, corpus.key, cache)
  heard = _Conversation(model, dialogues, frames, corpus.key, options)
  items = [_item("audio", *said, truths) for said in heard.turns("audio")]
  if options.silence:
    keys = {corpus.key(audio) for talk in dialogues for audio in talk.audio}
    silence = hearing.silenced(frames, keys, model.params, model.size)
    quiet = _Conversation(model, dialogues, silence, corpus.key, options)
    items += [_item("silence", *said, truths) for said in quiet.turns("silence")]
  settings = {
    **dataclasses.asdict(options),
    "limit": limit,
    "listener": "gold (simulated)",
    "prompt_tokens": heard.max_tokens,
  }
  return {"settings": settings, **summary(items)}, items


@dataclasses.dataclass
class _Conversation:
  """A model in all dialogues at once, a turn at a time."""

  model: Model
  dialogues: Sequence[Dialogue]
  frames: Frames
  key: Any
  options: Options

  @property
  def max_tokens(self) -> int:
    return self.options.room(self.model.size.max_positions)

  def turns(
    self, what: str
  ) -> Iterator[tuple[str, int, list[Row], Reply | None, str | None]]:
    """(dialogue, turn from 0, messages read, reply or None, why there is none)."""
    heard = {talk.id: human_turns(talk.row["messages"]) for talk in self.dialogues}
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
        yield talk.id, k, [*said[talk.id]], reply, failed.get(talk.id)
        said[talk.id].append(own_turn(reply))

  def _asked(self, here: Sequence[Dialogue], said: dict[str, list[Row]]) -> Prompts:
    """Prompts that end with what the human said last."""
    open_talks = [
      Dialogue(talk.id, {"id": talk.id, "messages": said[talk.id]}, talk.audio)
      for talk in here
    ]
    return prompts_lib.asked(
      self.model, open_talks, self.key, self.frames, max_tokens=self.max_tokens
    )


def human_turns(messages: Sequence[Row]) -> list[list[Row]]:
  """What is read before each reply: the messages between the assistant's."""
  found: list[list[Row]] = [[]]
  for message in messages:
    if message["role"] == "assistant":
      found.append([])
    else:
      found[-1].append(message)
  return [turn for turn in found if turn]


def own_turn(reply: Reply | None) -> Row:
  """A reply as the next prompt shows it: the answer alone, empty where none came."""
  text = (reply.answer or "") if reply else ""
  # An empty thought says that what looks like one in the answer is text.
  content = [{"type": "text", "text": text}]
  return {"role": "assistant", "content": content, "think": ""}


def _item(
  condition: str,
  name: str,
  turn: int,
  messages: list[Row],
  reply: Reply | None,
  failed: str | None,
  truths: dict[str, list[Row]],
) -> Row:
  truth = truths[name][turn]
  dimensions = [ASKED[truth["task"]], *ALWAYS.values()]
  said = {"think": None, "reply": None, "raw": None, "correct": None}
  scores: dict[str, float | None] = {}
  if reply is not None:
    said = {"think": reply.think, "reply": reply.answer, "raw": reply.text}
    said["correct"] = gold.correct(truth, reply.text)
    scores = scored(truth, reply)
  return {
    "id": name,
    "turn": turn + 1,
    "condition": condition,
    "task": truth["task"],
    "distance": truth["distance"],
    "changed": truth["changed"],
    "messages": [
      {key: part for key, part in message.items() if key != "think"}
      for message in messages
    ],
    "answer": truth["answer"],
    **said,
    "asked": dimensions,
    "scores": scores,
    "truncated": reply is not None and reply.truncated,
    "failed": failed,
  }


def scored(truth: Row, reply: Reply) -> dict[str, float | None]:
  """Gold's scores by the names of DIMENSIONS; None where it has nothing to read."""
  found = gold.score(truth, reply.text)
  readable = bool(reply.answer)
  answered = readable and gold.correct(truth, reply.text) is not None
  out: dict[str, float | None] = {
    name: found[of] if readable else None for of, name in ALWAYS.items()
  }
  return {ASKED[truth["task"]]: found["correctness"] if answered else None, **out}


def summary(items: Sequence[Row]) -> Row:
  """Every dimension turn by turn beside silence, and memory by distance."""
  heard, quiet = (
    [row for row in items if row["condition"] == condition]
    for condition in ("audio", "silence")
  )
  present = [n for n in DIMENSIONS if any(n in row["asked"] for row in heard)]
  remembered = [row for row in heard if "memory" in row["asked"]]
  distances = sorted({row["distance"] for row in remembered})
  return {
    "simulated": True,
    "dialogues": len({row["id"] for row in heard}),
    "turns": max(row["turn"] for row in heard),
    "dimensions": {
      name: {
        **turns.curve(heard, name),
        "silence": turns.curve(quiet, name) if quiet else None,
      }
      for name in present
    },
    "memory_by_distance": {
      str(k): turns.entry([r for r in remembered if r["distance"] == k], "memory")
      for k in distances
    },
    "continuity_by_mood": {
      name: turns.entry(rows, "emotional_continuity")
      for name, rows in (
        (
          "same mood as before",
          [r for r in heard if r["turn"] > 1 and not r["changed"]],
        ),
        ("another mood", [r for r in heard if r["changed"]]),
      )
      if rows
    },
  }


def _truths(path: epath.Path, dialogues: Sequence[Dialogue]) -> dict[str, list[Row]]:
  """The truth of every turn of these dialogues."""
  found = {row.value["id"]: row.value["turns"] for row in Rows(path)}
  lacking = [
    talk.id
    for talk in dialogues
    if len(found.get(talk.id, ())) != len(human_turns(talk.row["messages"]))
  ]
  if lacking:
    raise ValueError(
      f"{path} lacks the truth of every turn of {len(lacking)} dialogues: "
      f"{lacking[:LISTED]}"
    )
  return {talk.id: found[talk.id] for talk in dialogues}


def page(result: Row) -> str:
  """The summary in Markdown."""
  settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
  parts = [
    "# interaction (simulated listeners)",
    f"Checkpoint `{result['checkpoint']}`, {result['dialogues']} dialogues of up to "
    f"{result['turns']} turns of synthetic speech. The model answers turn by turn "
    "with its own earlier replies before it; simulated listeners score every reply "
    "from 1 to 5 from the truth behind the speech.",
    "Means over dialogues with 95 % intervals (bootstrap over dialogues). A reply that "
    "cannot be read, or that was never asked for since the dialogue no longer fits, "
    "counts 1.",
    turns.means_table(result["dimensions"]),
    "Slopes through the means of the turns; in silence: all dialogues once more with "
    "every clip replaced by silence of equal length.",
    turns.slope_table(result["dimensions"]),
    "Memory by the turns since a fact was told, and continuity of emotion by whether "
    "the mood has turned.",
    tables.table(
      ["", "n", "mean"],
      [
        *(
          [f"told {k} turn(s) before", turns.counts(one), turns.interval(one)]
          for k, one in result["memory_by_distance"].items()
        ),
        *(
          [name, turns.counts(one), turns.interval(one)]
          for name, one in result["continuity_by_mood"].items()
        ),
      ],
    ),
    f"Settings: {settings}.",
  ]
  return "\n\n".join(parts) + "\n"


def plot(result: Row) -> Figure:
  """Every dimension against the turn, beside silence."""
  title = "interaction (simulated listeners): scores turn by turn"
  return turns.panels(title, result["dimensions"])
