"""Questions with options: how they are asked, and our rule for what is chosen."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry
from stepaudio_jax.rewards.parts import options

# Step-Audio-R1's own prompt (evaluation of MMAU, MMSU and MMAR).
INSTRUCTION = (
  "Please choose the answer from the following options, do not provide any additional "
  "explanations or content: "
)


def prompt(question: str, choices: Sequence[str]) -> str:
  lettered = zip(string.ascii_uppercase, choices, strict=False)
  lines = [f"{letter}. {choice}" for letter, choice in lettered]
  return "\n".join([question, INSTRUCTION, *lines])


def item(
  entry: Entry,
  question: str,
  choices: Sequence[str],
  gold: str,
  audio: dict[str, Any],
  groups: Mapping[str, str],
) -> Item | None:
  """The question with its options as text, then the audio."""
  if len(choices) > len(string.ascii_uppercase):
    entry.fault(f"{len(choices)} choices are more than there are letters")
  text = {"type": "text", "text": prompt(question, choices)}
  return entry.item([text, audio], gold, choices, groups)


def score(item: Item, answer: str | None) -> Score:
  """1 where the answer names the right option, None where it names no single one."""
  chosen = None if answer is None else options.choice(answer, item.choices)
  if chosen is None:
    return Score(None)
  return Score(float(chosen == item.gold), chosen)
