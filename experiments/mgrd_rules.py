"""What MGRD's filter knows of a reply: grounded in sound, coherent, right; by rules."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.rewards import accuracy, acoustic_grounding, think_format
from stepaudio_jax.rewards.parts import answers, numerals, options

LEAST_WORDS = 3  # of a thought
MOST_REPEATED = 0.3  # share of a thought's word triples that it has said before
_WORD = re.compile(r"[\w']+")
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_SENTENCE = re.compile(r"[.!?;。！？；\n]+")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What is known of one reply.

  Attributes:
    reasons: why it is dropped, the first one first; none if it is kept.
    features: what its thought names that can be heard, by kind.
    conclusion: what the thought ends at, "" where it names no option and no digits.
    judged: the judge's raw reply; None where nobody was asked.
  """

  reasons: tuple[str, ...]
  features: Mapping[str, Sequence[str]]
  conclusion: str
  judged: str | None = None


def verdict(dialogue: Row, text: str) -> Verdict:
  """By rules alone.

  Args:
    dialogue: the row that was asked, with "answer" and maybe "choices".
    text: what was sampled after a prompt that opened a thought.
  """
  answer = answers.answer_text(text)
  if answer is None:
    return Verdict(("the thought never closes",), {}, "")
  thought = text.rpartition("</think>")[0].strip().removeprefix("<think>").strip()
  features = acoustic_grounding.features(thought)
  conclusion = concluded(dialogue, thought)
  reasons = [] if features else ["names nothing that can be heard"]
  reasons += incoherences(dialogue, thought, answer, conclusion)
  if not think_format.score(dialogue, text):
    reasons.append("no thought closed once before an answer")
  if not accuracy.score(dialogue, text):
    reasons.append("wrong")
  return Verdict(tuple(reasons), features, conclusion)


def incoherences(
  dialogue: Row, thought: str, answer: str, conclusion: str
) -> list[str]:
  """What speaks against a thought, whatever it is about."""
  said = words(thought)
  found = []
  if len(said) < LEAST_WORDS:
    found.append(f"a thought of {len(said)} words")
  if repeated(said) > MOST_REPEATED or _twice(thought):
    found.append("repeats itself")
  if conclusion and not _agrees(dialogue, conclusion, answer):
    found.append("the answer is not what the thought ends at")
  return found


def words(text: str) -> list[str]:
  """Words, each Chinese character one."""
  spaced = _CHINESE.sub(lambda found: f" {found[0]} ", numerals.plain(text))
  return _WORD.findall(spaced)


def repeated(said: Sequence[str]) -> float:
  """Share of the triples of neighbouring words that came before."""
  triples = list(zip(said, said[1:], said[2:], strict=False))
  return 1.0 - len(set(triples)) / len(triples) if triples else 0.0


def concluded(dialogue: Row, thought: str) -> str:
  """The one option that the last sentence naming any names; else its digits.

  "" where it names several options, or where the thought names none.
  """
  choices = dialogue.get("choices")
  for sentence in reversed(_sentences(thought)):
    if choices:
      named = options.named(sentence, choices)
      if named:
        return named[0] if len(named) == 1 else ""
    elif numerals.digits(sentence):
      return " ".join(numerals.digits(sentence))
  return ""


def _agrees(dialogue: Row, conclusion: str, answer: str) -> bool:
  """Whether an answer says what its thought ends at.

  Of digits those of the answer must stand together there: "one and two make three".
  """
  if dialogue.get("choices"):
    return options.choice(answer, dialogue["choices"]) in (conclusion, None)
  said = " ".join(numerals.digits(answers.unwrapped(answer)))
  return f" {said} " in f" {conclusion} " if said else True


def _sentences(text: str) -> list[str]:
  return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def _twice(thought: str) -> bool:
  """Whether a sentence of some length stands there twice."""
  said = [numerals.plain(one) for one in _sentences(thought) if len(words(one)) > 2]
  return len(set(said)) < len(said)
