"""Rank correlation within groups, and what many groups say together."""

import math
from typing import NamedTuple

import numpy as np

LEAST_MEMBERS = 3  # of two, ranks agree or do not
_Z = 1.959963984540054  # 97.5th percentile of the normal distribution


class Sums(NamedTuple):
  """Of the groups' correlations; they add up."""

  count: float
  total: float
  square: float


def within(x_PG: np.ndarray, y_PG: np.ndarray) -> np.ndarray:
  """Spearman's ρ of every group (a row), ties at their mean rank; rho_P.

  Members that are not finite in either are left out. NaN where fewer than
  LEAST_MEMBERS are left, or where one of the two has no spread.
  """
  known_PG = np.isfinite(x_PG) & np.isfinite(y_PG)
  count_P = known_PG.sum(1)
  x_PG, y_PG = (_centred(each, known_PG) for each in (x_PG, y_PG))
  square_P = np.square(x_PG).sum(1) * np.square(y_PG).sum(1)
  told_P = (count_P >= LEAST_MEMBERS) & (square_P > 0)
  product_P = (x_PG * y_PG).sum(1)
  return np.where(told_P, product_P / np.sqrt(np.where(told_P, square_P, 1.0)), np.nan)


def _centred(x_PG: np.ndarray, known_PG: np.ndarray) -> np.ndarray:
  """Ranks of the known members less their mean; 0 of the others."""
  x_PG = np.where(known_PG, x_PG, np.inf).astype(np.float64)
  above_PGG = x_PG[:, :, None] > x_PG[:, None, :]
  equal_PGG = x_PG[:, :, None] == x_PG[:, None, :]
  rank_PG = above_PGG.sum(2) + equal_PGG.sum(2) / 2
  count_P1 = np.maximum(known_PG.sum(1, keepdims=True), 1)
  mean_P1 = np.where(known_PG, rank_PG, 0).sum(1, keepdims=True) / count_P1
  return np.where(known_PG, rank_PG - mean_P1, 0.0)


def sums(rho_P: np.ndarray) -> Sums:
  """Of the groups that have a correlation."""
  rho_P = rho_P[np.isfinite(rho_P)]
  return Sums(float(len(rho_P)), float(rho_P.sum()), float((rho_P * rho_P).sum()))


def mean(parts: list[Sums]) -> tuple[float, float, float]:
  """Mean correlation of all groups, and its 95 % interval: NaN of fewer than two.

  Groups are independent of each other, members of one are not: the interval is that of
  a mean over groups.
  """
  count, total, square = (sum(column) for column in zip(*parts, strict=True))
  if not count:
    return math.nan, math.nan, math.nan
  centre = total / count
  if count < 2:
    return centre, math.nan, math.nan
  variance = max(square - count * centre * centre, 0.0) / (count - 1)
  half = _Z * math.sqrt(variance / count)
  return centre, max(centre - half, -1.0), min(centre + half, 1.0)
