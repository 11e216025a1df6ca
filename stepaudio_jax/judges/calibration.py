"""What a judge's levels are worth, measured on pairs that people judged too.

φ(g) is the log-odds of P(a person prefers A | the judge says g): isotonic in the level,
antisymmetric, within ±3 (training.md §2.3). Isotonic regression is scikit-learn's.
"""

from collections.abc import Sequence

import numpy as np
from sklearn import isotonic

from stepaudio_jax.core import levels

LIMIT = 3.0


def fitted(named: Sequence[int | None], label: Sequence[int]) -> np.ndarray:
  """φ of the six levels, float64 [6].

  Every pair counts in both orders, as level g with its label and as level 7 − g with
  the opposite one, which makes φ antisymmetric. A tie is half a preference each way. A
  level that the judge never named lies on the line between its neighbours.

  Args:
    named: by the judge about held-out pairs; None, where it named none, is left out.
    label: of people about the same pairs, −3…+3, negative where A is better.

  Raises:
    ValueError: the lengths differ, or no level is named.
  """
  if len(named) != len(label):
    raise ValueError(f"{len(named)} levels and {len(label)} labels of pairs")
  total_6, first_6 = np.zeros(levels.COUNT), np.zeros(levels.COUNT)
  for level, one in zip(named, label, strict=True):
    if level is None:
      continue
    place = levels.checked(level) - 1
    won = float(levels.weights(one)[:3].sum())  # by A
    for k, share in ((place, won), (levels.COUNT - 1 - place, 1.0 - won)):
      total_6[k] += 1.0
      first_6[k] += share
  seen = np.flatnonzero(total_6)
  if not len(seen):
    raise ValueError(f"none of {len(named)} replies names a level: φ is not known")
  share = isotonic.isotonic_regression(
    first_6[seen] / total_6[seen], sample_weight=total_6[seen], increasing=False
  )
  with np.errstate(divide="ignore"):
    odds = np.clip(np.log(share) - np.log1p(-share), -LIMIT, LIMIT)
  odds_6 = np.interp(np.arange(levels.COUNT), seen, odds)
  return (odds_6 - odds_6[::-1]) / 2
