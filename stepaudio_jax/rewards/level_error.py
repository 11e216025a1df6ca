"""−|level error| / 5 of a judge that names a level (training.md §2.3): −1 to 0.

The example's "answer" is where its rater's label stands among the six levels, "1" to
"6", or "3.5" for a tie, from which both middle levels are half a step away
(data/sets/judgement.py makes such examples). A reply that names no level is as wrong as
the level furthest off, −1, else a judge would learn to be silent about hard pairs. This
is a judge's own training: where a judge rewards somebody else, silence is masked.
"""

from collections.abc import Mapping
from typing import Any

from stepaudio_jax.core import levels, replies

NEEDS = ("answer",)
_FURTHEST = levels.COUNT - 1
_PLACES = (*(f"{number}" for number in levels.NUMBERS), "3.5")
_FIFTH = {"id": "x", "answer": "5"}
EXAMPLES = [
  (_FIFTH, "B is kinder.\n</think>\n5", 0.0),
  (_FIFTH, "B is kinder.\n</think>\nLevel: 4", -0.2),
  (_FIFTH, "coherence 5\n</think>\n1", -0.8),
  (_FIFTH, "B is kinder.\n</think>\nLevel: 7", -1.0),
  (_FIFTH, "Level: 5", -1.0),
  ({"id": "x", "answer": "3.5"}, "Even.\n</think>\n4", -0.1),
  ({"id": "x", "answer": "3.5"}, "Even.\n</think>\n3", -0.1),
  ({"id": "x", "answer": "1"}, "A.\n</think>\n6", -1.0),
]


def check(example: Mapping[str, Any]) -> None:
  """Whether the example can be scored.

  Raises:
    ValueError: its answer is no place among the levels.
  """
  answer = example.get("answer")
  if answer not in _PLACES:
    raise ValueError(
      f"example {example['id']!r}: answer {answer!r} is not one of {_PLACES}"
    )


def score(example: Mapping[str, Any], text: str) -> float:
  """Reads the level behind the thought.

  Raises:
    ValueError: as `check`.
  """
  check(example)
  level = levels.named(replies.split_reply(text)[1])
  return -1.0 if level is None else -abs(level - float(example["answer"])) / _FURTHEST
