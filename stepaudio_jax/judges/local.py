"""A generative model of ours as judge; how it generates is given by floors above."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from stepaudio_jax.judges.questions import Question

Say = Callable[[Sequence[list[dict[str, Any]]]], Sequence[str | None]]


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
    if not questions:
      return []
    replies = list(self._say([messages(question) for question in questions]))
    if len(replies) != len(questions):
      raise ValueError(f"{len(replies)} replies to {len(questions)} questions")
    silent = sum(reply is None for reply in replies)
    if silent:
      logging.warning("the judge gave no reply to %d of %d", silent, len(replies))
    return replies


def messages(question: Question) -> list[dict[str, Any]]:
  """A question as a dialogue."""
  system = [_message("system", question.system)] if question.system else []
  return [*system, _message("human", question.text)]


def _message(role: str, text: str) -> dict[str, Any]:
  return {"role": role, "content": [{"type": "text", "text": text}]}
