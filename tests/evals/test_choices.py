"""How choices are counted, by hand."""

import numpy as np
import pytest

from stepaudio_jax.evals.parts import choices, intervals


def row(labels, reward, *, silence=(0.0, 0.0), tokens=(5, 5), gold=None):
  return {
    "labels": labels,
    "reward": list(reward),
    "silence": list(silence),
    "tokens": list(tokens),
    "gold": gold,
  }


ROWS = [
  # The second is better by reward, gold and most raters; it is the longer one.
  row([2, 1, -1, 0], (0.0, 1.0), silence=(1.0, 0.0), tokens=(4, 6), gold=1.0),
  row([-3, None], (0.5, -0.5), silence=(1.0, 0.0), tokens=(4, 6), gold=-2.0),
  row([1], (2.0, 2.0), silence=(0.0, 2.0), tokens=(6, 4), gold=0.0),
]


def test_an_entry_by_hand():
  entry = choices.entry(ROWS, ["a", "b", "c"])
  assert (entry["n"], entry["n_ties"]) == (5, 1)
  # right, right, wrong; right; equal rewards: ½
  assert entry["accuracy"] == pytest.approx(3.5 / 5)
  # the silent gap says first, first, second: 1 of 3, 1, 1
  assert entry["silence"]["accuracy"] == pytest.approx(3 / 5)
  assert entry["over_silence"]["mean"] == pytest.approx(0.5 / 5)
  # longer: 2 of 3, wrong, wrong: 2 of 5; so shorter, which has 3 of 5
  assert (entry["length"]["rule"], entry["length"]["accuracy"]) == ("shorter", 0.6)
  # gold: 2 of 3, right, a tie: ½
  assert entry["ceiling"]["accuracy"] == pytest.approx(3.5 / 5)
  assert entry["way"] == pytest.approx(1.0)
  strength = entry["strength"]
  assert [strength[level]["n"] for level in "0123"] == [1, 3, 1, 1]
  assert strength["1"]["accuracy"] == pytest.approx(1.5 / 3)
  nothing = dict.fromkeys(("accuracy", "low", "high"))
  assert strength["0"] == {"n": 1, **nothing, "gap": 1.0}
  # Two dialogues have a choice of 1: 1 of 2, and ½ of 1.
  assert (strength["1"]["low"], strength["1"]["high"]) == (0.5, 0.5)
  assert strength["1"]["gap"] == pytest.approx((1 + 1 + 0) / 3)
  # Right in all, which is one dialogue: Wilson's interval of 1 of 1, and not no width.
  always = (strength["2"]["low"], strength["2"]["high"])
  assert strength["2"]["accuracy"] == 1.0
  assert always == intervals.wilson(1, 1)
  assert always[0] < 0.25


def test_without_gold_there_is_no_ceiling():
  rows = [*ROWS, row([1], (0.0, 1.0))]
  entry = choices.entry(rows, list("abcd"))
  assert (entry["ceiling"], entry["way"]) == (None, None)
  assert "| – | – |" in choices.accuracy_table({"overall": entry})
  assert choices.accuracy_bars("title", {"overall": entry}).axes


def test_nobody_decided_is_an_error():
  with pytest.raises(ValueError, match="no decided choice in 1 comparisons"):
    choices.entry([row([0, None], (0.0, 1.0))], ["a"])


def test_clustered_intervals_are_wider_where_errors_go_together():
  rng = np.random.default_rng(0)
  # 40 clusters of 10 judgements, all right or all wrong in a cluster.
  right_K = rng.random(40) < 0.7
  totals, counts = np.repeat(right_K, 10).astype(float), np.ones(400)
  names = [str(k) for k in np.repeat(np.arange(40), 10)]
  low, high = intervals.clustered(totals, counts, names)
  naive = intervals.bootstrap(totals)
  # The standard error of 40 independent draws is √10 times that of 400.
  assert (high - low) / (naive.high - naive.low) == pytest.approx(10**0.5, rel=0.1)
  assert low < totals.mean() < high


def test_clusters_of_one_are_the_ordinary_bootstrap():
  values = np.random.default_rng(1).random(200)
  names = [str(k) for k in range(200)]
  clustered = intervals.clustered(values, np.ones(200), names)
  ordinary = intervals.bootstrap(values)
  assert np.abs(np.subtract(clustered, ordinary)).max() < 5e-3
  with pytest.raises(ValueError, match="no values"):
    intervals.clustered([0.0], [0], ["a"])
