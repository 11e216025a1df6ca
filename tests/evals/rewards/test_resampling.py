"""Resampled statistics against the same statistics of rows that are repeated."""

import numpy as np
import pytest
from scipy import stats

from stepaudio_jax.evals.parts import intervals
from stepaudio_jax.evals.rewards import resampling
from stepaudio_jax.evals.rewards.resampling import Draws


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_weighted_ranks_are_ranks_of_repeated_rows(rng):
  value_N = rng.integers(0, 5, 12).astype(float)  # with ties
  weight_RN = rng.integers(0, 4, (3, 12)).astype(float)
  for weight_N, rank_N in zip(
    weight_RN, resampling.ranks(value_N, weight_RN), strict=True
  ):
    times_N = weight_N.astype(int)
    wanted = stats.rankdata(np.repeat(value_N, times_N))
    np.testing.assert_allclose(np.repeat(rank_N, times_N), wanted)


def test_correlations_of_draws_are_those_of_repeated_rows(rng):
  value_VN = np.round(rng.normal(size=(3, 40)) + rng.normal(size=40), 1)
  draws = Draws([str(k // 2) for k in range(40)], draws=5)
  whole_VV, drawn_RVV = resampling.correlations(value_VN, draws)
  np.testing.assert_allclose(whole_VV, stats.spearmanr(value_VN, axis=1)[0])
  for weight_N, corr_VV in zip(draws.weights(0, 5), drawn_RVV, strict=True):
    repeated = np.repeat(value_VN, weight_N.astype(int), axis=1)
    np.testing.assert_allclose(corr_VV, stats.spearmanr(repeated, axis=1)[0])


def test_parts_of_the_draws_are_the_draws(rng, monkeypatch):
  value_VN, draws = rng.normal(size=(2, 9)), Draws(list("aabbccdde"), draws=7)
  _, whole_RVV = resampling.correlations(value_VN, draws)
  monkeypatch.setattr(resampling, "_AT_ONCE", 3 * value_VN.size)
  _, parts_RVV = resampling.correlations(value_VN, draws)
  np.testing.assert_array_equal(whole_RVV, parts_RVV)


def test_clusters_come_as_a_whole_and_as_often_as_there_are():
  draws = Draws(list("abba"), draws=50)
  weight_RN = draws.weights(0, 50)
  np.testing.assert_array_equal(weight_RN[:, :2], weight_RN[:, :1:-1])
  assert (weight_RN[:, 0] + weight_RN[:, 1] == 2).all()
  assert {*weight_RN[:, 0]} == {0, 1, 2}


def test_a_ratio_has_the_interval_of_the_other_bootstrap(rng):
  names = [str(k // 3) for k in range(300)]
  total_N, count_N = rng.random(300), rng.integers(1, 4, 300).astype(float)
  told = Draws(names, draws=4000).ratio(total_N, count_N)
  assert told["value"] == pytest.approx(total_N.sum() / count_N.sum())
  low, high = intervals.clustered(total_N, count_N, names)
  assert told["low"] == pytest.approx(low, abs=0.15 * (high - low))
  assert told["high"] == pytest.approx(high, abs=0.15 * (high - low))
  assert Draws(names).ratio(total_N, np.zeros(300)) is None


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_all_or_none_has_a_width_of_its_dialogues(value):
  """Ten rows of which three dialogues have something to count."""
  names = [*"aaabbbcccd"]
  count_N = np.asarray([1.0] * 9 + [0.0])
  draws = Draws(names)
  told = draws.share(value * count_N, count_N)
  low, high = intervals.wilson(int(3 * value), 3)
  assert told == {"value": value, "low": low, "high": high}
  assert high - low > 0.5
  some_N = np.asarray([1.0] + [0.0] * 9)
  assert draws.share(some_N, count_N) == draws.ratio(some_N, count_N)
  assert draws.share(count_N, 0 * count_N) is None


def test_what_is_no_number_has_no_interval():
  nothing = {"value": None, "low": None, "high": None}
  assert resampling.estimate(np.nan, np.ones(3)) == nothing
  constant = resampling.correlations(np.ones((2, 4)), Draws(list("abcd"), draws=3))
  assert np.isnan(constant[0]).all()
  # A draw without numbers is left out, not counted as one.
  told = resampling.estimate(1.0, np.asarray([1.0, np.nan, 3.0]))
  assert told["low"] == pytest.approx(1.05)
