"""How far raters agree: Krippendorff's α with an interval, and each with the others.

α = 1 − D_o / D_e, observed over expected disagreement, for any number of raters and
with missing values (K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).
Values are value_NJ here: N units that were rated, J raters, NaN where one gave none. In
this file K are the different values, D the clusters (dialogues) and R the resamples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

METRICS = ("nominal", "ordinal", "interval", "ratio")
RESAMPLES = 2000
MOST_VALUES = 32  # different ones, where α is resampled: a matrix of them a dialogue
_AT_ONCE = 100  # resamples
_SEED = 0  # fixed: the same values always give the same interval


class Interval(NamedTuple):
  low: float
  high: float


def alpha(value_NJ: np.ndarray, metric: str = "ordinal") -> float | None:
  """Krippendorff's α; None where nobody can disagree: no pair, or one value alone.

  Raises:
    ValueError: an unknown metric, or values that the ratio metric does not have.
  """
  value_K, count_NK = _counts(value_NJ)
  found = float(_alpha(value_K, _pairs(count_NK), metric))
  return None if np.isnan(found) else found


def alpha_interval(
  value_NJ: np.ndarray,
  clusters: Sequence[str],
  metric: str = "ordinal",
  *,
  resamples: int = RESAMPLES,
) -> Interval | None:
  """Percentile bootstrap (95 %) of α over clusters of units, drawn as a whole.

  None where fewer than two clusters have a pair of values, or α is undefined.

  Args:
    clusters: of each unit, what it shares with others: its dialogue.

  Raises:
    ValueError: as `alpha`, or more than MOST_VALUES different values.
  """
  value_K, count_NK = _counts(value_NJ)
  if len(value_K) > MOST_VALUES:
    raise ValueError(
      f"{len(value_K)} different values; the interval of α is for scales of at most "
      f"{MOST_VALUES}"
    )
  paired = _paired(value_NJ)
  _, place_N = np.unique(np.asarray(clusters)[paired], return_inverse=True)
  dialogues = place_N.max(initial=-1) + 1
  if dialogues < 2:
    return None
  pair_DKK = np.zeros((dialogues, len(value_K), len(value_K)))
  np.add.at(pair_DKK, place_N, _unit_pairs(count_NK))
  flat_DM = pair_DKK.reshape(dialogues, -1)
  rng, found = np.random.default_rng(_SEED), []
  for start in range(0, resamples, _AT_ONCE):
    size = min(_AT_ONCE, resamples - start)
    drawn_RD = rng.multinomial(dialogues, [1 / dialogues] * dialogues, size=size)
    pair_RKK = (drawn_RD.astype(np.float64) @ flat_DM).reshape(
      size, *pair_DKK.shape[1:]
    )
    found.append(_alpha(value_K, pair_RKK, metric))
  alpha_R = np.concatenate(found)
  alpha_R = alpha_R[~np.isnan(alpha_R)]
  if not len(alpha_R):
    return None
  low, high = np.percentile(alpha_R, [2.5, 97.5])
  return Interval(float(low), float(high))


def same(value_NJ: np.ndarray) -> float | None:
  """Share of pairs of values of one unit that are equal; None without a pair.

  Each unit counts as often as it has values, as in α's observed disagreement.
  """
  _, count_NK = _counts(value_NJ)
  pair_KK = _pairs(count_NK)
  return float(np.trace(pair_KK) / pair_KK.sum()) if pair_KK.size else None


def sides(value_NJ: np.ndarray) -> np.ndarray:
  """Comparisons as −1 and 1 alone: a tie is no side, and NaN."""
  return np.where(value_NJ == 0, np.nan, np.sign(value_NJ))


def size(value_NJ: np.ndarray) -> dict[str, int]:
  """What α is made of.

  Returns:
    units: with two values or more. values: of these units. alone: units with one.
  """
  count_N = (~np.isnan(value_NJ)).sum(1)
  return {
    "units": int((count_N >= 2).sum()),
    "values": int(count_N[count_N >= 2].sum()),
    "alone": int((count_N == 1).sum()),
  }


def others(value_NJ: np.ndarray) -> np.ndarray:
  """The mean of the other raters' values of the unit, NaN where there are none."""
  given_NJ = ~np.isnan(value_NJ)
  value_NJ = np.where(given_NJ, value_NJ, 0)
  count_NJ = given_NJ.sum(1, keepdims=True) - given_NJ
  total_NJ = value_NJ.sum(1, keepdims=True) - value_NJ
  return np.where(count_NJ > 0, total_NJ / np.maximum(count_NJ, 1), np.nan)


