"""α against published numbers, hand arithmetic and a twin that loops over pairs."""

import itertools

import numpy as np
import pytest

from stepaudio_jax.core import agreement

NAN = np.nan
# Krippendorff (2011), section C: 4 observers, 12 units, values of 1 to 5.
OBSERVERS = (
  (1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN),
  (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3),
  (NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN),
  (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN),
)
WORKED = np.asarray(OBSERVERS, np.float64).T


@pytest.mark.parametrize(
  ("metric", "published"),
  [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_the_published_example(metric, published):
  assert round(agreement.alpha(WORKED, metric), 3) == published


def test_what_the_published_example_is_made_of():
  nobody_1J = np.full((1, 4), NAN)
  found = agreement.size(np.concatenate([WORKED, nobody_1J]))
  assert found == {"units": 11, "values": 40, "alone": 1}


def test_two_raters_and_two_values_by_hand():
  """Krippendorff (2011), section A: α = .095.

  The raters differ in 4 of 10 units, so 4 of the 20 ordered pairs are (0, 1) and 4
  (1, 0). There are 14 zeros and 6 ones: α = 1 − 19 · 4 / (14 · 6) = 1 − 76 / 84.
  """
  first, second = (0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0)
  value_NJ = np.asarray([first, second], np.float64).T
  for metric in agreement.METRICS:  # with two values all are the same
    np.testing.assert_allclose(agreement.alpha(value_NJ, metric), 1 - 76 / 84)
  np.testing.assert_allclose(agreement.same(value_NJ), 0.6)


def by_loops(value_NJ, metric):
  """α from the pairs of values themselves, without a coincidence matrix."""
  units = [[v for v in unit if not np.isnan(v)] for unit in value_NJ]
  units = [unit for unit in units if len(unit) > 1]
  values = sorted(v for unit in units for v in unit)

  def gap(a, b):
    a, b = min(a, b), max(a, b)
    if metric == "ordinal":
      between = sum(a <= v <= b for v in values)
      return (between - (values.count(a) + values.count(b)) / 2) ** 2 if a < b else 0
    return {"nominal": a != b, "interval": (a - b) ** 2}[metric]

  seen = sum(
    gap(a, b) / (len(unit) - 1)
    for unit in units
    for a, b in itertools.permutations(unit, 2)
  )
  expected = sum(gap(a, b) for a, b in itertools.permutations(values, 2))
  return 1 - (len(values) - 1) * seen / expected


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_pairs(metric):
  rng = np.random.default_rng(3)
  truth_N1 = rng.integers(-3, 4, size=(40, 1))
  value_NJ = np.clip(truth_N1 + rng.integers(-1, 2, size=(40, 5)), -3, 3).astype(float)
  value_NJ[rng.random((40, 5)) < 0.4] = NAN
  found = agreement.alpha(value_NJ, metric)
  np.testing.assert_allclose(found, by_loops(value_NJ, metric), rtol=1e-12)
  assert 0.1 < found < 0.98


@pytest.mark.parametrize(
  "value_NJ",
  [
    np.full((3, 2), NAN),
    np.asarray([[1.0, NAN], [NAN, 2.0]]),
    np.asarray([[2.0, 2.0], [2.0, 2.0]]),
    np.zeros((0, 2)),
  ],
)
def test_where_nobody_can_disagree_alpha_is_unknown(value_NJ):
  assert agreement.alpha(value_NJ) is None
  assert agreement.alpha_interval(value_NJ, ["a"] * len(value_NJ)) is None


def test_agreement_throughout_is_one_and_noise_is_none():
  rng = np.random.default_rng(0)
  truth_N1 = rng.integers(1, 6, size=(400, 1)).astype(float)
  assert agreement.alpha(np.repeat(truth_N1, 3, 1)) == 1
  noise_NJ = rng.integers(1, 6, size=(400, 3)).astype(float)
  low, high = agreement.alpha_interval(noise_NJ, [*map(str, range(400))])
  assert low < 0 < high
  assert high - low < 0.2


def test_the_interval_covers_alpha_of_the_population_as_often_as_it_says():
  """100 samples of 60 units; α of 20,000 units stands for the population's."""
  rng = np.random.default_rng(1)

  def drawn(units):
    truth_N1 = rng.integers(-2, 3, size=(units, 1))
    return np.clip(truth_N1 + rng.integers(-1, 2, size=(units, 3)), -3, 3).astype(float)

  truth, covered = agreement.alpha(drawn(20_000)), 0
  names = [*map(str, range(60))]
  for _ in range(100):
    low, high = agreement.alpha_interval(drawn(60), names, resamples=500)
    covered += low <= truth <= high
  assert 88 <= covered <= 99


def test_units_of_a_dialogue_are_drawn_together():
  """Each dialogue's units say the same 8 times over: only 30 of 240 are independent."""
  rng = np.random.default_rng(2)
  value_NJ = np.repeat(rng.integers(1, 6, size=(30, 2)).astype(float), 8, axis=0)
  alone = agreement.alpha_interval(value_NJ, [*map(str, range(240))])
  together = agreement.alpha_interval(value_NJ, [str(k // 8) for k in range(240)])
  # The standard error of a mean grows by the root of 8.
  assert 2 < (together.high - together.low) / (alone.high - alone.low) < 4


def test_a_bootstrap_of_two_equal_dialogues_has_no_width():
  value_NJ = np.concatenate([WORKED, WORKED])
  found = agreement.alpha_interval(value_NJ, ["a"] * 12 + ["b"] * 12)
  np.testing.assert_allclose(found, agreement.alpha(value_NJ))
  assert agreement.alpha_interval(WORKED, ["a"] * 12) is None


def test_wrong_metrics_and_scales():
  with pytest.raises(ValueError, match="'cardinal' is not in"):
    agreement.alpha(WORKED, "cardinal")
  with pytest.raises(ValueError, match="no value -4 below 0"):
    agreement.alpha(WORKED - 5, "ratio")
  many_NJ = np.arange(80.0).reshape(40, 2)
  with pytest.raises(ValueError, match="80 different values"):
    agreement.alpha_interval(many_NJ, ["a"] * 40)


def test_each_rater_against_the_others_by_hand():
  value_NJ = np.asarray([[-3, 1, 1], [2, 1, NAN], [0, 1, 1], [1, NAN, NAN], [2, -1, 1]])
  # Others' means: row 0: 1, −1, −1; row 1: 1, 2; row 4: 0, 1.5, 0.5.
  np.testing.assert_array_equal(
    agreement.others(value_NJ),
    [[1, -1, -1], [1, 2, 1.5], [1, 0.5, 0.5], [NAN, 1, 1], [0, 1.5, 0.5]],
  )
  np.testing.assert_array_equal(
    agreement.with_others(value_NJ),
    [[0, 0, 0], [1, 1, NAN], [NAN, 1, 1], [NAN, NAN, NAN], [NAN, 0, 1]],
  )


def test_sides_leave_ties_out():
  value_NJ = np.asarray([[-3, -1.0], [2, 0], [1, -1]])
  # One pair is on one side, one on two; the tie has no pair.
  assert agreement.same(agreement.sides(value_NJ)) == 0.5
  assert agreement.same(np.asarray([[1.0, NAN]])) is None
