"""Calibration errors that were planted, and the slope by another road."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stepaudio_jax.evals.rewards import calibration
from tests.evals.rewards.heads import head


def test_the_error_of_planted_bins_by_hand():
  # 10 bins of 10 choices; in bin k all are told 0.05 + 0.1 k, and 10 k + 5 % of 10
  # win, but for bin 0, where 4 more win, and bin 9, where 2 fewer do.
  p_M = np.repeat(0.05 + 0.1 * np.arange(10), 10)
  wins = np.asarray([5, 1, 2, 3, 4, 5, 6, 7, 8, 7])
  won_M = np.concatenate([np.arange(10) < count for count in wins]).astype(float)
  rows = calibration.bins(p_M, won_M)
  assert [row["n"] for row in rows] == [10] * 10
  off = [abs(count / 10 - p) for count, p in zip(wins, p_M[::10], strict=True)]
  # 0.45 in the first, 0.25 in the last, 0.05 in each of the others
  assert off == pytest.approx([0.45] + [0.05] * 8 + [0.25])
  assert calibration.ece(rows) == pytest.approx((0.45 + 8 * 0.05 + 0.25) / 10)


def test_bins_have_equal_mass_and_equal_probabilities_share_one():
  p_M = np.random.default_rng(0).random(1003)
  assert {row["n"] for row in calibration.bins(p_M, p_M > 0.5)} <= {100, 101}
  same_M, won_M = np.full(40, 0.7), np.arange(40) % 2 == 0
  for order in (slice(None), np.argsort(won_M)):
    (row,) = calibration.bins(same_M[order], won_M[order])
    assert row == {"n": 40, "probability": pytest.approx(0.7), "share": 0.5}


def overconfident(count=4000, factor=3.0):
  """Gaps that are `factor` times the log-odds; five dialogues of ten share one."""
  rng = np.random.default_rng(1)
  logit_N = rng.normal(0, 1.5, count)
  won_N = rng.random(count) < calibration.probability(logit_N)
  label_NJ = np.where(won_N, 2.0, -1.0)[:, None]
  return head(factor * logit_N, label_NJ, dialogues=[str(k // 4) for k in range(count)])


def test_a_planted_slope_is_found_and_the_error_goes():
  told = calibration.entry(overconfident())
  assert told["slope"] == pytest.approx(1 / 3, rel=0.1)
  # σ(3x) against σ(x) under x ~ N(0, 1.5²), by integration: 0.130
  x = np.linspace(-8, 8, 4001)
  density = np.exp(-(x**2) / 4.5)
  gap = np.abs(calibration.probability(3 * x) - calibration.probability(x))
  wanted = (gap * density).sum() / density.sum()
  assert told["before"]["ece"] == pytest.approx(wanted, abs=0.02)
  assert told["after"]["ece"] < 0.03
  assert told["after"]["log_loss"] < told["before"]["log_loss"] - 0.1
  assert (told["n"], told["comparisons"]) == (4000, 4000)


def test_the_slope_is_that_of_the_library():
  one = overconfident(300)
  n_M, won_M = one.choices()
  gap_M = one.gap_N[n_M]
  size = np.sqrt(np.mean(gap_M**2))
  # A choice that is half won and half lost, as two of half the weight.
  x_M, y_M = np.append(gap_M, [size, size]), np.append(won_M, [0, 1])
  weight_M = np.append(np.ones(300), [0.5, 0.5])
  library = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
  library.fit(x_M[:, None], y_M, weight_M)
  assert calibration.slope(gap_M, won_M) == pytest.approx(library.coef_[0, 0], rel=1e-5)


def test_no_choice_is_calibrated_by_its_own_dialogue():
  # Two dialogues that contradict each other: what one teaches is wrong for the other.
  one = head(
    np.ones(80), np.repeat([1.0, -1.0], 40)[:, None], dialogues=["a"] * 40 + ["b"] * 40
  )
  told = calibration.entry(one)
  assert told["after"]["log_loss"] > 2.0
  assert told["after"]["ece"] > 0.8
  assert told["slope"] == pytest.approx(0.0, abs=1e-6)  # of both together


def test_folds_hold_whole_dialogues():
  names = [str(k % 7) for k in range(70)]
  fold_M = calibration.folds(names)
  assert {*fold_M} == {0, 1, 2, 3, 4}
  for name in set(names):
    assert len({*fold_M[np.asarray(names) == name]}) == 1
  assert not calibration.folds(["one"] * 5).any()


def test_one_dialogue_has_nothing_to_be_calibrated_by():
  told = calibration.entry(head([1.0, 2.0], [[1.0], [-1.0]], dialogues=["a", "a"]))
  assert told["after"] is None
  assert told["before"]["ece"] > 0


def test_a_faultless_model_has_a_finite_slope():
  one = head([1.0, -1.0, 2.0], [[1.0], [-2.0], [3.0]])
  assert 0 < calibration.slope(one.gap_N, np.asarray([1.0, 0.0, 1.0])) < 100
  assert calibration.slope(np.zeros(3), np.ones(3)) == 1.0
  opposite = calibration.slope(-one.gap_N, np.asarray([1.0, 0.0, 1.0]))
  assert opposite < 0  # a model that has it backwards is told so


def test_ties_and_missing_labels_are_no_choices():
  one = head([1.0, -1.0], [[1.0, 0.0, np.nan], [-1.0, -3.0, 0.0]])
  n_M, won_M = one.choices()
  assert (n_M.tolist(), won_M.tolist()) == ([0, 1, 1], [1.0, 0.0, 0.0])
