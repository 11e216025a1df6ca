"""Many resamples of dialogues at once, as weights of the rows that belong to them.

Rows that share a dialogue are no independent ones, so dialogues are drawn. One draw is
how often each of them came; every statistic here is one of weighted rows, and all draws
of it are computed together.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepaudio_jax.evals.parts import intervals

DRAWS = 1000
_SEED = 0  # fixed: the same scores always give the same interval
_AT_ONCE = 1 << 22  # numbers of a temporary: memory

Row = dict[str, Any]


class Draws:
  """Resamples of clusters.

  Args:
    clusters: of each row the name of what it shares with others.
    draws: R.
  """

  def __init__(self, clusters: Sequence[str], draws: int = DRAWS):
    names, self.place_N = np.unique(np.asarray(clusters), return_inverse=True)
    self.clusters = len(names)
    self._weight_RK = _drawn(len(names), draws)

  @property
  def count(self) -> int:
    return len(self._weight_RK)

  def weights(self, start: int, stop: int) -> np.ndarray:
    """weight_RN of the draws from `start` to `stop`: how often each row came."""
    return self._weight_RK[start:stop, self.place_N]

  def sums(self, value_N: np.ndarray) -> np.ndarray:
    """Σ value over the rows of each draw."""
    total_K = np.bincount(self.place_N, value_N, minlength=self.clusters)
    return self._weight_RK @ total_K

  def ratio(self, total_N: np.ndarray, count_N: np.ndarray) -> Row | None:
    """Σ total / Σ count with its interval; None where nothing is counted."""
    if not count_N.sum():
      return None
    counted_R = self.sums(count_N)
    with np.errstate(invalid="ignore", divide="ignore"):
      ratio_R = self.sums(total_N) / counted_R
    return estimate(total_N.sum() / count_N.sum(), ratio_R)

  def share(self, total_N: np.ndarray, count_N: np.ndarray) -> Row | None:
    """`ratio` of what lies from 0 to 1: where all is 0, or all 1, intervals.share's."""
    told = self.ratio(total_N, count_N)
    if told and told["value"] in (0.0, 1.0):
      low, high = intervals.share(total_N, count_N, self.place_N)
      told |= {"low": low, "high": high}
    return told


@functools.lru_cache(maxsize=4)
def _drawn(clusters: int, draws: int) -> np.ndarray:
  """How often each cluster comes; the same for all statistics of so many."""
  generator = np.random.default_rng(_SEED)
  drawn_RK = generator.multinomial(clusters, [1 / clusters] * clusters, size=draws)
  return drawn_RK.astype(np.float64)


def estimate(value: float, drawn_R: np.ndarray) -> Row:
  """{"value", "low", "high"}: the 95 % percentile interval of those that are numbers.

  A value that is none (a rank correlation of equal numbers) is None, bounds alike.
  """
  found = drawn_R[np.isfinite(drawn_R)]
  if not np.isfinite(value) or not len(found):
    return dict.fromkeys(("value", "low", "high"))
  low, high = np.percentile(found, [2.5, 97.5])
  return {"value": float(value), "low": float(low), "high": float(high)}


def ranks(value_N: np.ndarray, weight_RN: np.ndarray) -> np.ndarray:
  """Mid-ranks, from 1, in samples that hold row n `weight` times."""
  _, place_N = np.unique(value_N, return_inverse=True)
  order_N = np.argsort(place_N, kind="stable")
  first_U = np.searchsorted(place_N[order_N], np.arange(place_N.max() + 1))
  mass_RU = np.add.reduceat(weight_RN[:, order_N], first_U, axis=1)
  rank_RU = np.cumsum(mass_RU, axis=1) - (mass_RU - 1) / 2
  return rank_RU[:, place_N]


def spearman(value_VN: np.ndarray, weight_RN: np.ndarray) -> np.ndarray:
  """Rank correlations corr_RVV of V variables; NaN where one does not vary."""
  size_R1 = weight_RN.sum(axis=1, keepdims=True)
  rank_RVN = np.stack([ranks(value_N, weight_RN) for value_N in value_VN], axis=1)
  # The mean of mid-ranks 1…n is (n + 1) / 2 however many are tied.
  rank_RVN -= (size_R1[..., None] + 1) / 2
  cross_RVV = (rank_RVN * weight_RN[:, None]) @ rank_RVN.transpose(0, 2, 1)
  spread_RV = np.sqrt(np.diagonal(cross_RVV, axis1=1, axis2=2))
  with np.errstate(invalid="ignore", divide="ignore"):
    return cross_RVV / (spread_RV[:, :, None] * spread_RV[:, None])


def correlations(value_VN: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
  """corr_VV of all rows, and corr_RVV of every draw."""
  value_VN = np.asarray(value_VN, np.float64)
  (whole_VV,) = spearman(value_VN, np.ones((1, value_VN.shape[1])))
  some = max(1, _AT_ONCE // value_VN.size)
  drawn = [
    spearman(value_VN, draws.weights(start, start + some))
    for start in range(0, draws.count, some)
  ]
  return whole_VV, np.concatenate(drawn)
