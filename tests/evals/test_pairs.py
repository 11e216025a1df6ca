"""Paired comparisons by hand arithmetic."""

import math

import pytest

from stepaudio_jax.evals.parts import pairs


@pytest.mark.parametrize(
  ("better", "worse", "p"),
  [
    (0, 0, 1.0),
    (1, 0, 1.0),  # 2 · ½
    (5, 0, 2 / 32),
    (0, 5, 2 / 32),
    (8, 2, 2 * (1 + 10 + 45) / 1024),
    (3, 3, 1.0),  # 2 · (1 + 6 + 15 + 20) / 64 is more than 1
    (12, 4, 2 * (1 + 16 + 120 + 560 + 1820) / 65536),
  ],
)
def test_mcnemar_counts_the_tails_of_a_fair_coin(better, worse, p):
  assert pairs.mcnemar(better, worse) == pytest.approx(p, rel=1e-12)


def test_mcnemar_of_thousands_is_that_of_the_normal_distribution():
  # z = (|b − c| − 1) / √(b + c) with the correction for continuity.
  z = (1560 - 1440 - 1) / math.sqrt(3000)
  assert pairs.mcnemar(1560, 1440) == pytest.approx(math.erfc(z / 2**0.5), rel=0.01)
  assert pairs.mcnemar(5000, 0) == 0.0  # 2⁻⁴⁹⁹⁹ is no float


def test_negative_counts_are_refused():
  with pytest.raises(ValueError, match="-1 worse"):
    pairs.mcnemar(3, -1)


def test_items_are_matched_by_id_and_the_others_counted():
  ours = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.5, "e": 1.0}
  theirs = {"d": 0.0, "c": 0.0, "b": 0.0, "a": 1.0, "x": 0.0, "y": 1.0}
  found = pairs.compared(ours, theirs)
  assert (found["n"], found["unmatched"]) == (4, [1, 2])
  assert (found["better"], found["worse"], found["equal"]) == (2, 0, 2)
  assert found["p"] == 0.5  # 2 · ¼
  assert found["difference"]["mean"] == pytest.approx((1 + 0.5) / 4)
  assert found["difference"]["low"] >= 0


def test_what_goes_together_has_a_narrow_interval():
  """Unpaired, two shares of 50 items would be ±19 points apart."""
  ours = {str(k): float(k % 2) for k in range(50)}
  theirs = ours | {"1": 0.0}
  found = pairs.compared(ours, theirs)
  assert found["difference"]["mean"] == pytest.approx(0.02)
  assert found["difference"]["high"] < 0.08


def test_one_item_is_no_proof():
  found = pairs.compared({"a": 1.0}, {"a": 0.0})["difference"]
  assert found["mean"] == 1.0
  assert found["low"] < 0 < found["high"]


def test_nothing_shared_gives_no_number():
  found = pairs.compared({"a": 1.0}, {"b": 1.0})
  assert (found["n"], found["p"], found["difference"]) == (0, None, None)
