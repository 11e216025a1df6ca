"""Whether a reply meets what its rubric asks: one question about each item.

An item has a weight; points are those of HealthBench (arXiv 2505.08775, §3): the
weights of the items that are met, over the sum of those above 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.judges import parsing
from stepaudio_jax.judges.questions import Question, Template
from stepaudio_jax.text import messages as messages_lib

TEMPLATE = Template(
  system="You check replies of a voice assistant, strictly and by one criterion only.",
  text="""The conversation so far; [audio] stands for speech that you cannot hear:

{history}

The assistant's reply:

{reply}

Criterion: {criterion}

Does the reply meet the criterion? Answer with JSON and nothing else:
{{"explanation": "one sentence", "criteria_met": true}}""",
)

Row = Mapping[str, Any]


def questions(row: Row, reply: str) -> list[Question]:
  """One for each item of a dialogue row's rubric; none without."""
  history = shown(row["messages"])
  return [
    TEMPLATE.ask(history=history, reply=reply, criterion=item["text"])
    for item in row.get("rubric") or ()
  ]


def points(row: Row, answers: Sequence[str | None]) -> float | None:
  """What a reply earns, at most 1; None where an answer cannot be read.

  Args:
    answers: the judge's raw replies to `questions`.
  """
  found = [parsing.criterion(raw) for raw in answers]
  if None in found:
    return None
  pairs = list(zip(row["rubric"], found, strict=True))
  return sum(item["weight"] for item, one in pairs if one.met) / highest(row)


def highest(row: Row) -> float:
  """The sum of a rubric's weights above 0.

  Raises:
    ValueError: there is none.
  """
  total = sum(max(item["weight"], 0.0) for item in row["rubric"])
  if total <= 0:
    raise ValueError(f"the rubric of {row['id']!r} has no weight above 0")
  return total


def shown(messages: Sequence[Row]) -> str:
  """A conversation as text; audio as [audio]."""
  lines = []
  for message in messages_lib.normalise(messages, "a conversation"):
    parts = [
      block["text"] if block["type"] == "text" else "[audio]"
      for block in message["content"]
    ]
    lines.append(f"{message['role']}: {' '.join(parts)}")
  return "\n".join(lines)
