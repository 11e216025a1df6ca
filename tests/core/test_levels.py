"""Levels of a comparison: against a table by hand, and what a reply states."""

import math

import numpy as np
import pytest

from stepaudio_jax.core import levels
from stepaudio_jax.text import tokenizer as tokenizers

# The design's table: label of the file, level of the judge, φ.
TABLE = [
  (-3, 1, 1.0),
  (-2, 2, 0.6),
  (-1, 3, 0.2),
  (1, 4, -0.2),
  (2, 5, -0.6),
  (3, 6, -1.0),
]


def test_labels_levels_and_values_by_the_table():
  for label, level, phi in TABLE:
    assert np.flatnonzero(levels.weights(label)).tolist() == [level - 1]
    assert levels.weights(label).sum() == 1
    assert levels.label(level) == label
    assert levels.value(level) == phi
    assert levels.place(label) == level
  assert levels.weights(0).tolist() == [0, 0, 0.5, 0.5, 0, 0]
  assert levels.place(0) == 3.5
  assert math.isnan(levels.value(None))
  assert levels.value(2, (9, 8, 7, 6, 5, 4)) == 8


def test_the_other_order_is_the_mirrored_level_of_the_opposite_label():
  for label in range(-3, 4):
    np.testing.assert_array_equal(levels.weights(-label), levels.weights(label)[::-1])


@pytest.mark.parametrize("wrong", [4, -4, 1.5, None])
def test_what_is_no_label(wrong):
  with pytest.raises(ValueError, match=f"label {wrong!r} is not one of"):
    levels.weights(wrong)


@pytest.mark.parametrize("wrong", [0, 7])
def test_what_is_no_level(wrong):
  for ask in (levels.label, levels.value):
    with pytest.raises(ValueError, match=rf"level {wrong} is not one of \(1, 2"):
      ask(wrong)


def test_the_expected_value_by_hand_and_exactly_antisymmetric():
  # .5·1 + .25·.6 − .25·.2 = .6; of probabilities that add up to ½ the same.
  p_6 = np.asarray([0.5, 0.25, 0, 0.25, 0, 0])
  assert levels.expected(p_6) == pytest.approx(0.6)
  assert levels.expected(p_6 / 2) == pytest.approx(0.6)
  rng = np.random.default_rng(0)
  for _ in range(200):
    p_6 = rng.random(6)
    assert levels.expected(p_6) == -levels.expected(p_6[::-1])
    assert levels.expected(p_6) == pytest.approx(p_6 @ levels.LINEAR / p_6.sum())
  assert math.isnan(levels.expected(None))
  for wrong in (np.zeros(6), np.ones(5), np.asarray([1, 1, 1, 1, 1, -1.0])):
    with pytest.raises(ValueError, match="probabilities of the 6 levels"):
      levels.expected(wrong)


@pytest.mark.parametrize(
  ("raw", "level"),
  [
    ("4", 4),
    ("**4**", 4),
    ("[[4]]", 4),
    ("4.", 4),
    ("A is longer.\nLevel: 2", 2),
    ("The final verdict is: **2**", 2),
    ("Answer = 2 (A is better)", 2),
    ("2: A>B", 2),
    ("Both hear it.\n2 A is better.", 2),
    ("Level: 6 B is much better", 6),
    ("2 A is slightly better", None),
    ("Levels:\n4 B is slightly better\n5 B is better\n6 B is much better\nMine?", None),
    ("4 B is slightly better\n5 B is better\n6 B is much better\nLevel: 2", 2),
    ("5 - B is better.", 5),
    ("a >> b", 1),
    ("B>=A", 4),
    ("Verdict: B≫A", 6),
    ("Level: 2\nB is kinder, though.\nLevel: 5", 5),
    ("Level: 2\n\nI hope that this helps.", 2),
    ("Level 2\nThe answer of A is precise.\nAnswers differ.", 2),
    ("The level is 2.", 2),
    ("<think>\n1\n</think>\n6", 6),
    ("It is deep.\n</think>\n3", 3),
    # Nothing is guessed.
    (None, None),
    ("", None),
    ("A is better.", None),
    ("B is better in 2 of 3 ways", None),
    ("Level: 7", None),
    ("0", None),
    ("Level: 2\nLevel: 7", None),
    ("Level: 2\nLevel: none of these", None),
    ("Level: 3 or 4", None),
    ("3.5", None),
    ("3/6", None),
    ("-2", None),
    ("2 (B is much better)", None),
    ("Level: 2nd", None),
    ("<think>\nLevel: 2", None),
    ("Level: 2\n</think>\n", None),
  ],
)
def test_the_level_that_a_reply_states(raw, level):
  assert levels.named(raw) == level


def test_each_level_is_one_token_wherever_an_answer_begins():
  tokenizer = tokenizers.load("tiny")
  for number in levels.NUMBERS:
    (token,) = tokenizer.encode(str(number))
    for before in ("\n</think>\n", "Level: ", "so\n"):
      assert tokenizer.encode(f"{before}{number}")[-1] == token
