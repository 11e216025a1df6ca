"""A generative model of ours as judge; how it generates is given by floors above."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from stepaudio_jax.judges.questions import Question

Talks = Sequence[list[dict[str, Any]]]
Say = Callable[[Talks], Sequence[str | None]]
Weigh = Callable[[Talks], Sequence[tuple[str | None, np.ndarray | None]]]


class LocalJudge:
  """Judge that asks a model in this process.

  Args:
    say: dialogues (messages of text/messages.py, the last one the human's) to replies
      in order, None where there is none.
    described: what `say` is: checkpoint, step, settings.
  """

  def __init__(self, say: Say, described: Mapping[str, str | float | int]):
    self._say, self._described = say, dict(described)

  def describe(self) -> dict[str, str | float | int]:
    return {"kind": "local", **self._described}

  def answers(self, questions: Sequence[Question]) -> list[str | None]:
    """Raw replies in order.

    Raises:
      ValueError: the model gave another number of replies.
    """
    replies = _each(self._say, questions)
    _tell_silent(replies)
    return replies


class WeighingJudge(LocalJudge):
  """A local judge that also tells its probabilities of the levels.

  Args:
    weigh: as `say`, with the probabilities that judges.questions.Weighing tells of.
  """

  def __init__(
    self, say: Say, weigh: Weigh, described: Mapping[str, str | float | int]
  ):
    super().__init__(say, described)
    self._weigh = weigh

  def weighed(
    self, questions: Sequence[Question]
  ) -> list[tuple[str | None, np.ndarray | None]]:
    """As judges.questions.Weighing; errors as of `answers`."""
    found = _each(self._weigh, questions)
    _tell_silent([reply for reply, _ in found])
    return found


def messages(question: Question) -> list[dict[str, Any]]:
  """A question as a dialogue, with the sounds that belong to it."""
  system = [_message("system", [_text(question.system)])] if question.system else []
  return [*system, _message("human", [*question.content] or [_text(question.text)])]


def _each(ask: Callable, questions: Sequence[Question]) -> list[Any]:
  """What is said to each question."""
  if not questions:
    return []
  replies = list(ask([messages(question) for question in questions]))
  if len(replies) != len(questions):
    raise ValueError(f"{len(replies)} replies to {len(questions)} questions")
  return replies


def _tell_silent(replies: Sequence[str | None]) -> None:
  silent = sum(reply is None for reply in replies)
  if silent:
    logging.warning("the judge gave no reply to %d of %d", silent, len(replies))


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
  return {"role": role, "content": content}


def _text(text: str) -> dict[str, Any]:
  return {"type": "text", "text": text}
