"""Accuracy of a dimension in parts of the comparisons."""

from typing import Any

import numpy as np

from stepaudio_jax.evals.parts import choices
from stepaudio_jax.evals.rewards.judged import Judged
from stepaudio_jax.evals.rewards.resampling import Draws

Row = dict[str, Any]


def by_turns(one: Judged) -> dict[str, Row]:
  """{human turns: choices, accuracy with its interval}; None where all are ties."""
  right_NJ = choices.right(one.gap_N, one.label_NJ)
  draws = Draws(one.dialogues)
  out = {}
  for turns in np.unique(one.turns_N).tolist():
    mine_NJ = ~np.isnan(right_NJ) & (one.turns_N == turns)[:, None]
    total_N = np.where(mine_NJ, right_NJ, 0.0).sum(axis=1)
    count_N = mine_NJ.sum(axis=1).astype(np.float64)
    out[str(turns)] = {
      "n": int(count_N.sum()),
      "accuracy": draws.share(total_N, count_N),
    }
  return out
