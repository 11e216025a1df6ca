"""Warnings of a run: each fires where its hazard is planted, and only there."""

import json
import math
import types

import numpy as np
import pytest

from stepaudio_jax.rollout import watch
from stepaudio_jax.rollout.scorer import Scores
from stepaudio_jax.rollout.watch import Limits, Watch

GROUP, PROMPTS, STEPS = 8, 4, 12
LIMITS = {"window": 5, "no_spread": 0.9, "length_rho": 0.3, "entropy": 0.2, "kl": 0.5}
OFF = dict.fromkeys(LIMITS, 0) | {"window": 5}
NAMES = ("accuracy", "honest", "verbose", "logged")


def drawn(step, bias=2.0):
  """Lengths, rewards without and with a bias to length, and one of weight 0."""
  rng = np.random.default_rng(step)
  tokens_B = rng.integers(5, 50, size=PROMPTS * GROUP)
  noise_BC = rng.normal(size=(PROMPTS * GROUP, len(NAMES))).astype(np.float32)
  noise_BC[:, 2] += bias * tokens_B / 10
  noise_BC[:, 3] += 5 * tokens_B
  noise_BC[rng.random(noise_BC.shape) < 0.05] = np.nan
  weight_BC = np.ones_like(noise_BC) * np.float32([1, 1, 0.1, 0])
  rollout = types.SimpleNamespace(count_B=tokens_B)
  scores = Scores(NAMES, noise_BC, weight_BC)
  return types.SimpleNamespace(scores=scores, rollout=rollout, samples=GROUP)


def values(**given):
  known = {"train/entropy": 1.0, "train/kl_k3": 0.1}
  known |= {f"reward/{name}/no_spread": 0.2 for name in NAMES}
  return known | {name.replace("__", "/"): value for name, value in given.items()}


def watched(told=values, bias=2.0, limits=LIMITS, steps=STEPS):
  """(logged values of the steps, warnings)."""
  watcher = Watch(Limits(**limits), NAMES[1:])
  found = [watcher.look(k, drawn(k, bias), told()) for k in range(1, steps + 1)]
  return [one for one, _ in found], [row for _, rows in found for row in rows]


def test_a_planted_length_bias_is_warned_of_once_and_no_other():
  logged, rows = watched()
  assert [(row["kind"], row["name"]) for row in rows] == [("length", "verbose")]
  assert rows[0]["step"] == math.ceil(watch._LEAST_GROUPS / PROMPTS)
  assert "reward 'verbose' goes with the length of the reply: ρ +0." in rows[0]["text"]
  last = logged[-1]
  assert last["reward/verbose/length_rho_low"] > 0.3
  low, high = (last[f"reward/honest/length_rho_{end}"] for end in ("low", "high"))
  assert -0.3 < low < last["reward/honest/length_rho"] < high < 0.3
  assert 0 < last["reward/objective/length_rho_low"] < 0.3  # some of it, not enough
  assert last["reward/logged/length_rho"] > 0.95  # told, but nobody trains on it
  assert "reward/accuracy/length_rho" not in last  # a rule
  assert [one["reward/warnings"] for one in logged] == [0, 0] + [1] * 10


def test_an_unbiased_reward_is_not_warned_of():
  assert watched(bias=0.0)[1] == []


def test_a_bias_to_short_replies_is_one_too():
  (row,) = watched(bias=-2.0)[1]
  assert row["value"] < -0.3


def test_a_reward_that_says_nothing_for_a_window_is_dead():
  ends = iter([0.95] * 3 + [0.8] + [0.95] * 8)
  flat = lambda: values(reward__honest__no_spread=next(ends))  # noqa: E731
  _, rows = watched(flat, bias=0.0)
  assert [(row["kind"], row["name"]) for row in rows] == [("dead", "honest")]
  assert rows[0]["step"] == 9  # three, a break, and then five
  assert "reward 'honest' is dead: in 95% of the groups" in rows[0]["text"]
  _, rows = watched(lambda: values(reward__logged__no_spread=1.0), bias=0.0)
  assert rows == []  # of weight 0


def test_lost_entropy_and_a_kl_that_runs_off():
  # Entropy 1 for the first window and .1 from then on: the mean of five falls below .2
  # when all five are .1 (four: .28), at step 10. KL .1, then 1.1: the mean of five is
  # above ½ with three of them, at step 8.
  entropies, kls = iter([1.0] * 5 + [0.1] * 7), iter([0.1] * 5 + [1.1] * 7)

  def told():
    return values(train__entropy=next(entropies), train__kl_k3=next(kls))

  _, rows = watched(told, bias=0.0)
  assert [(row["kind"], row["step"]) for row in rows] == [("kl", 8), ("entropy", 10)]
  assert "0.1 nats per token, 10% of the 1 of" in rows[1]["text"]


def test_zero_turns_each_off():
  bad = values(train__entropy=0.0, train__kl_k3=9.0, reward__honest__no_spread=1.0)
  assert watched(lambda: bad, limits=OFF)[1] == []


def test_a_resumed_run_says_the_same():
  def run(stop):
    ends = iter([1.0] * 5 + [0.1] * 7)
    watcher, out = Watch(Limits(**LIMITS), NAMES[1:]), []
    for k in range(1, STEPS + 1):
      out.append(watcher.look(k, drawn(k), values(train__entropy=next(ends))))
      if k == stop:
        state = json.loads(json.dumps(watcher.state()))
        watcher = Watch(Limits(**LIMITS), NAMES[1:])
        watcher.load(state)
    return out

  whole = run(0)
  assert sum(len(rows) for _, rows in whole) == 2
  for stop in (1, 4, 7):
    assert repr(run(stop)) == repr(whole)  # NaN is not equal to itself


@pytest.mark.parametrize(
  ("key", "value"),
  [("window", 0), ("no_spread", 1.0), ("length_rho", -0.1), ("entropy", 2.0)],
)
def test_impossible_limits_are_refused(key, value):
  with pytest.raises(ValueError, match=f"{key}={value}.*log.warn.window is at least 1"):
    Limits(**LIMITS | {key: value})
