"""The best of n, by enumeration."""

import itertools
import math

import numpy as np
import pytest

from stepaudio_jax.evals.rewards import best


def enumerated(proxy_M, gold_M, n):
  """Mean proxy and gold of the best, over all subsets; equal ones share their gold."""
  found = []
  for some in itertools.combinations(range(len(proxy_M)), n):
    most = max(proxy_M[k] for k in some)
    tied = [gold_M[k] for k in some if proxy_M[k] == most]
    found.append((most, np.mean(tied)))
  return np.mean(found, axis=0)


@pytest.mark.parametrize("ties", [False, True])
def test_the_estimator_is_the_mean_over_all_subsets(ties):
  rng = np.random.default_rng(0)
  proxy_M = rng.integers(0, 3, 7).astype(float) if ties else rng.normal(size=7)
  gold_M = rng.normal(size=7)
  best_2N = best.curve(proxy_M, gold_M)
  for n in range(1, 8):
    assert best_2N[:, n - 1] == pytest.approx(enumerated(proxy_M, gold_M, n))


def test_weights_count_every_subset_once():
  np.testing.assert_allclose(best.weights(9).sum(axis=0), 1)
  assert best.kl(1) == 0
  assert best.kl(4) == pytest.approx(math.log(4) - 0.75)


def test_a_proxy_that_is_gold_gains_and_one_against_it_loses():
  rng = np.random.default_rng(1)
  gold_PM = rng.normal(size=(200, 4))
  for sign in (1, -1):
    told = best.entry({str(p): (sign * gold, gold) for p, gold in enumerate(gold_PM)})
    points = told["points"]
    assert [point["n"] for point in points] == [1, 2, 3, 4]
    assert points[0]["gold"]["value"] == pytest.approx(gold_PM.mean())
    assert points[0]["gold"]["gain"]["value"] == 0
    # The mean of the largest of 4 normal numbers is 1.029.
    assert points[3]["gold"]["value"] == pytest.approx(sign * 1.029, abs=0.12)
    gain = points[3]["gold"]["gain"]
    assert min(sign * gain["low"], sign * gain["high"]) > 0.8
    assert points[3]["proxy"]["gain"]["low"] > 0.8


def test_a_curve_is_of_the_prompts_that_have_all_of_it():
  few, many = ([0.0, 1.0], [0.0, 1.0]), ([0.0, 1.0, 2.0], [5.0, 5.0, 5.0])
  told = best.entry({"a": few, "b": many, "c": many})
  assert (told["prompts"], told["candidates"], len(told["points"])) == (2, 6, 3)
  assert [point["gold"]["value"] for point in told["points"]] == [5.0, 5.0, 5.0]
  assert best.entry({"a": ([1.0], [1.0])}) is None
  assert best.entry({}) is None


def row(task, texts, rewards, marks):
  return {
    "task_id": task,
    "candidates": [{"text": text, "think": None} for text in texts],
    "dimensions": {"overall": {"reward": rewards, "marks": marks}},
  }


def test_candidates_of_a_dialogue_are_its_different_replies():
  items = [
    row("t", ["a", "b"], [1.0, 2.0], [3.0, 4.0]),
    row("t", ["b", "c"], [2.0, 0.5], [4.0, 1.0]),
    row("u", ["a", "b"], [1.0, 2.0], None),
  ]
  assert best.groups(items, "overall") == {"t": ([1.0, 2.0, 0.5], [3.0, 4.0, 1.0])}
  assert best.chosen(["naturalness", "overall"]) == "overall"
  assert best.chosen(["naturalness", "coherence"]) == "naturalness"
