"""Comparisons by a judge: what is asked, both orders, what cannot be read."""

import math

import numpy as np
import pytest
from absl import logging

from stepaudio_jax.core import levels
from stepaudio_jax.judges import comparing, reliability
from stepaudio_jax.judges.comparing import Comparer, Pair
from stepaudio_jax.judges.questions import Template
from stepaudio_jax.text import comparison

HISTORY = [
  {"role": "system", "content": "Be kind."},
  {
    "role": "human",
    "content": [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "Well?"}],
  },
  {"role": "assistant", "content": "You sound {tired}.", "think": "A low voice."},
  {"role": "human", "content": "And now?"},
]
ASKS = [{"text": "asks back", "weight": 2.0}, {"text": "is rude", "weight": -0.5}]


class Judge:
  """Says what a table has for (A, B); weighs by it too."""

  def __init__(self, said):
    self.said, self.asked = said, []

  def describe(self):
    return {"kind": "stub"}

  def answers(self, questions):
    self.asked += questions
    return [self.said[replies_of(question)] for question in questions]


class Weighing(Judge):
  def weighed(self, questions):
    found = [self.said[replies_of(question)] for question in questions]
    return [("4" if p is not None else "hm", p) for p in found]


def replies_of(question):
  _, _, rest = question.text.partition("\n\nReply A:\n")
  first, _, rest = rest.partition("\n\nReply B:\n")
  return first, rest.partition("\n\n")[0]


def pair(first, second):
  return Pair(HISTORY, first, second)


def test_the_question_quotes_the_talk_where_it_was_heard():
  asked = comparing.question(Pair(HISTORY, " Yes. ", "No {x}.", ASKS, "voice_match"))
  assert [block["type"] for block in asked.content] == ["text", "audio", "text"]
  assert asked.content[1]["path"] == "a.wav"
  assert asked.content[0]["text"] == ("The conversation:\n\nsystem: Be kind.\nhuman: ")
  assert asked.text.startswith(
    "The conversation:\n\nsystem: Be kind.\nhuman: [audio] Well?\n"
    "assistant: You sound {tired}.\nhuman: And now?\n\n"
    "Reply A:\nYes.\n\nReply B:\nNo {x}.\n\n"
    "What a good reply does, each with its weight:\n- asks back (2)\n- is rude (-0.5)\n"
    "\nWhich reply is better in voice match alone?"
  )
  assert "low voice" not in asked.text
  for number, words in zip("123456", levels.WORDS, strict=True):
    assert f"{number} {words}" in asked.text
  assert asked.system == comparison.SYSTEM
  assert asked.template == Template(comparison.WORDING, comparison.SYSTEM).hash


def test_without_sound_or_rubric_there_is_nothing_of_them():
  asked = comparing.question(Pair(HISTORY[3:], "Yes.", "No."))
  assert asked.content == ()
  assert "[audio]" not in asked.text
  assert "weight" not in asked.text
  assert "Which reply is better? Give" in asked.text


def test_the_wording_is_this_one():
  """Who changes it changes what is measured and asks a trained judge another thing."""
  assert comparing.TEMPLATE == "2964b734e130"


def test_values_by_hand_in_both_orders():
  judge = Judge(
    {("x", "y"): "2", ("y", "x"): "So:\n4", ("x", "z"): "1", ("z", "x"): "3"}
  )
  found = Comparer(judge).both([pair("x", "y"), pair("x", "z")])
  # ½(.6 − −.2) and ½(1 − .2): the second judge prefers what comes first.
  assert [each.value for each in found] == pytest.approx([0.4, 0.4])
  assert [each.agrees for each in found] == [True, False]
  assert found[0].forward == comparing.Verdict("2", 2, 0.6)


