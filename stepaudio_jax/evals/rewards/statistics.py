"""All that is told of a reward model's items, beyond parts/choices.py."""

from collections.abc import Sequence
from typing import Any

from stepaudio_jax.evals.rewards import (
  best,
  calibration,
  correlation,
  groups,
  lengths,
  sound,
)
from stepaudio_jax.evals.rewards.judged import Judged

Row = dict[str, Any]


def dimension(one: Judged, *, simulated: bool) -> Row:
  """Of one dimension."""
  return {
    "turns": groups.by_turns(one),
    "calibration": calibration.entry(one),
    "spearman": correlation.entry(one),
    "sound": sound.entry(one, simulated=simulated),
    "lengths": lengths.entry(one),
  }


def whole(items: Sequence[Row], heads: Sequence[Judged], name: str) -> Row:
  """Of all dimensions together.

  Args:
    name: of the dimension by which the best of n is chosen.
  """
  return {
    "own": correlation.own(heads),
    "between": correlation.between(heads),
    "best_of_n": {
      "dimension": name,
      "of": "candidates of the comparisons",
      "curve": best.entry(best.groups(items, name)),
    },
    # By construction; a judge's verdicts are told beside it where there are some.
    "order": {"heads": "exact", "judge": None},
  }
