"""Order swaps by hand."""

import numpy as np
import pytest

from stepaudio_jax.evals.rewards import orders, sections
from stepaudio_jax.evals.rewards.orders import Verdicts

# φ > 0: the first-listed is better. Labels > 0: the second of the file is better.
ANSWERS = [
  Verdicts(1.0, -1.0),  # both times the first of the file
  Verdicts(0.2, 0.6),  # whichever is listed first
  Verdicts(-0.6, 1.0),  # both times the second
  Verdicts(0.6, np.nan),
  Verdicts(np.nan, np.nan),
  Verdicts(0.0, 0.0),
]
LABELS = [[-2, -1], [1, None], [-1, 0], [-1], [1], [2]]


def test_an_entry_by_hand():
  told = orders.entry(ANSWERS, LABELS, list("abcdef"))
  assert (told["pairs"], told["calls"], told["unread"]) == (6, 12, 3)
  assert told["failure_rate"]["value"] == pytest.approx(3 / 12)
  assert told["consistency"]["value"] == pytest.approx(3 / 4)
  # Of the 7 verdicts that are not 0: first in 1.0, 0.2, 0.6, 1.0, 0.6
  assert told["first"]["value"] == pytest.approx(5 / 7)
  # r is 1, −0.2, −0.8, 0: right twice; right (second); wrong; ½
  assert told["accuracy"]["value"] == pytest.approx((2 + 1 + 0 + 0.5) / 5)
  # One order: right twice; wrong; wrong; right; –; ½
  assert told["one_order"]["value"] == pytest.approx((2 + 0 + 0 + 1 + 0.5) / 6)


def test_the_reward_is_exactly_antisymmetric():
  rng = np.random.default_rng(0)
  for forward, backward in rng.normal(size=(100, 2)):
    r = orders.antisymmetric(Verdicts(forward, backward))
    assert r == -orders.antisymmetric(Verdicts(backward, forward))
  assert np.isnan(orders.antisymmetric(Verdicts(1.0, np.nan)))


def test_nothing_that_was_read_is_told_so():
  told = orders.entry([Verdicts(np.nan, np.nan)], [[1]], ["a"])
  assert told["failure_rate"]["value"] == 1.0
  assert told["consistency"] is told["accuracy"] is told["first"] is None


def test_a_judges_section_tells_what_was_counted():
  head, table = sections.order(orders.entry(ANSWERS, LABELS, list("abcdef")))
  assert "6 pairs, 12 calls, 3 unread" in head
  assert "| both orders name one reply | 75.0 % [" in table
  assert "| verdicts that could not be read | 25.0 % [" in table
  nothing = orders.entry([Verdicts(np.nan, np.nan)], [[1]], ["a"])
  assert "| accuracy, both orders | – |" in sections.order(nothing)[1]
