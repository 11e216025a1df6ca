"""Numbers of hand-made items, worked by hand."""

import pytest

from stepaudio_jax.evals.parts import intervals, totals

METRICS = {"accuracy": None}


def item(name, score, condition="audio", **more):
  base = {"id": name, "sample": 0, "condition": condition, "budget": None}
  base |= {"failed": None, "score": score, "metrics": {"accuracy": score}}
  base |= {"groups": {"task": "t" + name[0]}, "extracted": None, "think_tokens": 4}
  return base | {"choices": ["x", "y", "z", "w"]} | more


def test_failed_and_unparsed_count_as_wrong_and_are_told():
  rows = [item("a1", 1.0), item("a2", 0.0), item("b1", None)]
  rows.append(item("b2", None, failed="too long"))
  got = totals.summary(rows, METRICS, 1)
  accuracy = got["metrics"]["accuracy"]
  assert (got["n"], got["n_failed"], got["n_unparsed"]) == (4, 1, 1)
  assert (accuracy["mean"], accuracy["answered"]) == (0.25, 0.5)
  assert (accuracy["low"], accuracy["high"]) == intervals.wilson(1, 4)
  assert got["groups"]["task"]["tb"]["metrics"]["accuracy"]["mean"] == 0
  assert got["chance"] == 0.25
  assert (got["official"], got["samples"], got["budgets"]) == (None, None, None)


def test_parts_of_a_point_have_a_bootstrap_interval():
  values = [0.5, 1.0, 0.25]
  rows = [item(f"a{n}", value) for n, value in enumerate(values)]
  got = totals.metric(rows, "accuracy")
  assert got["mean"] == pytest.approx(1.75 / 3)
  assert (got["low"], got["high"]) == intervals.bootstrap(values)


def test_what_is_lost_without_the_sound_goes_item_by_item():
  heard = [item("a1", 1.0), item("a2", 1.0), item("b1", 0.0), item("b2", None)]
  quiet = [item("a1", 0.0, "silence"), item("a2", 1.0, "silence")]
  quiet += [item("b1", 1.0, "silence"), item("b2", 0.0, "silence")]
  got = totals.summary([*heard, *quiet], METRICS, 1)["conditions"]["silence"]
  # Lost: 1, 0, −1 and 0; none on average.
  low, high = intervals.bootstrap([1.0, 0.0, -1.0, 0.0])
  assert got["drop"] == {"mean": 0.0, "low": low, "high": high, "n": 4}
  means = {k: one["mean"] for k, one in got["group_drops"]["task"].items()}
  assert means == {"ta": 0.5, "tb": -0.5}
  assert got["metrics"]["accuracy"]["mean"] == 0.5


def test_what_could_not_be_asked_has_lost_nothing():
  heard = [item("a1", 1.0), item("a2", 1.0), item("b1", 1.0)]
  too_long = {"failed": "too long"}
  control = [item("a1", 1.0, "swapped"), item("a2", 0.0, "swapped")]
  control += [item("b1", None, "swapped", **too_long)]
  got = totals.summary([*heard, *control], METRICS, 1)["conditions"]["swapped"]
  assert (got["drop"]["mean"], got["drop"]["n"]) == (0.5, 2)
  assert got["group_drops"]["task"]["tb"] is None
  assert (got["n_failed"], got["metrics"]["accuracy"]["mean"]) == (1, 1 / 3)
  # The same where only the sound itself could not be heard.
  heard[2] = item("b1", None, **too_long)
  control[2] = item("b1", 1.0, "swapped")
  got = totals.summary([*heard, *control], METRICS, 1)["conditions"]["swapped"]
  assert got["drop"]["mean"] == 0.5


def test_one_item_that_lost_is_no_proof_that_the_group_hears():
  rows = [item("a1", 1.0), item("b1", 1.0), item("b2", 0.0)]
  rows += [
    {**row, "condition": "silence", "metrics": {"accuracy": 0.0}} for row in rows
  ]
  drops = totals.summary(rows, METRICS, 1)["conditions"]["silence"]["group_drops"]
  assert drops["task"]["ta"]["mean"] == 1.0
  assert drops["task"]["ta"]["low"] < 0


def test_thoughts_of_one_token_are_no_share():
  rows = [item(f"a{n}", 1.0, think_tokens=1) for n in range(3)]
  assert totals.summary(rows, METRICS, 1)["thinking"]["low"] == 1


def test_several_samples_are_one_item():
  rights = {"a1": [1, 0, 0, 0], "a2": [1, 1, 1, 1], "b1": [0, 0, 0, 0]}
  rows = [
    item(name, float(value), sample=sample, extracted="right" if value else "wrong")
    for name, values in rights.items()
    for sample, value in enumerate(values)
  ]
  got = totals.summary(rows, METRICS, 4)
  assert (got["n"], got["metrics"]["accuracy"]["n"]) == (3, 3)
  assert got["metrics"]["accuracy"]["mean"] == pytest.approx((0.25 + 1 + 0) / 3)
  # pass@2 of one right in four: 1 − C(3,2) / C(4,2) = 1 − 3/6.
  means = {k: one["mean"] for k, one in got["samples"]["pass"].items()}
  assert means == {
    "1": pytest.approx(1.25 / 3),
    "2": pytest.approx(1.5 / 3),
    "4": pytest.approx(2 / 3),
  }
  # Three say "wrong" of a1, so only a2's majority is right.
  assert got["samples"]["majority"]["mean"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
  ("said", "wanted"),
  [
    ([("A", 1.0), ("b", 0.0), ("B ", 0.0)], 0.0),  # case and spaces do not count
    ([("A", 1.0), ("B", 0.0)], 1.0),  # of equals the one said first
    ([(None, None), (None, None), ("A", 1.0)], 1.0),  # what is unparsed has no vote
    ([(None, None)], 0.0),
  ],
)
def test_majority(said, wanted):
  rows = [item("a1", score, extracted=answer) for answer, score in said]
  assert totals.majority(rows, "accuracy") == wanted


def test_thinking_is_counted_budget_by_budget():
  rows = [item("a1", 1.0), item("a1", 0.0, budget=2, think_tokens=2)]
  rows += [item("a2", 1.0, think_tokens=8), item("a2", 1.0, budget=2, think_tokens=1)]
  got = totals.summary(rows, METRICS, 1)
  assert got["metrics"]["accuracy"]["mean"] == 1.0
  assert got["thinking"]["mean"] == 6
  (budget,) = got["budgets"]
  assert (budget["budget"], budget["think_tokens"]["mean"]) == (2, 1.5)
  assert budget["metrics"]["accuracy"]["mean"] == 0.5
