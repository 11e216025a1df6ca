"""Offline: what another reward would have made of replies that are there already.

Advantages are computed anew by the algorithm itself, for every question on the very
same replies; nothing is generated. Intervals are over prompts: all groups of a prompt,
of whatever step, are drawn or left out together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepaudio_jax.ablate import intervals, rank
from stepaudio_jax.ablate import saved as saved_lib
from stepaudio_jax.ablate.questions import CONTROL, Question
from stepaudio_jax.ablate.saved import Saved

WITHIN = {
  "spearman": rank.spearman,
  "kendall": rank.kendall,
  "best_changes": rank.best_changes,
}

Row = dict[str, Any]


def advantages(runs: Sequence[Saved], asked: Question) -> np.ndarray:
  """advantage_PG of all groups, NaN where a reply is masked."""
  return np.concatenate(
    [
      saved_lib.by_reply(saved_lib.of_question(saved, step, asked)).reshape(
        -1, saved.samples
      )
      for saved in runs
      for step in saved.steps
    ]
  )


def compared(
  runs: Sequence[Saved], questions: Sequence[Question], draws: int
) -> dict[str, Row]:
  """{question: how its ranking of the replies differs from the control's}.

  Args:
    questions: the first is the control.

  Returns:
    Of each: "spearman" and "kendall", means over the groups that both sides order;
    "best_changes", the share of groups whose best replies are all others than the
    control's; "correlation" of the advantages of all replies; each as {"mean", "low",
    "high"}; "groups" that count for the first, and "flat", which either side leaves
    without an order.
  """
  prompts = [name for saved in runs for name in saved.prompts]
  whole_PG = advantages(runs, questions[0])
  return {
    asked.name: _pair(whole_PG, advantages(runs, asked), prompts, draws)
    for asked in questions
  }


def _pair(
  whole_PG: np.ndarray, other_PG: np.ndarray, prompts: Sequence[str], draws: int
) -> Row:
  out: Row = {}
  for name, measure in WITHIN.items():
    value_P = _by_group(measure, whole_PG, other_PG)
    known_P = np.isfinite(value_P)
    stat_P2 = np.stack([np.where(known_P, value_P, 0.0), known_P * 1.0], 1)
    out[name] = _told(prompts, stat_P2, intervals.ratio, draws)
    if name == "spearman":
      out |= {"groups": int(known_P.sum()), "flat": int((~known_P).sum())}
  moments_P6 = _moments(whole_PG, other_PG)
  return out | {"correlation": _told(prompts, moments_P6, _correlation, draws)}


def _told(
  prompts: Sequence[str], stat_PM: np.ndarray, value: Callable, draws: int
) -> dict[str, float | None]:
  return intervals.resampled(intervals.clusters(prompts, stat_PM), value, draws)


def _by_group(
  measure: Callable, whole_PG: np.ndarray, other_PG: np.ndarray
) -> np.ndarray:
  out = []
  for x_G, y_G in zip(whole_PG, other_PG, strict=True):
    both_G = np.isfinite(x_G) & np.isfinite(y_G)
    enough = both_G.sum() > 1
    out.append(measure(x_G[both_G], y_G[both_G]) if enough else float("nan"))
  return np.asarray(out)


def _moments(whole_PG: np.ndarray, other_PG: np.ndarray) -> np.ndarray:
  """n, Σx, Σy, Σx², Σy², Σxy of each group's replies."""
  both_PG = np.isfinite(whole_PG) & np.isfinite(other_PG)
  x_PG, y_PG = (np.where(both_PG, z, 0.0) for z in (whole_PG, other_PG))
  parts = (both_PG * 1.0, x_PG, y_PG, x_PG**2, y_PG**2, x_PG * y_PG)
  return np.stack([part.sum(1) for part in parts], 1)


def _correlation(sum_M: np.ndarray) -> np.ndarray:
  n, x, y, xx, yy, xy = np.moveaxis(sum_M, -1, 0)
  return (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))


def agreement(runs: Sequence[Saved]) -> float:
  """Largest distance between the runs' own advantages and ours under their weights.

  Near 0 where the rows hold all that the advantages are made of.
  """
  far = [0.0]
  for saved in runs:
    for step in saved.steps:
      ours_B = saved_lib.by_reply(saved_lib.advised(saved, step, step.weight_BC))
      theirs_B = np.where(np.isfinite(ours_B), step.advantage_B, np.nan)
      apart_B = np.abs(ours_B - theirs_B)
      far.append(float(np.nanmax(apart_B, initial=0.0)))
  return max(far)


def check(runs: Sequence[Saved], questions: Sequence[Question]) -> None:
  """Whether the first is the control, and every run has what all of them weigh."""
  if questions[0].name != CONTROL:
    raise ValueError(f"the first question is {questions[0].name!r}, not {CONTROL!r}")
  for saved in runs:
    for asked in questions:
      saved_lib.weighed(saved, saved.steps[0], asked.weights)
