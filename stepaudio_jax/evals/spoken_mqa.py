"""Spoken MQA (Wei et al. 2025): spoken arithmetic and word problems; 2,269 questions.

Parquet files named by subset, short_digit-00000-of-00001.parquet and so on, with

  {"context": {"bytes", "path"}, "instruction": {"text": …}, "answer": {"text": "731"}}

or JSON Lines with the same fields, "subset" and "id". An answer may be worked out, with
"#### 731" at its end.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from etils import epath

from stepaudio_jax.evals.parts import numbers, reading, shipped
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry

COLUMN = "Spoken MQA"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 4096, "batch_size": 16}
JUDGES = ("rule",)
FILES = (*shipped.PARQUET, "spoken_mqa.jsonl", "*.jsonl", "*.json")
INSTRUCTION = "Solve the given math question step by step."
# Their references are compared as they are; those of all others are cleaned first.
ARITHMETIC = ("short_digit", "long_digit")


def read(folder: epath.PathLike) -> list[Item]:
  """All questions; those without an id are named by subset and number.

  Raises:
    ValueError: all that is wrong with the files.
  """
  return reading.items(folder, FILES, _item, numbered=True)


def score(item: Item, answer: str | None, verdicts: None = None) -> Score:
  """1 where the number that is read equals the gold one: 3.0 is 3, 6/2 is 3."""
  value = None if answer is None else numbers.read(answer)
  if value is None:
    return Score(None)
  return Score(float(value == Fraction(item.gold)), numbers.shown(value))


def official(items: Sequence[Item], answers: Sequence[str | None]) -> list[float]:
  """AudioBench's: the cleaned number equals the reference as a string."""
  return [
    float(numbers.gsm8k(answer or "") == _reference(item))
    for item, answer in zip(items, answers, strict=True)
  ]


def _reference(item: Item) -> str:
  reasoning = item.groups["subset"] not in ARITHMETIC
  return numbers.gsm8k_reference(_answer_text(item.row["answer"]), cleaned=reasoning)


def _answer_text(answer: Any) -> str:
  return answer["text"] if isinstance(answer, dict) else answer


def _item(entry: Entry) -> Item | None:
  text = entry.text("answer")
  gold = numbers.worked_out(text)
  if text and gold is None:
    entry.fault(f"'answer' is {text!r:.80}, which ends with no number")
  content = [{"type": "text", "text": INSTRUCTION}, entry.audio("context")]
  subset = entry.text("subset", entry.split)
  return entry.item(content, gold, groups={"subset": subset})
