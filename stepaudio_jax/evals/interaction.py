"""Interaction over long dialogues: what listeners say of every turn, one by one.

The human's turns are given; the model answers each with its own earlier replies before
it, their thoughts taken out. So what it forgets or gets wrong stays in what it reads. A
reply whose thought never closes leaves an empty turn, a prompt that no longer fits ends
the dialogue: it failed, from that turn on. All is said once more in silence, see
evals/world.py.

Who listens scores replies from 1 to 5. Without a judge listeners are simulated
(data/world/gold.py, from the truth behind the synthetic speech of data/world/talks.py).
A judge rates anybody's own dialogues by rubrics (parts/rubrics.py).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import workdirs
from stepaudio_jax.data.corpus import LISTED
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.data.world import gold, talks
from stepaudio_jax.evals.parts import hearing, rubrics, tables, turns
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.conversation import Conversation, Said
from stepaudio_jax.evals.parts.replies import Reply
from stepaudio_jax.judges.questions import Judge
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.workdirs import Model

DEFAULTS = {"temperature": 0.0, "max_new_tokens": 64, "batch_size": 64}
JUDGES = ("rule", "judge")  # the simulated listeners, or by rubrics
RUBRICS = "long-talks-rubrics.jsonl"

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
Listen = Callable[[list[Said], str], list[Row]]  # (turns, condition) → items


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
  judge: Judge | None = None,
) -> tuple[Row, list[Row]]:
  """Talks a model through long dialogues.

  Args:
    data: holds long-talks.jsonl and the speech, and long-talks-truth.jsonl, as
      data/world/talks.py writes them, or for a judge long-talks-rubrics.jsonl, rows
      {"id", "turn" (from 1), "dimension", "text"}. Replies that the dialogues hold
      are not read.
    cache: where encoder frames are kept.
    limit: only the first so many dialogues.
    judge: who listens instead of the simulated listeners.

  Returns:
    The summary, and its items: one of each dialogue, turn and condition.

  Raises:
    ValueError: files that are absent or wrong, or a dialogue without truth or rubric.
  """
  corpus = prompts_lib.corpus(data / talks.DIALOGUES)
  dialogues = prompts_lib.dialogues(corpus, limit)
  listen, names = _listener(data, dialogues, judge)
  clips = {corpus.key(audio): audio for talk in dialogues for audio in talk.audio}
  frames = hearing.store(model.params, cache)
  hearing.fill(frames, clips, model.params, model.size)
  heard = Conversation(model, dialogues, frames, corpus.key, options)
  items = listen([*heard.turns("audio")], "audio")
  if options.silence:
    silence = hearing.silenced(frames, clips, model.params, model.size)
    quiet = Conversation(model, dialogues, silence, corpus.key, options)
    items += listen([*quiet.turns("silence")], "silence")
  settings = {
    **dataclasses.asdict(options),
    "limit": limit,
    "prompt_tokens": heard.max_tokens,
  }
  listener = {"kind": "gold", "simulated": True}
  if judge:
    listener = {**judge.describe(), "template": rubrics.TEMPLATE.hash}
  found = summary(items, names, simulated=judge is None)
  return {"settings": settings, "listener": listener, **found}, items


def _listener(
  data: epath.Path, dialogues: Sequence[Dialogue], judge: Judge | None
) -> tuple[Listen, Sequence[str]]:
  """Who scores, and the dimensions."""
  if judge is None:
    truths = _truths(data / talks.TRUTH, dialogues)
    return lambda talked, what: [_gold(what, s, truths) for s in talked], DIMENSIONS
  lasts = {
    talk.id: len(messages_lib.human_turns(talk.row["messages"])) for talk in dialogues
  }
  asked = rubrics.read(data / RUBRICS, lasts)

  def listen(talked: list[Said], what: str) -> list[Row]:
    judged = zip(talked, *rubrics.judged(talked, asked, judge), strict=True)
    return [
      {**item(what, said, [*scores], scores), "verdicts": raw}
      for said, scores, raw in judged
    ]

  return listen, rubrics.dimensions(asked)


def item(
  condition: str, said: Said, asked: list[str], scores: dict[str, float | None]
) -> Row:
  """One turn of one dialogue; `scores` are those of the dimensions `asked`."""
  reply = said.reply
  return {
    "id": said.id,
    "turn": said.turn,
    "condition": condition,
    "messages": said.messages,
    "think": reply and reply.think,
    "reply": reply and reply.answer,
    "raw": reply and reply.text,
    "asked": asked,
    "scores": scores if reply else {},
    "truncated": reply is not None and reply.truncated,
    "failed": said.failed,
  }


def _gold(condition: str, said: Said, truths: dict[str, list[Row]]) -> Row:
  truth, reply = truths[said.id][said.turn - 1], said.reply
  asked = [ASKED[truth["task"]], *ALWAYS.values()]
  known = {key: truth[key] for key in ("task", "distance", "changed", "answer")}
  correct = gold.correct(truth, reply.text) if reply else None
  scores = scored(truth, reply) if reply else {}
  return {**item(condition, said, asked, scores), **known, "correct": correct}


def scored(truth: Row, reply: Reply) -> dict[str, float | None]:
  """Gold's scores by the names of DIMENSIONS; None where it has nothing to read."""
  found = gold.score(truth, reply.text)
  readable = bool(reply.answer)
  answered = readable and gold.correct(truth, reply.text) is not None
  out: dict[str, float | None] = {
    name: found[of] if readable else None for of, name in ALWAYS.items()
  }
  return {ASKED[truth["task"]]: found["correctness"] if answered else None, **out}


