"""Calibrated φ by hand arithmetic; isotonic regression beside a search of all fits."""

import itertools
import math

import numpy as np
import pytest

from stepaudio_jax.judges import calibration, worth

LN = math.log


def test_shares_that_fall_are_their_log_odds():
  # Level 1: A preferred in 9 of 10; level 3: in 3 of 5; and both mirrored.
  named = [1] * 10 + [3] * 5
  label = [-2] * 9 + [1] + [-1] * 3 + [2] * 2
  phi = calibration.fitted(named, label)
  # Level 2 was never named: halfway between its neighbours.
  want = [LN(9), (LN(9) + LN(1.5)) / 2, LN(1.5)]
  np.testing.assert_allclose(phi[:3], want)
  np.testing.assert_array_equal(phi, -phi[::-1])


def test_levels_in_the_wrong_order_are_pooled_by_their_counts():
  # Level 1: A in 1 of 4; level 2: in 7 of 8. Pooled: 8 of 12, ln 2.
  named = [1] * 4 + [2] * 8
  label = [-1] + [1] * 3 + [-1] * 7 + [1]
  phi = calibration.fitted(named, label)
  np.testing.assert_allclose(phi[:2], LN(2))


def test_both_orders_of_a_judge_count_as_one():
  """Level 6 with B preferred is the mirror of level 1 with A preferred."""
  one = calibration.fitted([1, 1, 1, 2], [-1, -1, 1, 0])
  other = calibration.fitted([6, 6, 6, 5], [1, 1, -1, 0])
  np.testing.assert_allclose(one, other)


def test_certainty_is_clipped_ties_are_even_and_silence_is_left_out():
  phi = calibration.fitted([1, 1, None, 3, 3], [-3, -3, 3, 0, 0])
  np.testing.assert_allclose(phi, [3.0, 1.5, 0.0, 0.0, -1.5, -3.0])
  with pytest.raises(ValueError, match="none of 2 replies names a level"):
    calibration.fitted([None, None], [1, 2])
  with pytest.raises(ValueError, match="2 levels and 1 labels"):
    calibration.fitted([1, 2], [1])


def test_the_fit_is_the_best_of_all_that_fall():
  """By another road: every falling set of shares on a grid, least squares by count."""
  rng = np.random.default_rng(3)
  named = rng.integers(1, 4, 60)
  label = np.asarray(
    [-1 if rng.random() < (0.4, 0.8, 0.6)[g - 1] else 1 for g in named]
  )
  phi = calibration.fitted(named.tolist(), label.tolist())
  count = np.asarray([(named == g).sum() for g in (1, 2, 3)])
  share = np.asarray([(label[named == g] < 0).mean() for g in (1, 2, 3)])
  grid = np.linspace(0.5, 1, 51)  # from ½ on, for the mirrored levels lie below

  def loss(fit):
    return (count * (np.asarray(fit) - share) ** 2).sum()

  falling = (f for f in itertools.product(grid, repeat=3) if f[0] >= f[1] >= f[2])
  best = min(falling, key=loss)
  np.testing.assert_allclose(1 / (1 + np.exp(-phi[:3])), best, atol=0.011)


def test_what_is_written_is_read_and_nothing_else(tmp_path):
  phi = calibration.fitted([1, 2, 3, 1], [-3, -1, 1, 1])
  worth.save(tmp_path / "phi.json", phi, {"kind": "stub"}, pairs=4)
  np.testing.assert_array_equal(worth.load(tmp_path / "phi.json"), phi)
  wrong = np.asarray([1.0, 0.6, 0.2, -0.2, -0.6, -0.9])
  worth.save(tmp_path / "odd.json", wrong, {}, pairs=4)
  worth.save(tmp_path / "up.json", -np.asarray(phi), {}, pairs=4)
  (tmp_path / "text.json").write_text("{")
  for name in ("odd.json", "up.json", "text.json", "absent.json"):
    with pytest.raises(ValueError, match=name):
      worth.load(tmp_path / name)
