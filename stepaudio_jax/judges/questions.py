"""What a judge is asked: prompts whose wording is known by its hash."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Template:
  """A prompt with {fields}; wherever a result is shown its hash is shown with it.

  Attributes:
    system: the turn before it; "" is none.
    text: with {name} for each field, {{ and }} for braces.
  """

  text: str
  system: str = ""

  @property
  def hash(self) -> str:
    content = f"{self.system}\0{self.text}".encode()
    return hashlib.sha256(content).hexdigest()[:12]

  def ask(self, **fields: str) -> "Question":
    """The prompt about one reply."""
    return Question(self.system, self.text.format(**fields), self.hash)


@dataclasses.dataclass(frozen=True)
class Question:
  """One judgement that is asked for.

  Attributes:
    text: all of it in words.
    template: hash of its wording.
    content: for judges that hear, in place of `text`: text and audio blocks
      (text/messages.py); none where there is nothing to be heard.
  """

  system: str
  text: str
  template: str
  content: tuple[dict[str, Any], ...] = ()


class Judge(Protocol):
  """Whoever answers questions."""

  def describe(self) -> dict[str, str | float | int]:
    """What is recorded beside a result: kind, model, settings."""

  def answers(self, questions: Sequence[Question]) -> list[str | None]:
    """Raw replies in order; None where none came, which is logged with the reason."""


class Weighing(Judge, Protocol):
  """A judge whose probabilities of the levels can be had, see core/levels.py."""

  def weighed(
    self, questions: Sequence[Question]
  ) -> list[tuple[str | None, np.ndarray | None]]:
    """(raw reply, probabilities [6] of the levels where it names one) in order.

    They are those of the level tokens at the place where the reply states its level;
    None where it states none, or by something else than its number.
    """
