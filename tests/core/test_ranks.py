"""Rank correlation within groups against scipy, by hand, and on planted data."""

import math

import numpy as np
import pytest
from scipy import stats

from stepaudio_jax.core import ranks

NAN = math.nan


def test_by_hand():
  # Ranks 1 2 3 4 against 1 2 4 3: 1 − 6·2/(4·15) = .8; the other way round −1; three
  # members are enough, two are not; one side without spread tells nothing.
  x_PG = np.array([[1, 2, 3, 4], [9, 5, 1, NAN], [1, NAN, NAN, 2], [1, 2, 3, 4]])
  y_PG = np.array([[1, 5, 9, 8], [1, 2, 3, 0], [1, 2, 3, 4], [7, 7, 7, 7]])
  np.testing.assert_allclose(ranks.within(x_PG, y_PG), [0.8, -1, NAN, NAN])


def test_against_scipy_with_ties_and_missing_members():
  rng = np.random.default_rng(0)
  x_PG = rng.integers(5, size=(30, 9)).astype(np.float64)
  y_PG = x_PG + rng.integers(4, size=(30, 9))
  x_PG[rng.random((30, 9)) < 0.2] = NAN
  y_PG[rng.random((30, 9)) < 0.1] = np.inf
  found_P = ranks.within(x_PG, y_PG)
  for x_G, y_G, found in zip(x_PG, y_PG, found_P, strict=True):
    known_G = np.isfinite(x_G) & np.isfinite(y_G)
    wanted = stats.spearmanr(x_G[known_G], y_G[known_G]).statistic
    assert found == pytest.approx(wanted)


def test_the_mean_over_groups_and_its_interval():
  # 1, 0, ½ over two steps: mean ½, variance ¼, half width 1.96·½/√3.
  parts = [ranks.sums(np.array([1.0, NAN])), ranks.sums(np.array([0.0, 0.5]))]
  half = 1.959964 * 0.5 / math.sqrt(3)
  assert ranks.mean(parts) == pytest.approx((0.5, 0.5 - half, 1.0), rel=1e-6)
  parts.append(ranks.sums(np.array([-0.5, 0.0])))  # mean .2, squares 1.5, of five
  half = 1.959964 * math.sqrt((1.5 - 5 * 0.04) / 4 / 5)
  assert ranks.mean(parts) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-6)
  assert ranks.mean(parts[:1]) == pytest.approx((1.0, NAN, NAN), nan_ok=True)
  assert all(map(math.isnan, ranks.mean([ranks.sums(np.array([NAN]))])))
  equal = ranks.mean([ranks.sums(np.full(3, 0.1))])
  assert equal == pytest.approx((0.1, 0.1, 0.1))
