"""The synthetic world's held-out dialogues, each heard and in silence.

The model answers the last human turn twice by one protocol: with the recordings, and
with silence of equal length in the place of every clip, since the length of audio
alone answers some questions (training.md §5). What is right comes from the truth
behind the synthetic speech (data/world/gold.py): every number here is simulated.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import workdirs
from stepaudio_jax.data.corpus import LISTED
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.data.world import gold, words
from stepaudio_jax.evals.parts import accuracy, hearing, tables
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.prompts import Prompt, Prompts
from stepaudio_jax.evals.parts.replies import Reply, replies
from stepaudio_jax.workdirs import Model

DEFAULTS = {"temperature": 0.0, "max_new_tokens": 64, "batch_size": 64}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options(replies_lib.Options):
  """And `silence`: whether all is asked again in silence. One sample only."""

  silence: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.samples != 1:
      raise ValueError(f"samples={self.samples}: world scores one reply to an item")


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
  """Scores a model on the held-out split of a world folder.

  Args:
    data: holds dialogues-heldout.jsonl, truth-heldout.jsonl and the speech.
    cache: where encoder frames are kept.
    limit: only the first so many dialogues, which lie in a drawn order.

  Returns:
    The summary, and its items: one of each dialogue and condition.

  Raises:
    ValueError: files that are absent or wrong, or a dialogue without its truth.
  """
  corpus = prompts_lib.corpus(data / "dialogues-heldout.jsonl")
  talks = prompts_lib.dialogues(corpus, limit)
  truths = _truths(data / "truth-heldout.jsonl", [talk.id for talk in talks])
  prompts = prompts_lib.prompts(
    model,
    talks,
    corpus.key,
    cache,
    max_tokens=options.room(model.size.max_positions),
  )
  items = _items("audio", model, prompts, options, truths)
  if options.silence:
    keys = {key for prompt in prompts.fitting for key in prompt.keys}
    silence = hearing.silenced(prompts.frames, keys, model.params, model.size)
    quiet = dataclasses.replace(prompts, frames=silence)
    items += _items("silence", model, quiet, options, truths)
  settings = {
    **dataclasses.asdict(options),
    "limit": limit,
    "thinking": prompts.thinking,
    "prompt_tokens": prompts.limits.max_tokens,
    "prompt_clips": prompts.limits.max_clips,
  }
  return {"settings": settings, **summary(items, list(truths.values()))}, items


def _items(
  condition: str,
  model: Model,
  prompts: Prompts,
  options: Options,
  truths: dict[str, Row],
) -> list[Row]:
  said = replies(model, prompts, options, what=condition)
  return [
    *(item(condition, reply, truths[reply.prompt.dialogue_id]) for reply in said),
    *(
      failed_item(condition, prompt, why, truths[prompt.dialogue_id])
      for prompt, why in prompts.failed
    ),
  ]


def item(condition: str, reply: Reply, truth: Row) -> Row:
  """One scored reply; `correct` is None where no answer can be read."""
  return {
    **_asked(condition, reply.prompt, truth),
    "think": reply.think,
    "reply": reply.answer,
    "raw": reply.text,
    "correct": gold.correct(truth, reply.text),
    "scores": gold.score(truth, reply.text),
    "truncated": reply.truncated,
    "failed": None,
  }


def failed_item(condition: str, prompt: Prompt, why: str, truth: Row) -> Row:
  """An item that could not be asked: no reply and no scores."""
  nothing = dict.fromkeys(("think", "reply", "raw", "correct"))
  asked = _asked(condition, prompt, truth)
  return {**asked, **nothing, "scores": {}, "truncated": False, "failed": why}


def _asked(condition: str, prompt: Prompt, truth: Row) -> Row:
  return {
    "id": truth["id"],
    "task": truth["task"],
    "condition": condition,
    "messages": prompt.row["messages"],
    "answer": truth["answer"],
  }


def summary(items: Sequence[Row], truths: Sequence[Row]) -> Row:
  """Accuracy of each task and of all, and means of the gold dimensions."""
  tasks = [task for task in words.TASKS if any(t["task"] == task for t in truths)]
  return {
    "simulated": True,
    "tasks": {
      task: _compared(
        [row for row in items if row["task"] == task],
        [truth for truth in truths if truth["task"] == task],
      )
      for task in tasks
    },
    "overall": _compared(items, truths),
    "dimensions": {name: _dimension(items, name) for name in gold.DIMENSIONS},
  }


def _compared(items: Sequence[Row], truths: Sequence[Row]) -> Row:
  heard, silence = (
    accuracy.accuracy(
      [row["correct"] for row in items if _scored(row, condition)],
      sum(row["condition"] == condition and bool(row["failed"]) for row in items),
    )
    if any(row["condition"] == condition for row in items)
    else None
    for condition in ("audio", "silence")
  )
  chance = sum(map(_chance, truths)) / len(truths)
  return accuracy.against_silence(heard, silence, chance)


def _dimension(items: Sequence[Row], name: str) -> Row:
  heard, silence = (
    accuracy.mean([row["scores"][name] for row in items if _scored(row, condition)])
    if any(_scored(row, condition) for row in items)
    else None
    for condition in ("audio", "silence")
  )
  return {**heard, "silence": silence}


def _scored(row: Row, condition: str) -> bool:
  return row["condition"] == condition and not row["failed"]


def _chance(truth: Row) -> float:
  """Of a guess among the choices, or among digit strings of the right length."""
  if truth.get("choices"):
    return 1 / len(truth["choices"])
  return len(words.DIGITS) ** -float(len(truth["answer"].split()))


def _truths(path: epath.Path, ids: Sequence[str]) -> dict[str, Row]:
  """The truth rows of these dialogues, in their order."""
  found = {row.value["id"]: row.value for row in Rows(path)}
  lacking = [name for name in ids if name not in found]
  if lacking:
    raise ValueError(f"{path} lacks {len(lacking)} dialogues: {lacking[:LISTED]}")
  return {name: found[name] for name in ids}


def page(result: Row) -> str:
  """The summary in Markdown."""
  accuracies = {**result["tasks"], "all": result["overall"]}
  parts = [
    "# world (simulated)",
    f"Checkpoint `{result['checkpoint']}`. Synthetic speech; what is right comes from "
    "the truth behind it. In silence: the same prompts with every clip replaced by "
    "silence of equal length.",
    "Accuracy over all items, unparsed and failed ones counted as wrong, with 95 % "
    "intervals (Wilson). A task beats silence if its lower bound is above the accuracy "
    "in silence and above chance.",
    tables.accuracy_table(accuracies),
    "Gold dimensions, 1 to 5, with 95 % intervals (bootstrap over items).",
    tables.mean_table(result["dimensions"]),
    f"Settings: {tables.told(result['settings'])}.",
  ]
  return "\n\n".join(parts) + "\n"


def plot(result: Row) -> Figure:
  """Accuracies with their intervals beside silence."""
  title = "world (simulated): accuracy with audio and in silence"
  return tables.accuracy_bars(title, {**result["tasks"], "all": result["overall"]})
