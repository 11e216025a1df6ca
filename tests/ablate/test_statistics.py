"""Ranks, intervals and the smallest effect, by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from stepaudio_jax.ablate import intervals, rank


def some(seed, ties):
  rng = np.random.default_rng(seed)
  x_N, y_N = rng.normal(size=(2, 9))
  return (np.round(x_N), np.round(y_N)) if ties else (x_N, y_N)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_rank_correlations_are_those_of_scipy(seed, ties):
  x_N, y_N = some(seed, ties)
  assert rank.spearman(x_N, y_N) == pytest.approx(stats.spearmanr(x_N, y_N)[0])
  assert rank.kendall(x_N, y_N) == pytest.approx(stats.kendalltau(x_N, y_N)[0])
  np.testing.assert_allclose(rank.ranks(x_N), stats.rankdata(x_N))


def test_a_side_without_an_order_has_no_correlation():
  flat_N, x_N = np.ones(3), np.arange(3.0)
  for measure in (rank.spearman, rank.kendall):
    assert math.isnan(measure(flat_N, x_N))
    assert math.isnan(measure(x_N, flat_N))


@pytest.mark.parametrize(
  ("x", "y", "changes"),
  [
    ((1, 2, 3), (1, 2, 3), 0.0),
    ((1, 2, 3), (3, 2, 1), 1.0),
    ((1, 3, 3), (0, 2, 1), 0.0),  # one of the two best is still the best
    ((1, 3, 3), (5, 2, 1), 1.0),
  ],
)
def test_the_best_reply_changes_where_no_best_one_stays(x, y, changes):
  assert rank.best_changes(np.asarray(x), np.asarray(y)) == changes


def test_students_interval_by_hand():
  """1, 2, 6: mean 3, s = √7, t_0.975 of 2 degrees of freedom is 4.3027."""
  found = intervals.over_seeds([1.0, 2.0, 6.0])
  half = 4.302653 * math.sqrt(7) / math.sqrt(3)
  assert found["mean"] == pytest.approx(3)
  assert found["sd"] == pytest.approx(math.sqrt(7))
  assert (found["low"], found["high"]) == pytest.approx((3 - half, 3 + half))
  low, high = stats.t.interval(0.95, 2, 3, math.sqrt(7 / 3))
  assert (found["low"], found["high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_smallest_effect_is_found_four_times_in_five(n):
  """By simulation: paired t tests of normal differences with that very mean."""
  rng = np.random.default_rng(n)
  spread = np.sqrt(n)  # then s/√n is 1
  smallest = intervals.over_seeds([0.0] * (n - 1) + [1.0])
  needed = smallest["smallest"] / (smallest["sd"] / math.sqrt(n))
  x_RN = needed + spread * rng.normal(size=(40_000, n))
  t_R = x_RN.mean(1) / (x_RN.std(1, ddof=1) / math.sqrt(n))
  power = (np.abs(t_R) > stats.t.ppf(0.975, n - 1)).mean()
  assert power == pytest.approx(0.8, abs=0.01)


def test_one_seed_has_no_interval():
  found = intervals.over_seeds([2.0, float("nan")])
  assert found["seeds"] == 1
  assert found["mean"] == 2
  assert found["low"] is found["smallest"] is None


def test_clusters_are_resampled_as_a_whole():
  """Two clusters of equal rows: resamples are the means of two draws of 0 and 1."""
  stat_K2 = intervals.clusters(
    ["a", "b", "a", "b"], np.asarray([[0.0, 1], [1, 1], [0, 1], [1, 1]])
  )
  np.testing.assert_array_equal(stat_K2, [[0, 2], [2, 2]])
  found = intervals.resampled(stat_K2, intervals.ratio, 500)
  assert found == {"mean": 0.5, "low": 0.0, "high": 1.0}
  weight_RK = intervals.drawn(2, 4000)
  shares = [(weight_RK[:, 0] == k).mean() for k in range(3)]
  assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
