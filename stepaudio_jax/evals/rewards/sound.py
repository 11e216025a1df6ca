"""What is lost when the dialogue is not heard: accuracy with other sound, paired.

A dimension that needs the audio (gold's truth of it depends on what is heard) should
lose accuracy, any other should stay where it is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from stepaudio_jax.data.comparisons import MIXTURE, OVERALL
from stepaudio_jax.data.world import gold
from stepaudio_jax.evals.parts import choices
from stepaudio_jax.evals.rewards import judged
from stepaudio_jax.evals.rewards.judged import Judged
from stepaudio_jax.evals.rewards.resampling import Draws

Row = dict[str, Any]


def entry(one: Judged, *, simulated: bool) -> dict[str, Row]:
  """{control: accuracy with that sound, the drop, and whether it is as expected}.

  Args:
    simulated: the world's gold says which dimensions need audio; of other data nobody
      says so ("needs_audio" None).
  """
  heard_NJ = choices.right(one.gap_N, one.label_NJ)
  draws = Draws(one.dialogues)
  needs = needs_audio(one.name) if simulated else None
  out = {}
  for name, reward_N2 in one.other_N2.items():
    other_NJ = choices.right(judged.gap(reward_N2), one.label_NJ)
    drop = _mean(heard_NJ - other_NJ, draws.ratio)
    out[name] = {
      "accuracy": _mean(other_NJ, draws.share),
      "drop": drop,
      "needs_audio": needs,
      "as_expected": _expected(name, needs, drop),
    }
  return out


def needs_audio(dimension: str) -> bool | None:
  """By the gold listener; None of a dimension that it does not know."""
  if dimension in (OVERALL, MIXTURE):  # of which the others are parts
    return True
  return dimension in gold.HEARD if dimension in gold.DIMENSIONS else None


def _expected(control: str, needs: bool | None, drop: Row) -> bool | None:
  """It clearly drops where it should; where it should not, it does not clearly.

  None: nobody knows. So it is of flat speech too, whose words and median pitch are
  still there, for what is heard.
  """
  if needs is None or (needs and control == "flat"):
    return None
  return (drop["low"] > 0) is needs


def _mean(value_NJ: np.ndarray, told: Callable[..., Row]) -> Row:
  known_NJ = ~np.isnan(value_NJ)
  return told(np.nansum(value_NJ, axis=1), known_NJ.sum(axis=1))