def with_others(value_NJ: np.ndarray) -> np.ndarray:
  """1 where a rater takes the side that the mean of the others takes, 0 where not.

  NaN where the rater or the others take no side. By chance it is ½, if what is called
  the first of the two does not depend on which is better.
  """
  ours_NJ, theirs_NJ = sides(value_NJ), sides(others(value_NJ))
  told_NJ = ~np.isnan(ours_NJ) & ~np.isnan(theirs_NJ)
  return np.where(told_NJ, ours_NJ == theirs_NJ, np.nan)


def _paired(value_NJ: np.ndarray) -> np.ndarray:
  return (~np.isnan(value_NJ)).sum(1) >= 2


def _counts(value_NJ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The values of units that have two or more, and count_NK of each in these units."""
  value_NJ = value_NJ[_paired(value_NJ)]
  value_K = np.unique(value_NJ[~np.isnan(value_NJ)])
  count_NK = np.zeros((len(value_NJ), len(value_K)))
  for k, value in enumerate(value_K):
    count_NK[:, k] = (value_NJ == value).sum(1)
  return value_K, count_NK


def _unit_pairs(count_NK: np.ndarray) -> np.ndarray:
  """Of each unit its ordered pairs of values, over one less than its values."""
  pair_NKK = count_NK[:, :, None] * count_NK[:, None, :]
  diagonal = np.arange(count_NK.shape[1])
  pair_NKK[:, diagonal, diagonal] -= count_NK
  return pair_NKK / (count_NK.sum(1) - 1)[:, None, None]


def _pairs(count_NK: np.ndarray) -> np.ndarray:
  """The coincidence matrix: the sum of `_unit_pairs`, without holding them."""
  weighed_NK = count_NK / (count_NK.sum(1, keepdims=True) - 1)
  return weighed_NK.T @ count_NK - np.diag(weighed_NK.sum(0))


def _alpha(value_K: np.ndarray, pair_RKK: np.ndarray, metric: str) -> np.ndarray:
  """α of coincidence matrices, one or many; NaN where no disagreement is expected."""
  count_RK = pair_RKK.sum(-1)
  gap_RKK = _gaps(value_K, count_RK, metric)
  seen_R = (pair_RKK * gap_RKK).sum((-2, -1))
  expected_R = (count_RK[..., None] * count_RK[..., None, :] * gap_RKK).sum((-2, -1))
  possible_R = expected_R > 0
  ratio_R = seen_R / np.where(possible_R, expected_R, 1)
  return np.where(possible_R, 1 - (count_RK.sum(-1) - 1) * ratio_R, np.nan)


def _gaps(value_K: np.ndarray, count_RK: np.ndarray, metric: str) -> np.ndarray:
  """Squared differences δ² between values, by the metric."""
  if metric == "nominal":
    return 1.0 - np.eye(len(value_K))
  if metric == "ordinal":  # between two values lie those between and half of each
    place_RK = count_RK.cumsum(-1) - count_RK / 2
    return (place_RK[..., None] - place_RK[..., None, :]) ** 2
  gap_KK = value_K[:, None] - value_K[None, :]
  if metric == "interval":
    return gap_KK**2
  if metric == "ratio":
    if (value_K < 0).any():
      raise ValueError(f"the ratio metric has no value {value_K.min():g} below 0")
    total_KK = value_K[:, None] + value_K[None, :]
    return (gap_KK / np.where(total_KK > 0, total_KK, 1)) ** 2
  raise ValueError(f"metric {metric!r} is not in {METRICS}")
