"""Accuracy with its interval, beside that of the same model in silence."""

from collections.abc import Sequence
from typing import Any

from stepaudio_jax.evals.parts import intervals


def accuracy(verdicts: Sequence[bool | None], n_failed: int) -> dict[str, Any]:
  """Counts and shares of one task.

  An item that could not be asked, or whose reply gives no answer, counts as wrong in
  `accuracy` (with Wilson's 95 % interval) and is left out of `accuracy_answered`,
  which is None where nothing was answered.

  Args:
    verdicts: of each reply: right, wrong, or None where no answer can be read.
    n_failed: items without a reply.
  """
  n = len(verdicts) + n_failed
  correct = sum(verdict is True for verdict in verdicts)
  n_unparsed = sum(verdict is None for verdict in verdicts)
  answered = len(verdicts) - n_unparsed
  low, high = intervals.wilson(correct, n)
  return {
    "n": n,
    "n_failed": n_failed,
    "n_unparsed": n_unparsed,
    "correct": correct,
    "accuracy": correct / n,
    "low": low,
    "high": high,
    "accuracy_answered": correct / answered if answered else None,
  }


def against_silence(
  heard: dict[str, Any], silence: dict[str, Any] | None, chance: float
) -> dict[str, Any]:
  """`heard` beside its control, if there is one.

  It beats silence if its lower bound is above the control and above chance: a model
  that falls to pieces on silence, as a trained one may, must not win by that alone.
  """
  beats_silence = silence and heard["low"] > max(silence["accuracy"], chance)
  return {
    **heard,
    "chance": chance,
    "silence": silence,
    "beats_silence": beats_silence,
  }


def mean(scores: Sequence[float]) -> dict[str, Any]:
  """Mean with a bootstrap 95 % interval."""
  low, high = intervals.bootstrap(scores)
  return {
    "mean": sum(scores) / len(scores),
    "low": low,
    "high": high,
    "n": len(scores),
  }
