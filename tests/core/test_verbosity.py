"""Length taken off a reward, on planted biases."""

import numpy as np
import pytest
import scipy.stats

from stepaudio_jax.core import verbosity


def test_ranks_against_scipy_with_ties():
  rng = np.random.default_rng(0)
  for _ in range(5):
    a, b = rng.integers(0, 6, size=(2, 40)).astype(float)
    expected = scipy.stats.spearmanr(a, b).statistic
    assert verbosity.spearman(a, b) == pytest.approx(expected, abs=1e-12)
  assert verbosity.spearman(np.ones(4), np.arange(4.0)) == 0.0


@pytest.mark.parametrize("planted", [0.8, -0.5, 3.0])
def test_a_planted_bias_is_found(planted):
  """Quality that is independent of length, plus so much of its log."""
  rng = np.random.default_rng(1)
  v = np.log(rng.integers(4, 60, size=3000))
  reward = (rng.normal(size=3000) + planted * v).astype(np.float32)
  assert abs(verbosity.spearman(reward, v)) > 0.2
  weight = verbosity.weight(reward, v, 0.03)
  assert abs(verbosity.spearman(reward - weight * v, v)) <= 0.03
  assert weight == pytest.approx(planted, abs=0.1)


def test_what_is_no_bias_stays():
  rng = np.random.default_rng(2)
  reward, v = rng.normal(size=(2, 5000))
  assert abs(verbosity.spearman(reward, v)) < 0.03
  assert verbosity.weight(reward, v, 0.03) == 0.0
  assert verbosity.weight(reward, np.ones(5000), 0.03) == 0.0


def test_few_replies_come_as_near_as_they_can():
  # r = v: below λ = 1 the correlation is 1, above it −1, and 0 only where all is equal.
  v = np.asarray([1.0, 2.0, 3.0])
  weight = verbosity.weight(v, v, 0.01)
  assert weight == pytest.approx(1.0)
  with pytest.raises(ValueError, match=r"2 rewards.* at least 3"):
    verbosity.weight(v[:2], v[:2], 0.03)
  with pytest.raises(ValueError, match="all finite: False"):
    verbosity.weight(np.asarray([1.0, np.nan, 2.0]), v, 0.03)
  with pytest.raises(ValueError, match="most=0"):
    verbosity.weight(v, v, 0)
