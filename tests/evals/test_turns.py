"""Means, slopes and their intervals over turns, by hand and by numpy's polyfit."""

import numpy as np
import pytest

from stepaudio_jax.evals.parts import intervals, turns


def rows(score_DT, asked=("memory",)):
  """One row a score: a number, None (unreadable) or "failed"."""
  return [
    {
      "id": f"d{d}",
      "turn": k + 1,
      "asked": list(asked),
      "scores": {} if one == "failed" else {"memory": one},
      "failed": "too long" if one == "failed" else None,
    }
    for d, line in enumerate(score_DT)
    for k, one in enumerate(line)
    if one != "absent"
  ]


def test_an_entry_equals_counts_by_hand():
  found = turns.entry(rows([[5.0], [2.0], [None], ["failed"]]), "memory")
  # Unreadable and failed count 1 each: (5 + 2 + 1 + 1) / 4; answered (5 + 2) / 2.
  assert (found["n"], found["n_failed"], found["n_unparsed"]) == (4, 1, 1)
  assert (found["mean"], found["mean_answered"]) == (9 / 4, 7 / 2)
  assert (found["low"], found["high"]) == intervals.clustered(
    [5, 2, 1, 1], [1] * 4, list("abcd")
  )
  nothing = turns.entry(rows([[None], ["failed"]]), "memory")
  assert (nothing["mean"], nothing["mean_answered"]) == (1.0, None)


def test_turns_of_one_dialogue_are_drawn_together():
  """Two dialogues, one always 5 and one always 1: the mean is 1, 3 or 5."""
  together = turns.entry(rows([[5.0] * 8, [1.0] * 8]), "memory")
  assert (together["low"], together["high"]) == (1.0, 5.0)


def test_a_slope_by_hand():
  # 5, 4, 3 and 3, 2, 1: both fall by one a turn, so does every resample.
  found = turns.slope(rows([[5.0, 4.0, 3.0], [3.0, 2.0, 1.0]]), "memory")
  assert found == pytest.approx({"per_turn": -1, "low": -1, "high": -1})
  # A failed turn counts 1: turn means 5 and (5 + 1) / 2.
  found = turns.slope(rows([[5.0, 5.0], [5.0, "failed"]]), "memory")
  assert found["per_turn"] == pytest.approx(-2)
  assert (found["low"], found["high"]) == pytest.approx((-4, 0))
  assert turns.slope(rows([[5.0], [1.0]]), "memory") is None


def test_a_slope_equals_polyfit_where_turns_are_missing():
  rng = np.random.default_rng(0)
  score_DT = [[float(x) for x in line] for line in rng.integers(1, 6, (12, 6))]
  for d, line in enumerate(score_DT):
    for k in range(6):
      if (d + k) % 2 or k == 3:
        line[k] = "absent"
  found = turns.slope(rows(score_DT), "memory")

  def fitted(drawn):
    told = [
      (k, [score_DT[d][k] for d in drawn if score_DT[d][k] != "absent"])
      for k in range(6)
    ]
    told = [(k, np.mean(scores)) for k, scores in told if scores]
    return np.polyfit(*zip(*told, strict=True), 1)[0]

  assert found["per_turn"] == pytest.approx(fitted(range(12)))
  drawn = [fitted(rng.integers(12, size=12)) for _ in range(600)]
  low, high = np.percentile(drawn, [2.5, 97.5])
  assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.12)


def test_dialogues_that_are_all_alike_prove_little():
  """Wilson leaves 3.8415 / 6.8415 of 3 dialogues unseen, for any number of turns."""
  found = turns.entry(rows([[4.0, 4.0]] * 3), "memory")
  unseen = 3.8415 / 6.8415
  ends = (4 - 3 * unseen, 4 + unseen)
  assert (found["low"], found["high"]) == pytest.approx(ends, abs=1e-4)


def test_a_turn_that_a_resample_lacks_has_no_say():
  """One dialogue has turns 1 and 2, the other 2 and 3; all scores are 5."""
  found = turns.slope(rows([[5.0, 5.0, "absent"], ["absent", 5.0, 5.0]]), "memory")
  assert found == {"per_turn": 0, "low": 0, "high": 0}


def test_a_curve_has_the_turns_that_ask_for_it():
  asked = rows([[5.0, 4.0, 3.0]]) + rows([[1.0] * 4], asked=("mood",))
  found = turns.curve(asked, "memory")
  assert [one["turn"] for one in found["turns"]] == [1, 2, 3]
  assert [one["mean"] for one in found["turns"]] == [5, 4, 3]
  assert found["all"]["n"] == 3


def test_tables_show_counts_and_what_is_absent():
  curve = turns.curve(rows([["absent", 4.0], ["absent", None]]), "memory")
  other = turns.curve(rows([[5.0, "failed"]]), "memory")
  curves = {"a": {**curve, "silence": None}, "b": {**other, "silence": curve}}
  lines = turns.means_table(curves).splitlines()
  assert lines[2] == "| 1 | – | 5.00 [1.83, 5.00] (n 1) |"
  assert lines[3].startswith("| 2 | 2.50 [1.00, 4.00] (n 2, 1 unparsed) | 1.00")
  assert lines[3].endswith("(n 1, 1 failed) |")
  slopes = turns.slope_table(curves).splitlines()
  assert slopes[2] == "| a | – | 2.50 [1.00, 4.00] | 4.00 | – | – |"
  assert slopes[3].startswith("| b | -4.000 [-4.000, -4.000] | 3.00")
