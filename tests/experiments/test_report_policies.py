"""Paired differences between policies, and that the words claim no more than those."""

import numpy as np
import pytest

from experiments import report_policies as policies
from experiments import report_verdict

LEVEL = "no clear difference"


def rows(scores, right=None):
  right = right or [True] * len(scores)
  return {
    f"d{k}": {
      "id": f"d{k}",
      "condition": "audio",
      "correct": right[k],
      "scores": {} if score is None else {"a": score, "b": 3.0},
    }
    for k, score in enumerate(scores)
  }


def part(mean, low, high):
  found = {"mean": mean, "low": low, "high": high}
  return found | {"sign": policies.sign(found)}


def test_difference_is_paired():
  # First − second is 1 everywhere, though the policies' own scores spread widely.
  spread = [1.0, 2.0, 3.0, 4.0] * 5
  first, second = rows([x + 1 for x in spread]), rows(spread)
  found = policies.difference(first, second, policies.dimension("a"))
  assert found == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 20, "sign": "up"}
  found = policies.difference(second, first, policies.mean_gold)
  assert (found["mean"], found["sign"]) == (-0.5, "down")  # half of the mean of two


def test_difference_has_the_standard_error_of_the_pairs():
  gaps = np.random.default_rng(7).normal(0.1, 1.0, 400)
  found = policies.difference_of(gaps.tolist())
  error = gaps.std() / 20
  assert found["low"] == pytest.approx(gaps.mean() - 1.96 * error, abs=0.02)
  assert found["high"] == pytest.approx(gaps.mean() + 1.96 * error, abs=0.02)


def test_an_item_that_was_not_asked_is_wrong_but_has_no_gold():
  first = rows([5.0, None], [True, None])
  second = rows([1.0, 1.0], [True, True])
  gold = policies.difference(first, second, policies.dimension("a"))
  assert (gold["mean"], gold["n"]) == (4.0, 1)
  right = policies.difference(first, second, policies.right)
  assert (right["mean"], right["n"]) == (-0.5, 2)


@pytest.mark.parametrize(
  ("low", "high", "sign"),
  [(0.1, 0.3, "up"), (-0.3, -0.1, "down"), (-0.1, 0.2, "unclear"), (0, 0.2, "unclear")],
)
def test_an_interval_that_holds_zero_has_no_sign(low, high, sign):
  assert policies.sign({"low": low, "high": high}) == sign


@pytest.mark.parametrize(
  ("gold", "right", "title"),
  [
    ("up", "up", "RLHF scores higher and is right more often."),
    ("down", "down", "RLVR scores higher and is right more often."),
    ("up", "down", "RLHF scores higher, RLVR is right more often."),
    ("up", "unclear", f"RLHF scores higher; accuracy shows {LEVEL}."),
    ("unclear", "up", f"RLHF is right more often; gold scores show {LEVEL}."),
    ("unclear", "unclear", f"RLHF or RLVR: this run shows {LEVEL}."),
  ],
)
def test_titles(gold, right, title):
  assert report_verdict.title(gold, right) == title


def differences(gold, right=(0.0, -0.1, 0.1)):
  """All comparisons alike, but the arms' with the SFT start, which `gold` lists."""
  return [
    {"pair": pair, "gold": part(*g), "right": part(*right)}
    for pair, g in zip(policies.PAIRS, gold, strict=True)
  ]


def test_sentences():
  up, down, level = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.0, -0.1, 0.1)
  found = report_verdict.verdict(differences([up, level, up, up, down], up), {})
  assert found["title"] == "RLHF scores higher and is right more often."
  assert found["lines"][0] == (
    "RLHF against RLVR: +0.20 on the gold mean (+0.10 to +0.30), +20.0 points of "
    "accuracy (+10.0 to +30.0)."
  )
  assert found["lines"][1].endswith("; the first interval holds zero.")
  assert found["lines"][2] == (
    "On the gold mean, RLVR and RLVR with KL are above the SFT start; RLHF is below "
    "the SFT start."
  )
  assert "was not measured" in found["lines"][3]
  found = report_verdict.verdict(differences([level] * 5), {})
  assert found["title"] == "RLHF or RLVR: this run shows no clear difference."
  assert found["lines"][0].endswith("; both intervals hold zero.")
  found = report_verdict.verdict(differences([up] * 5), {})
  assert found["lines"][0].endswith("; the second interval holds zero.")


def test_hearing_needs_a_control():
  task = {"silence": {"n": 1}, "beats_silence": True}
  deaf, alone = task | {"beats_silence": False}, task | {"silence": None}
  assert "hears on 1 of 2 tasks (a b)" in report_verdict.hearing(
    {"a_b": task, "c": deaf, "d": alone}
  )
  assert "does not hear" in report_verdict.hearing({"c": deaf})
  assert "was not measured" in report_verdict.hearing({"d": alone})


def test_policies_that_were_asked_other_dialogues_are_an_error():
  asked = {name: [*rows([1.0, 2.0]).values()] for name in policies.POLICIES}
  assert [*policies.heard(asked)["rlhf"]] == ["d0", "d1"]
  asked["rlhf"] = asked["rlhf"][:1]
  with pytest.raises(ValueError, match=r"rlhf and sft were not asked the same: .'d1'"):
    policies.heard(asked)
