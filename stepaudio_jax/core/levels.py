"""Six ordinal levels of a comparison of replies A and B, and what they are worth.

A judge names one by a number from 1 to 6, a single token of every tokenizer here
(R1.5 eq. 2, 3): A≫B, A>B, A≥B, B≥A, B>A, B≫A. Preference files have a label instead,
−3…+3, negative where the first reply is the better one; `weights` and `label` are the
one place where the one becomes the other. Values φ are above 0 where A, the reply that
is named first, is the better one.
"""

import re
from collections.abc import Sequence

import numpy as np

from stepaudio_jax.core import replies

COUNT = 6
NUMBERS = tuple(range(1, COUNT + 1))
SYMBOLS = ("A≫B", "A>B", "A≥B", "B≥A", "B>A", "B≫A")
WORDS = (
  *("A is much better", "A is better", "A is slightly better"),
  *("B is slightly better", "B is better", "B is much better"),
)
LINEAR = (1.0, 0.6, 0.2, -0.2, -0.6, -1.0)

_LABELS = (-3, -2, -1, 1, 2, 3)  # of the levels, in order
_EVEN = 0  # is the two middle levels, a half each
_ASCII = {"A>>B": "A≫B", "A>=B": "A≥B", "B>=A": "B≥A", "B>>A": "B≫A"}
_MARKS = " \t*_`\"'“”.!。！()[]{}"
_CALLED = re.compile(
  r"(?:(?:so|and|my|the|final|overall) )*"
  r"(?:level|answer|verdict|judge?ment|rating|choice)\b(?: is)?[\s*_\"']*([:：=]?)"
)
# A number by itself, or with its meaning behind it: "2", "2: A>B", "2 (A is better)".
_NUMBER = re.compile(
  r"([+-]?\d+(?:[.,/]\d+)?)(?![\w%])[\s*)\]\"']*(?:[:：(—–=-]\s*(.*))?"
)


def weights(label: int) -> np.ndarray:
  """What a rater's label is as a distribution over the levels, float64 [6].

  Raises:
    ValueError: it is no whole number from −3 to 3.
  """
  if label == _EVEN:
    return np.asarray([0, 0, 0.5, 0.5, 0, 0])
  if label not in _LABELS:
    raise ValueError(f"label {label!r} is not one of {(*_LABELS[:3], 0, *_LABELS[3:])}")
  return np.asarray([float(label == one) for one in _LABELS])


def label(level: int) -> int:
  """The preference label of a level, negative where A is better; never 0."""
  return _LABELS[checked(level) - 1]


def place(label_: int) -> float:
  """Where a label stands among the levels: 1 to 6, and 3.5 for 0."""
  return float(weights(label_) @ np.arange(1, COUNT + 1))


def checked(level: int) -> int:
  """The level, if it is one.

  Raises:
    ValueError: it is not.
  """
  if level not in NUMBERS:
    raise ValueError(f"level {level!r} is not one of {NUMBERS}")
  return level


def value(level: int | None, phi_6: Sequence[float] = LINEAR) -> float:
  """φ of a level; NaN where none was named."""
  return float("nan") if level is None else float(phi_6[checked(level) - 1])


def expected(
  probability_6: np.ndarray | None, phi_6: Sequence[float] = LINEAR
) -> float:
  """Σ p(g)·φ(g) under a judge's probabilities of the level tokens; NaN without any.

  They are taken among the six alone: what else the judge might have said is left out.
  The sum goes from both ends to the middle, so that mirrored probabilities have exactly
  the opposite value.

  Raises:
    ValueError: they are not six numbers of at least 0, or all are 0.
  """
  if probability_6 is None:
    return float("nan")
  p_6 = np.asarray(probability_6, np.float64)
  if p_6.shape != (COUNT,) or not (p_6 >= 0).all() or not 0 < p_6.sum() < np.inf:
    raise ValueError(f"probabilities of the {COUNT} levels are {probability_6!r}")
  phi_6 = np.asarray(phi_6, np.float64)
  pairs_3 = p_6[:3] * phi_6[:3] + p_6[:2:-1] * phi_6[:2:-1]
  return float(pairs_3.sum() / (p_6[:3] + p_6[:2:-1]).sum())


def named(raw: str | None) -> int | None:
  """The level that a reply states last, behind its thought; None where that is none.

  A statement is a line with nothing but a number or a symbol, whose meaning may follow
  it ("2", "A>B", "2 (A is better)", "2 A is better" as the question has it), or one
  that says what it states ("Level: 2"). The last statement decides, even if it names no
  level: "Level: 7" hides a "2" before it. Three in a row that count upwards are a list
  of the levels, and none of them is meant.
  """
  stated = [
    level for states, level in map(_stated, _spoken(raw).splitlines()) if states
  ]
  last = stated[-1] if stated else None
  is_list = last is not None and stated[-3:] == [last - 2, last - 1, last]
  return None if is_list else last


def _spoken(raw: str | None) -> str:
  """The reply behind its thought; one that never closes hides all."""
  if raw is None:
    return ""
  has_thought = raw.lstrip().startswith("<think>") or replies.THOUGHT_END in raw
  return replies.split_reply(raw, thinking=has_thought)[1] or ""


def _stated(line: str) -> tuple[bool, int | None]:
  """(whether a line is a statement, the level that it names)."""
  text = line.strip(_MARKS)
  called = _CALLED.match(text.casefold())
  text = text[called.end() if called else 0 :].strip(_MARKS)
  symbol = text.replace(" ", "").upper()
  symbol = _ASCII.get(symbol, symbol)
  if symbol in SYMBOLS:
    return True, SYMBOLS.index(symbol) + 1
  first, _, behind = text.partition(" ")
  if first in map(str, NUMBERS) and _plain(behind) in meanings(int(first)):
    return True, int(first)
  number = _NUMBER.fullmatch(text)
  if not number:
    return bool(called and called[1]), None
  level = int(number[1]) if number[1] in map(str, NUMBERS) else None
  meaning = _plain(number[2] or "")
  own = "" if level is None else meanings(level)
  return True, level if not meaning or meaning in own else None


def _plain(text: str) -> str:
  return text.strip(_MARKS).casefold().replace(" ", "")


def meanings(level: int) -> tuple[str, ...]:
  """What may stand behind a level's number, in lower case and without spaces."""
  symbol = SYMBOLS[checked(level) - 1]
  ascii_ = [plain for plain, own in _ASCII.items() if own == symbol]
  found = (symbol, *ascii_, WORDS[level - 1])
  return tuple(each.casefold().replace(" ", "") for each in found)
