"""Runs in pairs: differences by hand, what is missing, tables and pictures."""

import json

import numpy as np
import pytest

from stepaudio_jax.ablate import arms, pages, questions, runs, tables
from tests import tones

WEIGHTS = {"correctness": 2.0, "naturalness": 1.0}


def arm(name, seed, folder):
  asked = questions.question(name, WEIGHTS, ())
  return arms.Arm(asked, seed, folder / name / str(seed), {})


def heldout(prompt, step, correctness, naturalness, tokens=10.0):
  reward = {"correctness": correctness, "naturalness": naturalness}
  row = {"step": step, "prompt_id": prompt, "reward": reward, "tokens": tokens}
  return row | {"kl": 0.1, "entropy": 0.2}


def test_a_run_is_what_it_ended_with(tmp_path):
  """Means over a prompt's replies at the last step; what is missing is no number."""
  rows = [heldout("a", 0, 9, 9), heldout("a", 4, 1, 0), heldout("a", 4, 3, 1)]
  rows += [heldout("b", 4, None, 2), heldout("b", 4, 5, 4)]
  tones.write(tmp_path / "heldout.jsonl", rows)
  found = runs.measured(tmp_path, WEIGHTS)
  assert found["reward/correctness"] == {"a": 2.0, "b": 5.0}
  assert found["reward/naturalness"] == {"a": 0.5, "b": 3.0}
  assert found["objective"] == {"a": (2 + 7) / 2, "b": 14.0}
  assert found["tokens"] == {"a": 10.0, "b": 10.0}
  assert "gold/mean" not in found


def test_gold_counts_unread_answers_as_wrong_and_leaves_out_failures(tmp_path):
  tones.write(tmp_path / "heldout.jsonl", [heldout("a", 1, 1, 1)])
  folder = tmp_path / arms.EVALUATION
  folder.mkdir()
  item = {"condition": "audio", "failed": None, "scores": {"warm": 1.0, "true": 4.0}}
  items = [
    item | {"id": "x", "correct": True},
    item | {"id": "y", "correct": None},
    item | {"id": "z", "correct": None, "failed": "too long", "scores": {}},
    item | {"id": "x", "correct": False, "condition": "silence"},
  ]
  tones.write(folder / "world.items.jsonl", items)
  assert "gold/mean" not in runs.measured(tmp_path, WEIGHTS)  # not finished
  (folder / "world.json").write_text("{}")
  found = runs.measured(tmp_path, WEIGHTS)
  assert found["gold/accuracy"] == {"x": 1.0, "y": 0.0}
  assert found["gold/mean"] == {"x": 2.5, "y": 2.5}
  assert found["gold/warm"] == {"x": 1.0, "y": 1.0}


def test_differences_are_paired_by_seed_and_prompt(tmp_path):
  """Seed 0: 1 and 3 (mean 2); seed 1: 4 alone, for b lacks; seed 2 has no pair."""
  control = [arm("all", s, tmp_path) for s in range(3)]
  other = [arm("without_correctness", s, tmp_path) for s in range(3)]
  found = {
    "all-seed-0": {"m": {"a": 1.0, "b": 1.0}},
    "without_correctness-seed-0": {"m": {"a": 2.0, "b": 4.0}},
    "all-seed-1": {"m": {"a": 0.0, "b": float("nan")}},
    "without_correctness-seed-1": {"m": {"a": 4.0, "b": 9.0}},
    "all-seed-2": {"m": {"a": 0.0, "b": 0.0}},
  }
  effect = runs.effects(found, control, other, 400)
  assert effect["seeds"] == [0, 1]
  one = effect["metrics"]["m"]
  assert one["by_seed"] == {"0": 2.0, "1": 4.0}
  assert one["mean"] == 3.0
  half = 12.7062 * np.sqrt(2) / np.sqrt(2)  # t_0.975 of one degree of freedom, s = √2
  assert (one["low"], one["high"]) == pytest.approx((3 - half, 3 + half), rel=1e-4)
  # By prompt: a has (1 + 4)/2, b has 3; resamples of two are both, or one of them.
  assert (one["prompts"]["low"], one["prompts"]["high"]) == pytest.approx((2.5, 3.0))
  assert (one["pairs"], one["missing"]) == (3, 1)
  assert one["control"] == pytest.approx(2 / 3)
  assert one["arm"] == pytest.approx(10 / 3)


