"""Preferences as a judge's dialogues: both orders, ties, reasons, by hand."""

import json

import pytest

from stepaudio_jax import rewards
from stepaudio_jax.core import levels
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.sets import judgement
from stepaudio_jax.judges import comparing
from stepaudio_jax.text import comparison
from stepaudio_jax.text import messages as messages_lib
from tests import tones


def written(folder, *changes):
  """A file of tones.preference, a row for each of these changes."""
  rows = [tones.preference(k) | change for k, change in enumerate(changes)]
  tones.write(folder / "p-train.jsonl", rows)
  return str(folder / "p-{split}.jsonl")


def read(path, **options):
  rows = judgement.source("train", path=path, **options)
  return {d.id: d for d in (judgement.example(row) for row in rows)}


def said(dialogue):
  return messages_lib.text_of(dialogue.row["messages"][-1])


def test_both_orders_name_mirrored_levels(tmp_path):
  asks = [{"text": "names it", "weight": 1.0}]
  path = written(tmp_path, {"overall": -2, "rubric": asks}, {"overall": 3})
  found = read(path)
  assert {name: said(one) for name, one in found.items()} == {
    "pref-0/ab": "2",
    "pref-0/ba": "5",
    "pref-1/ab": "6",
    "pref-1/ba": "1",
  }
  assert [one.row["answer"] for one in found.values()] == ["2", "5", "6", "1"]
  ab, ba = (found[f"pref-0/{order}"].row["messages"] for order in ("ab", "ba"))
  assert ab[-1]["think"] == "correctness 1"  # naturalness has no label
  assert ba[-1]["think"] == "correctness 6"
  # The very question of a judge at work, and the sound from beside the file.
  pair = comparing.Pair(
    [{"role": "human", "content": ab[1]["content"][1:2]}], "", "", asks
  )
  assert ab[0]["content"][0]["text"] == comparing.question(pair).system
  audio = str(tmp_path / "0.wav")
  context = [
    {
      "role": "human",
      "content": [{"type": "audio", "path": audio}, {"type": "text", "text": "Pitch?"}],
    }
  ]
  for messages, replies in (
    (ab, ("It is low.", "It is high.")),
    (ba, ("It is high.", "It is low.")),
  ):
    asked = comparing.question(comparing.Pair(context, *replies, asks))
    assert messages[1]["content"] == [*asked.content]
  assert found["pref-0/ab"].audio[0].source == audio


def test_ties_are_half_of_each_middle_level_and_orders_keep_to_it(tmp_path):
  path = written(tmp_path, *[{"overall": 0, "dims": {"warmth": 0}}] * 200)
  found = read(path)
  first = [said(found[f"pref-{k}/ab"]) for k in range(200)]
  second = [said(found[f"pref-{k}/ba"]) for k in range(200)]
  assert set(zip(first, second, strict=True)) == {("3", "4"), ("4", "3")}
  assert 75 < first.count("3") < 125  # 100 ± 3.5 standard deviations
  assert {one.row["answer"] for one in found.values()} == {"3.5"}
  assert found["pref-0/ab"].row["messages"][-1]["think"] == "warmth even"
  # Written down, so that a change of the coin is meant.
  assert "".join(first[:8]) == "43333333"


def test_one_dimension_leaves_out_rows_without_it(tmp_path):
  dims = {"voice_match": 2, "correctness": None}
  path = written(tmp_path, {"dims": dims}, {"dims": {"voice_match": None}}, {})
  found = read(path, dimension="voice_match")
  assert [*found] == ["pref-0/ab", "pref-0/ba"]
  one = found["pref-0/ab"]
  assert said(one) == "5"
  asked = one.row["messages"][1]["content"][-1]["text"]
  assert "Which reply is better in voice match alone?" in asked
  # The label itself is no reason, and no other is there.
  assert one.row["messages"][-1]["think"] == judgement.UNTOLD
  assert "think" not in read(path, reasons=False)["pref-0/ab"].row["messages"][-1]
  with pytest.raises(
    ValueError, match=r"'warmth'; the choices are \['correctness', .*'overall', 'voice"
  ):
    read(path, dimension="warmth")


def test_wrong_rows_are_told_as_those_of_preferences(tmp_path):
  tones.world(tmp_path)
  path = written(tmp_path, {"overall": 4}, {"candidates": []}, {})
  options = {"judgement": {"path": path}}
  with pytest.raises(ValueError, match=r"p-train.jsonl:1: overall.*\n.*") as error:
    Corpus({"judgement": 1.0}, options, "train")
  assert "p-train.jsonl:2" in str(error.value)
  assert "p-train.jsonl:3" not in str(error.value)


def test_a_perfect_judge_has_no_level_error(tmp_path):
  """The data's own replies are the best that the reward knows."""
  changes = [{"overall": k} for k in (-3, -1, 0, 2)]
  rule = rewards.load("level_error")
  for one in read(written(tmp_path, *changes)).values():
    reply = one.row["messages"][-1]
    text = f"{reply['think']}\n</think>\n{said(one)}"
    best = -0.1 if one.row["answer"] == "3.5" else 0.0
    assert rule.score(one.row, text) == best
    wrong = levels.COUNT if said(one) in "123" else 1
    assert rule.score(one.row, f"x\n</think>\n{wrong}") < -0.4
  with pytest.raises(ValueError, match=r"example 'x': answer 'low' is not one of"):
    rule.score({"id": "x", "answer": "low"}, "y\n</think>\n1")


def test_the_row_is_plain_json(tmp_path):
  (one, *_) = read(written(tmp_path, {})).values()
  assert json.loads(json.dumps(one.row)) == one.row
  assert comparison.OVERALL not in one.row["messages"][-1]["think"]
