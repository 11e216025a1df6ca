"""Comparisons as the report counts them: by dialogues, and where anybody decided."""

import numpy as np
import pytest

from stepaudio_jax.evals import reward_model
from stepaudio_jax.evals.rewards import best, orders
from stepaudio_jax.evals.rewards.orders import Verdicts


def item(number, task, gap, label):
  told = {
    "labels": [label],
    "scores": [[None], [None]],
    "tokens": [5, 6 + number % 3],
    "reward": [0.0, gap],
    "silence": [0.0, 0.5 - number % 2],
    "marks": None,
    "gold": None,
  }
  return {
    "id": str(number),
    "task_id": task,
    "turns": 1,
    "raters": ["r"],
    "candidates": [{"text": f"{number} {k}", "think": None} for k in "xy"],
    "simulated": False,
    "dimensions": {"overall": told},
  }


def told(named):
  """Two dialogues that contradict each other, 20 turns each."""
  sides = np.repeat([1, -1], 20)
  items = [
    item(k, named("ab"[int(side < 0)], k), 1.0 + 0.01 * k, int(side))
    for k, side in enumerate(sides)
  ]
  return items, reward_model.summary(items, ["overall"], ["silence"])


def test_turns_of_a_dialogue_are_resampled_and_calibrated_as_one():
  items, turns = told(lambda name, k: f"{name}#{k}")
  _, whole = told(lambda name, k: name)
  assert turns["dialogues"] == 2
  assert turns["dimensions"] == whole["dimensions"]
  entry = turns["dimensions"]["overall"]
  assert (entry["low"], entry["high"]) == (0.0, 1.0)  # one of the two, twice
  # What one teaches is wrong for the other, and none is calibrated by itself.
  assert entry["calibration"]["after"]["ece"] > 0.8
  answers = {str(k): Verdicts(1.0, -1.0) for k in range(40)}
  judge = orders.of_items(answers, items, "overall")["accuracy"]
  assert (judge["low"], judge["high"]) == (0.0, 1.0)


def test_the_best_of_a_dialogues_turns_are_resampled_as_one():
  high, low = ([0.0, 1.0], [4.0, 4.0]), ([0.0, 1.0], [2.0, 2.0])
  groups = {f"a#{k}": high for k in range(9)} | {f"b#{k}": low for k in range(9)}
  one = best.entry(groups)["points"][0]["gold"]
  assert (one["value"], one["low"], one["high"]) == (3.0, 2.0, 4.0)


def test_what_nobody_decided_is_left_out_by_name_and_changes_nothing_else():
  items, alone = told(lambda name, k: f"{name}#{k}")
  for k, one in enumerate(items):
    told_of = one["dimensions"]["overall"]
    one["dimensions"]["silent"] = told_of | {"labels": [None if k % 2 else 0]}
  found = reward_model.summary(items, ["silent", "overall"], ["silence"])
  assert found.pop("undecided") == ["silent"]
  assert alone.pop("undecided") == []
  assert found == alone
  result = found | {"undecided": ["silent"], "checkpoint": "rm/3", "optimised": {}}
  page = reward_model.page(result | {"settings": {}})
  assert "Nobody decided anything in silent: not told of." in page
  with pytest.raises(
    ValueError, match=r"no decided choice of any of \['silent'\] in 40"
  ):
    reward_model.summary(items, ["silent"], ["silence"])
