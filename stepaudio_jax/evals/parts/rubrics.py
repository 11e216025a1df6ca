"""A judge who rates turns of dialogues by rubrics, from 1 to 5."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from etils import epath

from stepaudio_jax.data import fields
from stepaudio_jax.data.corpus import LISTED
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.evals.parts import turns
from stepaudio_jax.evals.parts.conversation import Said
from stepaudio_jax.judges import parsing
from stepaudio_jax.judges import rubric as rubric_lib
from stepaudio_jax.judges.questions import Judge, Template

TEMPLATE = Template(
  system="You rate replies of a voice assistant, strictly and by one criterion only.",
  text="""The conversation so far; [audio] stands for speech that you cannot hear:

{history}

The assistant's reply that you rate:

{reply}

Criterion ({dimension}): {criterion}

How well does this reply meet the criterion, from 1 (not at all) to 5 (fully)?
Answer with JSON and nothing else: {{"explanation": "one sentence", "score": 1}}""",
)
_KEYS = ("id", "turn", "dimension", "text")

Row = dict[str, Any]
# (dialogue, turn from 1) → {dimension: criterion}
Rubrics = dict[tuple[str, int], dict[str, str]]


def read(path: epath.Path, lasts: dict[str, int]) -> Rubrics:
  """Rubric rows {"id", "turn", "dimension", "text"}: what a reply is judged by.

  Args:
    lasts: the last turn of each dialogue that is judged; rows of others are left out.

  Raises:
    ValueError: rows that are wrong, name a turn that a dialogue lacks, or say twice
      what a turn's dimension is; or dialogues without any. All are listed.
  """
  found: Rubrics = {}
  problems = []
  for row in Rows(path):
    try:
      fields.only(row.value, _KEYS, row.at)
      name, turn = fields.text(row, "id"), fields.integer(row, "turn")
      dimension, text = fields.text(row, "dimension"), fields.text(row, "text")
    except ValueError as error:
      problems.append(str(error))
      continue
    if name not in lasts:
      continue
    here = found.setdefault((name, turn), {})
    if not 1 <= turn <= lasts[name]:
      problems.append(f"{row.at}: turn {turn} of {name!r}, which has {lasts[name]}")
    if dimension in here:
      problems.append(f"{row.at}: {dimension!r} of turn {turn} of {name!r} once more")
    here[dimension] = text
  judged = {name for name, _ in found}
  problems += [f"{path} has no rubric of {n!r}" for n in lasts if n not in judged]
  if problems:
    more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    raise ValueError("\n  ".join(["wrong rubrics:", *problems[:LISTED]]) + more)
  return found


def judged(
  talked: Sequence[Said], rubrics: Rubrics, judge: Judge
) -> tuple[list[dict[str, float | None]], list[dict[str, str | None]]]:
  """Of each turn its scores and the judge's raw replies, by dimension.

  What is said in a turn is judged alone, before its history. A score is None where
  nothing was said, or where the judge's reply cannot be read: never a guess.
  """
  places, questions = [], []
  for k, said in enumerate(talked):
    if said.answer:
      for dimension, criterion in rubrics.get((said.id, said.turn), {}).items():
        places.append((k, dimension))
        questions.append(
          TEMPLATE.ask(
            history=rubric_lib.shown(said.messages),
            reply=said.answer,
            dimension=dimension.replace("_", " "),
            criterion=criterion,
          )
        )
  scores: list[dict[str, float | None]] = [
    dict.fromkeys(rubrics.get((said.id, said.turn), ())) for said in talked
  ]
  raw: list[dict[str, str | None]] = [{} for _ in talked]
  answers = judge.answers(questions) if questions else []
  for (k, dimension), answer in zip(places, answers, strict=True):
    raw[k][dimension] = answer
    scores[k][dimension] = rating(answer)
  return scores, raw


def rating(raw: str | None) -> float | None:
  """1 to 5 of {"explanation": text, "score": number}, or None."""
  score = (parsing.json_object(raw) or {}).get("score")
  if not fields.is_number(score) or not turns.LEAST <= score <= turns.MOST:
    return None
  return float(score)


def dimensions(rubrics: Rubrics) -> tuple[str, ...]:
  """All that are judged, those of most turns first."""
  counts = Counter(name for here in rubrics.values() for name in here)
  return tuple(name for name, _ in counts.most_common())
