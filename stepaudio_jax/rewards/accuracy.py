"""1 where the reply gives the example's answer, else 0 (R1 §4.1: 1.0·[a = a*])."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.rewards.parts import answers, options

NEEDS = ("answer",)
_PITCH = {"id": "p", "answer": "low", "choices": ["low", "middle", "high"]}
_DIGITS = {"id": "d", "answer": "three four two"}
EXAMPLES = [
  (_PITCH, "A deep voice.\n</think>\nThe voice is low.", 1.0),
  (_PITCH, "A deep voice.\n</think>\nA", 1.0),
  (_PITCH, "A deep voice.\n</think>\nIt is high.", 0.0),
  (_PITCH, "A deep voice.\n</think>\nIt is low or high.", 0.0),
  (_PITCH, "The voice is low.", 0.0),
  (_DIGITS, "\n</think>\nYou said 3 4 2.", 1.0),
  (_DIGITS, "\n</think>\nYou said three two four.", 0.0),
]


def check(example: Mapping[str, Any]) -> None:
  """Whether the example can be scored.

  Raises:
    ValueError: it has no answer, or one that is not among its choices.
  """
  _expected(example)


def score(example: Mapping[str, Any], text: str) -> float:
  """Without an answer that can be read it is 0.

  Raises:
    ValueError: as `check`.
  """
  expected = _expected(example)
  answer = answers.answer_text(text)
  if answer is None:
    return 0.0
  if _choices(example):
    return float(options.choice(answer, _choices(example)) == expected)
  return float(answers.agrees(answer, expected))


def _choices(example: Mapping[str, Any]) -> Sequence[str] | None:
  """None, as tables write it, and an empty list are no choices."""
  return example.get("choices")


def _expected(example: Mapping[str, Any]) -> str:
  where = f"example {example['id']!r}"
  answer, choices = example.get("answer"), _choices(example)
  if answer is None:
    raise ValueError(f"{where} has no 'answer'; its keys are {sorted(example)}")
  if not choices or answer in choices:
    return answer
  found = options.choice(answer, choices)
  if found is None:
    raise ValueError(f"{where}: answer {answer!r} is not among the choices {choices}")
  return found
