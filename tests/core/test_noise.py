"""Noise of rewards where raters see no difference: planted, by hand, and on disk."""

import json
import math

import numpy as np
import pytest

from stepaudio_jax.core import noise


def test_by_hand():
  # 30 tied pairs with gaps ±1, 1.5 and 5, ten of each: the median is 1.5, and one
  # reward's noise 1.5 / .6745 / √2; mean square (1 + 2.25 + 25) / 3.
  gap_N = np.array([1, -1.5, 5] * 10 + [100, 100, -100], np.float32)
  label_N = np.array([0.4, -0.4, 0.0] * 10 + [0.5, -0.5, np.nan])
  found = noise.measured(gap_N, label_N, [str(k) for k in range(33)])
  assert found["pairs"] == 30
  assert found["std"] == pytest.approx(1.5 / 0.67449 / math.sqrt(2), rel=1e-4)
  assert found["rms"] == pytest.approx(math.sqrt(28.25 / 3 / 2))
  assert found["low"] <= found["std"] <= found["high"]
  few = noise.measured(gap_N[1:], label_N[1:], [str(k) for k in range(32)])
  assert few == {"pairs": 29, "std": None, "low": None, "high": None, "rms": None}


def test_planted_noise_is_found_and_gross_errors_do_not_decide():
  rng = np.random.default_rng(0)
  true_N = rng.choice([-2.0, 0.0, 2.0], size=900)
  reward_N2 = np.stack([np.zeros(900), true_N], 1) + 0.3 * rng.normal(size=(900, 2))
  gap_N = reward_N2[:, 1] - reward_N2[:, 0]
  tied_N = np.flatnonzero(true_N == 0)
  gap_N[tied_N[:8]] += 6.0  # of some 300 that raters call equal
  found = noise.measured(gap_N, true_N, [str(k // 3) for k in range(900)])
  assert found["low"] < 0.3 < found["high"]
  assert found["std"] == pytest.approx(0.3, rel=0.15)
  assert found["rms"] > 0.7


def test_pairs_of_one_dialogue_are_resampled_together():
  rng = np.random.default_rng(1)
  gap_N = np.repeat(rng.normal(size=40), 10)
  apart = noise.measured(gap_N, np.zeros(400), [str(k) for k in range(400)])
  together = noise.measured(gap_N, np.zeros(400), [str(k // 10) for k in range(400)])
  assert apart["std"] == together["std"]
  width = {key: x["high"] - x["low"] for key, x in (("a", apart), ("t", together))}
  assert width["t"] > 2 * width["a"]


def entries(**stds):
  return {name: {"pairs": 40, "std": std} for name, std in stds.items()}


def test_what_was_written_is_read(tmp_path):
  noise.write(tmp_path, 7, "pairs.jsonl", entries(a=0.1, b=0.2, c=None))
  assert noise.read(tmp_path, 7, ["b", "a"]) == {"b": 0.2, "a": 0.1}
  row = json.loads((tmp_path / noise.FILE).read_text())
  assert row["data"] == "pairs.jsonl"
  for step, names, message in (
    (8, ["a"], "is of step 7, not of 8; measure it with python -m"),
    (7, ["c", "d"], r"no noise of {'c': 40, 'd': 'absent'}.*it has {'a': 0.1"),
  ):
    with pytest.raises(ValueError, match=message):
      noise.read(tmp_path, step, names)
  with pytest.raises(ValueError, match=r"no .*noise.json .*--benchmark reward_model"):
    noise.read(tmp_path / "other", 7, ["a"])
