"""95 % intervals: of a share, of a mean, and of a mean over clusters."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959963984540054  # 97.5th percentile of the normal distribution
RESAMPLES = 2000
_AT_ONCE = 1 << 20  # places that are drawn together: memory
_SEED = 0  # fixed: the same scores always give the same interval


class Interval(NamedTuple):
  low: float
  high: float


def wilson(correct: int, n: int) -> Interval:
  """Wilson's score interval of correct / n (JASA 22, 1927, p. 209).

  Raises:
    ValueError: no items, or more correct ones than items.
  """
  if not 0 <= correct <= n or n == 0:
    raise ValueError(f"{correct} correct of {n}: wants 0 <= correct <= n, n >= 1")
  share, spread = correct / n, Z**2 / n
  centre = share + spread / 2
  half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
  # At the ends the bounds are exact: rounding must not lift 0 above a control of 0.
  low = 0.0 if correct == 0 else (centre - half) / (1 + spread)
  high = 1.0 if correct == n else (centre + half) / (1 + spread)
  return Interval(low, high)


def bootstrap(values: Sequence[float]) -> Interval:
  """Percentile bootstrap of the mean, over items.

  Raises:
    ValueError: no values.
  """
  value_N = np.asarray(values, np.float64)
  if not len(value_N):
    raise ValueError("no values to resample")
  size = len(value_N)
  means = np.concatenate([value_N[drawn].mean(axis=1) for drawn in _drawn(size)])
  low, high = np.percentile(means, [2.5, 97.5])
  return Interval(float(low), float(high))


def bounded(values: Sequence[float], least: float, most: float) -> Interval:
  """`bootstrap` of values from `least` to `most`, also where all of them are equal.

  Resampling these gives no width, however few they are. Then the interval is that of a
  mean to which the others, as many as Wilson allows unseen, add `least` or `most`.

  Raises:
    ValueError: no values.
  """
  if not values or any(value != values[0] for value in values):
    return bootstrap(values)
  unseen = 1 - wilson(len(values), len(values)).low
  value = float(values[0])
  return Interval(value - unseen * (value - least), value + unseen * (most - value))


def clustered(
  totals: Sequence[float], counts: Sequence[float], clusters: Sequence[str]
) -> Interval:
  """Percentile bootstrap of Σ totals / Σ counts, over clusters drawn as a whole.

  Judgements that share a recording or a pair are no independent ones: resampled one
  by one they would make the interval too narrow.

  Raises:
    ValueError: nothing was counted.
  """
  if not sum(counts):
    raise ValueError("no values to resample")
  _, place_N = np.unique(np.asarray(clusters), return_inverse=True)
  total_K = np.bincount(place_N, np.asarray(totals, np.float64))
  count_K = np.bincount(place_N, np.asarray(counts, np.float64))
  means = []
  for drawn in _drawn(len(total_K), endless=True):
    counted = count_K[drawn].sum(axis=1)
    totalled = total_K[drawn].sum(axis=1)
    means.extend(totalled[counted > 0] / counted[counted > 0])
    if len(means) >= RESAMPLES:
      break
  low, high = np.percentile(means[:RESAMPLES], [2.5, 97.5])
  return Interval(float(low), float(high))


def share(
  totals: Sequence[float], counts: Sequence[float], clusters: Sequence[str]
) -> Interval:
  """`clustered` of what lies from 0 to 1, also where all of it is 0 or all is 1.

  Resampling these gives no width, however few they are; Wilson's interval does, each
  cluster counted once.

  Raises:
    ValueError: nothing was counted.
  """
  if 0 < sum(totals) < sum(counts):
    return clustered(totals, counts, clusters)
  if not sum(counts):
    raise ValueError("no values to resample")
  several = len({name for name, n in zip(clusters, counts, strict=True) if n})
  return wilson(several if sum(totals) else 0, several)


def _drawn(size: int, *, endless: bool = False) -> Iterator[np.ndarray]:
  """Places of resamples, some [draws, size] at a time: RESAMPLES in all, or endless.

  However many come at a time, they are the same ones.
  """
  generator = np.random.default_rng(_SEED)
  at_once, left = max(1, _AT_ONCE // size), RESAMPLES
  while left > 0 or endless:
    draws = min(at_once, RESAMPLES if endless else left)
    yield generator.integers(size, size=(draws, size))
    left -= draws
