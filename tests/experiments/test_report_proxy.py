"""Proxy and gold of the same replies."""

import pytest

from experiments import report_proxy
from tests.experiments.quickstarts import RIGHT, UNCLOSED, sample, truth


def row(proxy, gold, *, step=1, prompt="p", mean=None):
  return {
    "step": step,
    "prompt_id": prompt,
    "reward": {"coherence": proxy},
    "gold": {"coherence": gold},
    "gold_mean": gold if mean is None else mean,
  }


def agreement(rows):
  return report_proxy.agreement(
    rows, lambda r: r["reward"]["coherence"], lambda r: r["gold"]["coherence"]
  )


def test_gold_reads_the_truth_behind_the_dialogue():
  rows = [sample("rlhf", 1, "a", text, 0.5) for text in (UNCLOSED, RIGHT)]
  closed_not, right = report_proxy.scored(rows, {"a": truth("a")}, "here")
  assert set(closed_not["gold"].values()) == {1.0}
  assert closed_not["gold_mean"] == 1.0
  assert right["gold"]["correctness"] == 5.0
  assert right["gold_mean"] == pytest.approx(sum(right["gold"].values()) / 6)
  with pytest.raises(ValueError, match="here: dialogue 'a' is none of 0 with truths"):
    report_proxy.scored(rows, {}, "here")


def test_means_by_step_leave_out_missing_values():
  rows = [row(1.0, 2), row(None, 2), row(4.0, 2, step=3), row(None, 2, step=2)]
  means = report_proxy.by_step(rows, lambda r: r["reward"]["coherence"])
  assert [*means.items()] == [(1, 1.0), (2, None), (3, 4.0)]


def test_ends_are_fifths_of_the_steps():
  rows = [row(0.0, 1, step=step) for step in range(1, 12) for _ in range(2)]
  first, last = report_proxy.ends(rows)  # 11 // 5 = 2 steps, of two replies each
  assert [r["step"] for r in first] == [1, 1, 2, 2]
  assert [r["step"] for r in last] == [10, 10, 11, 11]
  first, last = report_proxy.ends(rows[:4])
  assert [r["step"] for r in first + last] == [1, 1, 2, 2]


def test_agreement_counts_pairs_of_a_prompt_that_gold_tells_apart():
  # Prompt p: pairs (1,2) right, (1,3) wrong, (2,3) wrong, (x,4) equal gold with 1.
  rows = [row(0.1, 1), row(0.5, 2), row(0.0, 3)]
  assert agreement(rows)["share"] == pytest.approx(1 / 3)
  # Equal proxies count half; equal gold, other prompts, steps, no reward: not at all.
  rows = [row(0.1, 1), row(0.1, 2), row(0.7, 2), row(None, 5)]
  rows += [row(9.0, 0, prompt="q"), row(-9.0, 9, step=2)]
  found = agreement(rows)
  assert (found["share"], found["n"]) == (0.75, 2)
  assert agreement([row(0.1, 1), row(0.9, 1)]) is None


def test_agreement_is_resampled_by_prompt():
  # Of 40 prompts half agree in all pairs and half in none: as wide as 40 coins.
  rows = [
    row(x * (1 if k % 2 else -1), x, prompt=str(k)) for k in range(40) for x in range(4)
  ]
  found = agreement(rows)
  assert (found["share"], found["n"]) == (0.5, 240)
  half = 1.96 * (0.25 / 40) ** 0.5
  assert found["high"] - found["low"] == pytest.approx(2 * half, abs=0.04)


def test_dimensions_stand_at_both_ends():
  rows = [row(0.1, 1), row(0.3, 2), row(0.9, 4, step=2), row(0.7, 3, step=2)]
  (found,) = report_proxy.dimensions(rows)
  assert found["name"] == "coherence"
  assert found["proxy"] == pytest.approx([0.2, 0.8])
  assert found["gold"] == [1.5, 3.5]
  assert [part["share"] for part in found["agreement"]] == [1.0, 1.0]
  rows = [r | {"reward": {"accuracy": 1.0}} for r in rows]
  assert report_proxy.dimensions(rows) == []


def test_gold_gain_is_paired_by_prompt():
  # p: (1 + 3) / 2 → 4, q: 1 → 3: both gain 2, so the interval is that point.
  rows = [row(0, 1, step=0), row(0, 3, step=0), row(0, 1, step=0, prompt="q")]
  rows += [row(0, 9, step=5, prompt="q")]  # between the first and the last step
  rows += [row(0, 4, step=9), row(0, 3, step=9, prompt="q")]
  found = report_proxy.gold_gain(rows)
  point = {"gain": 2.0, "low": 2.0, "high": 2.0}
  assert found == {"start": 1.5, "end": 3.5, **point, "sign": "up"}


@pytest.mark.parametrize(
  ("low", "high", "gold", "words"),
  [
    (0.1, 0.2, "up", "Its own objective rose, and so did gold."),
    (0.1, 0.2, "down", "Its own objective rose, gold fell."),
    (0.1, 0.2, "unclear", "Its own objective rose, gold did not clearly move."),
    (-0.1, 0.2, "unclear", "Neither its own objective nor gold clearly moved."),
    (-0.2, -0.1, "down", "Its own objective fell, and so did gold."),
  ],
)
def test_what_moved(low, high, gold, words):
  objective = {"gain": 0.0, "low": low, "high": high}
  assert report_proxy.moved(objective, {"sign": gold}) == words


def test_an_objective_without_rewards_moves_nowhere():
  objective = {"gain": None, "low": None, "high": None}
  text = report_proxy.moved(objective, {"sign": "up"})
  assert text == "No reply had a reward; gold rose."
