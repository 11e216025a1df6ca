"""Accuracy lost with other sound, and which dimensions should lose it."""

import dataclasses

import numpy as np
import pytest

from stepaudio_jax.data.world import gold, plan, scripted, tasks
from stepaudio_jax.evals.rewards import groups, sound
from tests.evals.rewards.heads import head


def heard(name, other_gap_N, count=50):
  """A faultless head, and its gaps with other sound; the second is always better."""
  one = head(np.ones(count), np.ones((count, 1)), name=name)
  reward_N2 = np.stack([np.zeros(count), other_gap_N], axis=1)
  return dataclasses.replace(one, other_N2={"silence": reward_N2})


@pytest.mark.parametrize(
  ("name", "lost", "expected"),
  [
    ("correctness", 0.4, True),
    ("correctness", 0.0, False),
    ("naturalness", 0.4, False),
    ("naturalness", 0.0, True),
    ("warmth", 0.4, None),
  ],
)
def test_a_drop_is_expected_where_gold_hears(name, lost, expected):
  other_N = np.where(np.arange(50) < 50 * lost, -1.0, 1.0)
  told = sound.entry(heard(name, other_N), simulated=True)["silence"]
  assert told["accuracy"]["value"] == pytest.approx(1 - lost)
  assert told["drop"]["value"] == pytest.approx(lost)
  assert told["as_expected"] is expected
  flat = dataclasses.replace(heard(name, other_N), other_N2={})
  flat.other_N2["flat"] = heard(name, other_N).other_N2["silence"]
  told = sound.entry(flat, simulated=True)["flat"]
  assert told["as_expected"] is (None if name == "correctness" else expected)
  people = sound.entry(heard(name, other_N), simulated=False)["silence"]
  assert (people["needs_audio"], people["as_expected"]) == (None, None)


def test_gold_hears_the_dimensions_that_change_with_the_clip():
  """By the listener itself: other truths of the clips, same replies."""
  takes = plan.takes("heldout", plan.heldout_counts(24), seed=0)
  paths = {take.id: f"{take.id}.flac" for take in takes}
  _, truths = tasks.dialogues("heldout", takes, paths, 0, per_task=24)
  asked = [row for row in truths if row["task"] in ("pitch", "rate", "emotion")]
  changed = dict.fromkeys(gold.DIMENSIONS, 0)
  for truth in asked:
    others = [one for one in truth["choices"] if one != truth["answer"]]
    mood = {"emotion": others[0]} if truth["task"] == "emotion" else {}
    other = truth | {"answer": others[0]} | mood
    for one in scripted.candidates(truth, 4, seed=0):
      text = gold.reply(one.get("think"), one["text"])
      before, after = gold.score(truth, text), gold.score(other, text)
      for name in gold.DIMENSIONS:
        changed[name] += before[name] != after[name]
  found = {name for name, count in changed.items() if count > 0.05 * 4 * len(asked)}
  assert found == set(gold.HEARD)


def test_overall_needs_what_its_parts_need():
  assert sound.needs_audio("overall") is sound.needs_audio("mixture") is True
  assert sound.needs_audio("emotional_continuity") is True
  assert sound.needs_audio("instruction") is False
  assert sound.needs_audio("warmth") is None


def test_accuracy_by_turns_by_hand():
  one = head(
    [1.0, -1.0, 1.0, 0.0],
    [[1.0, 1.0], [1.0, 0.0], [-1.0, np.nan], [0.0, 0.0]],
    turns_N=[1, 1, 3, 2],
  )
  told = groups.by_turns(one)
  assert {turns: entry["n"] for turns, entry in told.items()} == {
    "1": 3,
    "2": 0,
    "3": 1,
  }
  assert told["1"]["accuracy"]["value"] == pytest.approx(2 / 3)
  assert told["2"]["accuracy"] is None
  assert told["3"]["accuracy"]["value"] == 0.0
