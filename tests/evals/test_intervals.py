"""Intervals against arithmetic by hand."""

import numpy as np
import pytest

from stepaudio_jax.evals.parts import accuracy, intervals


def test_wilson_equals_arithmetic_by_hand():
  # n = 10, share 0.8, z² = 3.8414588, z²/n = 0.38414588:
  # centre 0.8 + 0.19207294 = 0.99207294
  # half   1.95996398 · √(0.16/10 + 0.38414588/40) = 0.31361657
  # bounds (0.99207294 ∓ 0.31361657) / 1.38414588
  low, high = intervals.wilson(8, 10)
  assert low == pytest.approx(0.4901625, abs=1e-6)
  assert high == pytest.approx(0.9433178, abs=1e-6)


def test_wilson_at_the_ends_is_exact_and_never_empty():
  # 0 of n: [0, z² / (n + z²)] = [0, 3.8414588 / 103.8414588]; n of n mirrors it.
  for n in range(1, 200):
    assert intervals.wilson(0, n).low == 0.0
    assert intervals.wilson(n, n).high == 1.0
  assert intervals.wilson(0, 100).high == pytest.approx(0.0369935, abs=1e-6)
  assert intervals.wilson(100, 100).low == pytest.approx(1 - 0.0369935, abs=1e-6)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(correct, n):
  with pytest.raises(ValueError, match=f"{correct} correct of {n}"):
    intervals.wilson(correct, n)


def test_bootstrap_of_many_equals_the_normal_interval():
  # 200 ones and 200 threes: mean 2, standard error 1 / √400 = 0.05.
  low, high = intervals.bootstrap([1.0] * 200 + [3.0] * 200)
  assert low == pytest.approx(2 - 1.96 * 0.05, abs=0.012)
  assert high == pytest.approx(2 + 1.96 * 0.05, abs=0.012)


def test_bootstrap_is_of_the_items_and_the_same_each_time():
  scores = np.random.default_rng(1).uniform(1, 5, 30)
  assert intervals.bootstrap(scores) == intervals.bootstrap(scores)
  assert intervals.bootstrap([2.5] * 7) == (2.5, 2.5)
  with pytest.raises(ValueError, match="no values"):
    intervals.bootstrap([])


def test_few_equal_values_prove_little():
  # Wilson allows z² / (n + z²) of others: 3.8414588 / 7.8414588 of 4 items.
  unseen = 3.8414588 / 7.8414588
  assert intervals.bounded([0.0] * 4, -1, 1) == pytest.approx((-unseen, unseen))
  assert intervals.bounded([1.0] * 4, -1, 1) == pytest.approx((1 - 2 * unseen, 1.0))
  wanted = (0.5 - 0.5 * unseen, 0.5 + 0.5 * unseen)
  assert intervals.bounded([0.5] * 4, 0, 1) == pytest.approx(wanted)
  # At the ends it is Wilson's own interval, and of many items narrow.
  assert intervals.bounded([1] * 9, 0, 1) == pytest.approx(intervals.wilson(9, 9))
  low, high = intervals.bounded([0.0] * 5000, -1, 1)
  assert high - low < 0.002
  assert intervals.bounded([0, 1, 1], 0, 1) == intervals.bootstrap([0, 1, 1])
  with pytest.raises(ValueError, match="no values"):
    intervals.bounded([], 0, 1)


def test_unparsed_and_failed_items_count_as_wrong_but_not_as_answered():
  # Replies: right, right, wrong, unreadable; one item had no reply at all.
  found = accuracy.accuracy([True, True, False, None], n_failed=1)
  low, high = intervals.wilson(2, 5)
  assert found == {
    "n": 5,
    "n_failed": 1,
    "n_unparsed": 1,
    "correct": 2,
    "accuracy": 2 / 5,
    "low": low,
    "high": high,
    "accuracy_answered": 2 / 3,
  }
  assert accuracy.accuracy([None, None], 0)["accuracy_answered"] is None


def test_only_a_lower_bound_above_silence_beats_it():
  heard = accuracy.accuracy([True] * 9 + [False], 0)  # lower bound 0.5958
  for correct, beats in ((5, True), (6, False)):  # of 10 in silence
    control = accuracy.accuracy([True] * correct + [False] * (10 - correct), 0)
    found = accuracy.against_silence(heard, control, 0.5)
    assert found["beats_silence"] is beats
    assert found["silence"] == control
  none = accuracy.accuracy([False] * 10, 0)  # silence below chance is no free win
  assert accuracy.against_silence(heard, none, 0.59)["beats_silence"]
  assert not accuracy.against_silence(heard, none, 0.6)["beats_silence"]
  nothing = accuracy.accuracy([False] * 100, 0)
  assert not accuracy.against_silence(nothing, nothing, 0.5)["beats_silence"]
