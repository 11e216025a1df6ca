"""A judge beside raters: a stub that hears tones, by hand."""

import io
import json
import math

import numpy as np
import pytest
import soundfile

from experiments import judge_pairs
from stepaudio_jax.judges import worth
from tests import tones
from tests.judges.test_comparing import replies_of


class Ear:
  """Hears whether a tone is low, and names the reply that says so; A in silence."""

  def __init__(self):
    self.asked = 0

  def describe(self):
    return {"kind": "stub"}

  def answers(self, questions):
    self.asked += len(questions)
    return [self._level(question) for question in questions]

  def _level(self, question):
    (block,) = [one for one in question.content if one["type"] == "audio"]
    source = block.get("path") or io.BytesIO(block["bytes"])
    sound_N, _ = soundfile.read(source, dtype="float32")
    assert len(sound_N) == 16_000
    if not sound_N.any():
      return "Nothing.\nLevel: 3"
    crossings = (np.diff(np.sign(sound_N)) != 0).sum()
    right = "It is low." if crossings < 800 else "It is high."
    return "2" if replies_of(question)[0] == right else "Level: 5"


@pytest.fixture
def pairs(tmp_path):
  """Six tones; the last one's rater is wrong, a second rater of the first is even."""
  folder = tones.world(tmp_path)
  rows = [tones.preference(k) for k in range(6)]
  rows[5]["overall"] *= -1
  rows.append(rows[0] | {"id": "again", "rater": "sim-01", "overall": 0})
  tones.write(folder / "pairs.jsonl", rows)
  return folder / "pairs.jsonl"


def test_a_judge_that_hears_beside_raters_and_silence(pairs, tmp_path):
  judge = Ear()
  result = judge_pairs.run(judge, pairs, tmp_path / "out", silence=True)
  heard, quiet = result["heard"], result["silence"]
  # 5 of 6 decided rows; in silence both orders say A: 0, a half each.
  assert heard["accuracy"] == pytest.approx(5 / 6)
  assert heard["consistency"] == 1.0
  assert heard["decided"] == 6
  assert heard["first_share"] == 0.5
  assert heard["unread"] == 0.0
  assert quiet["accuracy"] == 0.5
  assert quiet["consistency"] == 0.0
  assert quiet["first_share"] == 1.0
  assert result["drop"]["accuracy"] == pytest.approx(1 / 3)
  assert result["drop"]["interval"][0] < 1 / 3 < result["drop"]["interval"][1]
  # Six sounds in two orders; all silences are one. The second rater costs nothing.
  assert judge.asked == 2 * 6 + 2
  # Of seven judgements 2 in the order AB, rater by rater: five right, a half, one
  # wrong; the other order counts the same.
  odds = math.log(5.5 / 1.5)
  np.testing.assert_allclose(result["phi"][1], odds)
  written = worth.load(tmp_path / "out" / "phi.json")
  np.testing.assert_array_equal(written, result["phi"])
  assert json.loads((tmp_path / "out" / "judge.json").read_text()) == result
  lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
  first = json.loads(lines[0])
  assert (first["id"], first["label"], first["value"]) == ("pref-0", -2, 0.6)
  assert first["ab"] == {"level": 2, "value": 0.6, "raw": "2"}
  assert len(lines) == 7
  told = judge_pairs.table(result)
  assert "accuracy 0.833" in told
  assert "orders agree 1.000 of 7" in told


def test_a_judge_that_mumbles_leaves_no_phi(pairs, tmp_path):
  class Mumbling(Ear):
    def _level(self, question):
      return "Hm."

  result = judge_pairs.run(Mumbling(), pairs, tmp_path / "out", limit=2)
  assert result["heard"]["unread"] == 1.0
  assert result["heard"]["interval"] is None
  assert "phi" not in result
  assert not (tmp_path / "out" / "phi.json").exists()
  assert result["heard"]["accuracy"] is None
  assert "accuracy –  on 0 decided rows" in judge_pairs.table(result)
  assert "without a level 1.000 of 4" in judge_pairs.table(result)


def test_turns_of_one_dialogue_come_or_go_together(pairs, tmp_path):
  """Six pairs of one dialogue: no other sample of them, so no width."""
  rows = [json.loads(line) for line in pairs.read_text().splitlines()]
  for k, row in enumerate(rows):
    row["task_id"] = f"talk#{k}"
  tones.write(pairs, rows)
  low, high = judge_pairs.run(Ear(), pairs, tmp_path / "out")["heard"]["interval"]
  assert low == high == pytest.approx(5 / 6)