def summary(items: Sequence[Row], names: Sequence[str], simulated: bool) -> Row:
  """Every dimension turn by turn beside silence; of gold also memory by distance.

  Args:
    names: of the dimensions, in the order in which they are shown.
  """
  heard, quiet = (
    [row for row in items if row["condition"] == condition]
    for condition in ("audio", "silence")
  )
  present = [n for n in names if any(n in row["asked"] for row in heard)]
  return {
    "simulated": simulated,
    "dialogues": len({row["id"] for row in heard}),
    "turns": max(row["turn"] for row in heard),
    "dimensions": {
      name: {
        **turns.curve(heard, name),
        "silence": turns.curve(quiet, name) if quiet else None,
      }
      for name in present
    },
    **(_by_truth(heard) if simulated else {}),
  }


def _by_truth(rows: Sequence[Row]) -> Row:
  """What only the truth can tell apart."""
  remembered = [row for row in rows if row["distance"]]
  felt = {"same mood as before": False, "another mood": True}
  later = [row for row in rows if row["turn"] > 1]
  return {
    "memory_by_distance": {
      str(k): turns.entry([r for r in remembered if r["distance"] == k], "memory")
      for k in sorted({row["distance"] for row in remembered})
    },
    "continuity_by_mood": {
      name: turns.entry(found, "emotional_continuity")
      for name, changed in felt.items()
      if (found := [row for row in later if row["changed"] == changed])
    },
  }


def _truths(path: epath.Path, dialogues: Sequence[Dialogue]) -> dict[str, list[Row]]:
  """The truth of every turn of these dialogues."""
  found = {row.value["id"]: row.value["turns"] for row in Rows(path)}
  lacking = [
    talk.id
    for talk in dialogues
    if len(found.get(talk.id, ()))
    != len(messages_lib.human_turns(talk.row["messages"]))
  ]
  if lacking:
    raise ValueError(
      f"{path} lacks the truth of every turn of {len(lacking)} dialogues: "
      f"{lacking[:LISTED]}"
    )
  return {talk.id: found[talk.id] for talk in dialogues}


def page(result: Row) -> str:
  """The summary in Markdown."""
  listener = tables.told(result["listener"])
  parts = [
    f"# {_title(result)}",
    f"Checkpoint `{result['checkpoint']}`, {result['dialogues']} dialogues of up to "
    f"{result['turns']} turns. The model answers turn by turn with its own earlier "
    f"replies before it. Scores go from 1 to 5; the listener: {listener}.",
    "Means over dialogues with 95 % intervals (bootstrap over dialogues; where all are "
    "equal, Wilson's bound of those that may not be). A reply that is empty or cannot "
    "be read, one on which the judge says nothing that can be read (both: unparsed), "
    "and one that was never asked for since the dialogue no longer fits (failed) "
    "counts 1.",
    turns.means_table(result["dimensions"]),
    "Slopes through the means of the turns; in silence: all dialogues once more with "
    "every clip replaced by silence of equal length.",
    turns.slope_table(result["dimensions"]),
  ]
  if result["simulated"]:
    parts.append(_truth_table(result))
  parts.append(f"Settings: {tables.told(result['settings'])}.")
  return "\n\n".join(parts) + "\n"


def _truth_table(result: Row) -> str:
  remembered = result["memory_by_distance"].items()
  named = {f"memory, told {k} turn(s) before": one for k, one in remembered}
  felt = result["continuity_by_mood"].items()
  named |= {f"emotional continuity, {name}": one for name, one in felt}
  rows = [[name, turns.counts(one), turns.interval(one)] for name, one in named.items()]
  return tables.table(["", "n", "mean"], rows)


def _title(result: Row) -> str:
  who = "simulated listeners" if result["simulated"] else "judged by rubrics"
  return f"interaction ({who})"


def plot(result: Row) -> Figure:
  """Every dimension against the turn, beside silence."""
  return turns.panels(f"{_title(result)}: scores turn by turn", result["dimensions"])
