"""What length and place explain, by a library and by planted biases."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from stepaudio_jax.evals.rewards import lengths
from stepaudio_jax.evals.rewards.calibration import probability
from tests.evals.rewards.heads import head


def biased(count=2000, place=-0.4, length=1.5, seed=0):
  """log length ratios, and choices of raters with these leanings."""
  rng = np.random.default_rng(seed)
  longer_N = rng.normal(0, 0.7, count)
  won_N = rng.random(count) < probability(place + length * longer_N)
  return longer_N, won_N.astype(float)


def test_coefficients_are_the_librarys():
  longer_N, won_N = biased(200)
  told = lengths.regression(longer_N, won_N, np.arange(200))
  x_NV = np.stack([np.ones(200), longer_N], axis=1)
  library = LogisticRegression(C=lengths.PRIOR_SD**2, fit_intercept=False, tol=1e-10)
  library.fit(x_NV, won_N)
  found = [told[name]["value"] for name in ("place", "length")]
  assert found == pytest.approx(library.coef_[0], rel=1e-5)
  assert told["n"] == 200


def test_planted_leanings_lie_in_their_intervals_and_nothing_else_does():
  told = lengths.regression(*biased(), np.arange(2000))
  for name, wanted in (("place", -0.4), ("length", 1.5)):
    assert told[name]["low"] < wanted < told[name]["high"]
    assert not told[name]["low"] < 0 < told[name]["high"]
  # The intercept's error, at slope 0, is 2 / √n.
  told = lengths.regression(*biased(length=0.0, place=0.0), np.arange(2000))
  wanted = 2 * 1.96 * 2 / 2000**0.5
  assert told["place"]["high"] - told["place"]["low"] == pytest.approx(wanted, rel=0.05)


def test_repeated_rows_of_a_dialogue_prove_nothing_more():
  longer_N, won_N = biased(300)
  once = lengths.regression(longer_N, won_N, np.arange(300))
  often = lengths.regression(
    np.repeat(longer_N, 9), np.repeat(won_N, 9), np.repeat(np.arange(300), 9)
  )
  width, same = (one["length"]["high"] - one["length"]["low"] for one in (once, often))
  assert same == pytest.approx(width, rel=0.02)


def test_length_alone_is_finite_and_has_half_of_the_controlled_accuracy():
  longer_N, won_N = biased(length=3.0)
  label_NJ = np.where(won_N > 0, 1.0, -1.0)[:, None]
  told = lengths.entry(head(longer_N, label_NJ, longer_N=longer_N))
  assert told["rho"] == pytest.approx(1.0)
  assert 5 < told["model"]["length"]["value"] < 1e3
  assert told["controlled"]["value"] == 0.5
  assert told["raters"]["length"]["low"] > 0
  backwards = lengths.entry(head(-longer_N, label_NJ, longer_N=longer_N))
  assert backwards["rho"] == pytest.approx(-1.0)
  assert backwards["model"]["length"]["high"] < 0


def test_controlled_accuracy_by_hand():
  # Chosen and longer: 3, of which 2 are predicted. Chosen and shorter: 2, of which 1,
  # and one at equal rewards. Of equal lengths: 1, which does not count.
  longer_N = [1.0, 1.0, -1.0, 1.0, -1.0, 0.0]
  label_NJ = [[1.0], [2.0], [-1.0], [-3.0], [1.0], [1.0]]
  gap_N = [1.0, -1.0, -1.0, -1.0, 0.0, 1.0]
  told = lengths.controlled(head(gap_N, label_NJ, longer_N=longer_N))
  assert (told["n_longer"], told["n_shorter"]) == (3, 2)
  assert told["value"] == pytest.approx((2 / 3 + 1.5 / 2) / 2)
  one_sided = head(gap_N[:2], label_NJ[:2], longer_N=longer_N[:2])
  assert lengths.controlled(one_sided) is None