def test_a_reference_anchored_reward_is_exactly_antisymmetric():
  rng = np.random.default_rng(0)
  names = [f"r{k}" for k in range(6)]
  pairs = [pair(a, b) for a in names for b in names if a != b]
  said = {(each.first, each.second): rng.random(6) for each in pairs}
  phi = (2.5, 1.1, 0.3, -0.3, -1.1, -2.5)
  comparer = Comparer(Weighing(said), phi, expected=True)
  found = {
    (p.first, p.second): r.value
    for p, r in zip(pairs, comparer.both(pairs), strict=True)
  }
  assert len({*found.values()}) == len(pairs)
  assert all(found[a, b] == -found[b, a] for a, b in found)


def test_expected_values_are_those_of_the_probabilities():
  p = np.asarray([0.5, 0.25, 0, 0.25, 0, 0])
  judge = Weighing({("x", "y"): p, ("y", "x"): None})
  first, second = Comparer(judge, expected=True).verdicts(
    [pair("x", "y"), pair("y", "x")]
  )
  assert first.value == pytest.approx(0.6)
  assert math.isnan(second.value)
  with pytest.raises(ValueError, match=r"'expected' needs a judge.*'stub'"):
    Comparer(Judge({}), expected=True)


def test_what_cannot_be_read_is_masked_counted_and_told(monkeypatch):
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))
  said = {("x", "y"): "2", ("y", "x"): "2", ("x", "z"): "well", ("z", "x"): "6"}
  judge = Judge(said | {("y", "z"): None, ("z", "y"): "Level: 9"})
  comparer = Comparer(judge)
  found = comparer.both(
    [pair("x", "y"), pair("x", "z"), pair("y", "z"), pair("x", "y")]
  )
  np.testing.assert_array_equal(
    [each.value for each in found], [0.0, np.nan, np.nan, 0.0]
  )
  # The pair that came twice was asked once.
  assert len(judge.asked) == 6
  assert comparer.tally == comparing.Tally(8, 6, unread=3, pairs=2, disagreed=2)
  assert comparer.tally.shares() == {"calls": 6.0, "unread": 3 / 8, "disagreement": 1.0}
  assert told == [
    "3 of 8 judgements name no level; the first say: ['well', None, 'Level: 9']"
  ]
  assert comparer.taken().asked == 8
  assert comparer.tally == comparing.Tally()
  assert math.isnan(comparer.tally.shares()["unread"])
  assert comparer.both([]) == []


def test_two_replies_that_say_the_same_are_no_disagreement_of_the_orders():
  comparer = Comparer(Judge({("x", "x"): "1", ("x", "y"): "2", ("y", "x"): "5"}))
  found = comparer.both([pair("x", "x"), pair("x", "y")])
  assert [each.value for each in found] == [0.0, 0.6]
  assert comparer.tally == comparing.Tally(4, 3, pairs=1, disagreed=0)


def test_reliability_by_hand():
  said = {
    ("a", "b"): "1",  # both orders: a
    ("b", "a"): "5",
    ("c", "d"): "2",  # what comes first, each time
    ("d", "c"): "2",
    ("e", "f"): "6",  # unread backwards
    ("f", "e"): "",
    ("g", "h"): "5",  # both orders: h
    ("h", "g"): "3",
  }
  pairs = [pair(*each) for each in [*said][::2]]
  found = Comparer(Judge(said)).both(pairs)
  label = [-2, -1, 1, -3]  # people: a, c, f, g
  # Together: right, even (½), unread, wrong. One order: right, right, right, wrong.
  # First in 7 orders read: a, c, d, h are (1, 2, 2, 3); 5, 6, 5 are not.
  assert reliability.summary(found, label) == {
    "accuracy": pytest.approx(0.5),
    "accuracy_one_order": 0.75,
    "consistency": pytest.approx(2 / 3),
    "first_share": pytest.approx(4 / 7),
    "unread": 1 / 8,
    "pairs": 4,
    "decided": 3,
    "read_both": 3,
    "judgements": 8,
  }
  ties = reliability.summary(found, [0, 0, 0, 0])
  assert math.isnan(ties["accuracy"])
  with pytest.raises(ValueError, match=r"\(1,\) values and \(2,\) labels"):
    reliability.correct(np.zeros(1), [1, 2])