def test_no_pair_is_no_number(tmp_path):
  effect = runs.effects({}, [arm("all", 0, tmp_path)], [arm("all", 0, tmp_path)], 10)
  assert effect == {"seeds": [], "metrics": {}}


def metric(low, high):
  ends = {"low": low, "high": high}
  row = {"mean": (low + high) / 2, **ends, "smallest": 0.5, "sd": 0.1, "seeds": 3}
  row |= {"by_seed": {}, "prompts": ends, "control": 2.0, "arm": 1.0}
  return row | {"pairs": 12, "missing": 1}


@pytest.fixture
def whole():
  """An ablation with a failed run, one question trained, another only offline."""
  part = {"mean": 0.25, "low": 0.125, "high": 0.5}
  offline = dict.fromkeys(("spearman", "kendall", "best_changes", "correlation"), part)
  offline |= {"groups": 7, "flat": 1, "cosine": part, "length": 0.75}
  metrics = {"reward/correctness": metric(-0.5, -0.25), "gold/mean": metric(-0.1, 0.1)}
  metrics |= {"tokens": metric(1.0, 3.0)}
  broken = {
    "state": "failed",
    "seconds": 1.0,
    "message": "a line\ntrain: exit status 1",
  }
  done = {"state": "done", "seconds": 61.0, "message": None, "means": {"tokens": 9.0}}
  question = {"weights": WEIGHTS, "normalisation": None}
  return {
    "config": {},
    "runs": {"all-seed-0": done, "all-seed-1": broken},
    "start": {"gold/mean": 3.0},
    "offline": {
      "runs": ["r"],
      "groups": 8,
      "prompts": 4,
      "agreement": 2e-6,
      "whole": {"correctness": 2.0, "naturalness": 0.5},
      "unnamed": {"r": {"coherence": 1.5}, "s": {}},
      "moved": 0.01,
      "gradient_groups": 4,
      "gradient_steps": 1,
    },
    "questions": {
      "without_correctness": question
      | {"effects": {"seeds": [0], "metrics": metrics}, "offline": offline},
      "only_naturalness": question | {"offline": offline},
    },
  }


def test_failed_runs_and_what_chance_would_do_are_told(whole):
  told = " ".join(text for part in tables.sections(whole) for text in part["text"])
  assert "1 of 2 done." in told
  assert "FAILED, and in no table: all-seed-1." in told
  assert "all-seed-1: train: exit status 1" in told
  assert "Of 3 intervals over seeds 2 exclude 0 (*)" in told
  assert "about 0.1 would" in told or "about 0.2 would" in told


def test_what_the_whole_reward_is_is_told(whole):
  told = " ".join(text for part in tables.sections(whole) for text in part["text"])
  assert "The whole reward is correctness 2, naturalness 0.5, beside" in told
  assert "r also learnt from coherence 1.5, which weigh nothing here." in told
  assert told.count("also learnt from") == 1


def test_the_files_tell_the_same(whole, tmp_path):
  pages.write(tmp_path, whole)
  text = (tmp_path / "ablation.md").read_text()
  assert "| reward/correctness | −0.375 [−0.500, −0.250] * |" in text
  assert "| gold/mean | +0.000 [−0.100, +0.100] |" in text
  wanted = (
    "2.000 | 1.000 | −0.375 | −0.500 to −0.250 | 0.500 | −0.500 to −0.250 | 12 | 1"
  )
  assert wanted in text
  assert "0.250 [0.125, 0.500] | 0.750 |" in text
  assert json.loads((tmp_path / "ablation.json").read_text()) == whole
  page = (tmp_path / "ablation.html").read_text()
  for name in whole["questions"]:
    picture = (tmp_path / "figures" / f"{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert f"![{name}](figures/{name}.png)" in text
  assert page.count("data:image/png;base64,") == 2
  assert "−0.375 [−0.500, −0.250] *" in page
  for outside in ("http:", "https:", "<script", 'src="figures'):
    assert outside not in page
