"""The whole command on a world of tones: runs, failures, and tables of the rest."""

import json
import os

import pytest

from configs import ablate
from stepaudio_jax import logs
from stepaudio_jax.ablate import command
from tests import tones

DIMENSIONS = ("correctness", "acoustic_grounding", "instruction", "naturalness")
DIMENSIONS += ("emotional_continuity", "coherence")


def recipe(world):
  c = ablate.get_config("smoke")
  c.init, c.reward_model = str(world / "sft"), str(world / "rm")
  c.prompts, c.cache = str(world / "prompts-{split}.jsonl"), str(world / "cache")
  c.world.data = ""
  small = ("size=init", "data.max_tokens=64", "sampling.max_new_tokens=12")
  c.overrides += (
    *small,
    "sampling.max_think_tokens=3",
    "prompts_per_step=2",
    "heldout.batch_size=2",
  )
  c.offline.questions = (*c.offline.questions, "correctness_x1")
  return c


@pytest.mark.slow
def test_runs_in_pairs_then_saved_replies(tmp_path, monkeypatch):
  world = tones.world(tmp_path)
  tones.policy(world / "sft")
  tones.reward_model(world / "rm", DIMENSIONS)
  c, workdir = recipe(world), tmp_path / "ablation"
  # The first start finds no reward model for seed 1: those runs fail, seed 0's stay.
  broken = recipe(world)
  broken.seeds = (0,)
  command.run(broken, workdir)
  os.rename(world / "rm" / "model.json", world / "model.json")
  with pytest.raises(command.Failed, match=r"2 of 4 jobs failed: \['all-seed-1', 'wi"):
    command.run(c, workdir)
  told = (workdir / "ablation.md").read_text()
  assert "FAILED, and in no table: all-seed-1, without_correctness-seed-1." in told
  assert "Seeds of complete pairs: 0." in told
  os.rename(world / "model.json", world / "rm" / "model.json")
  before = (workdir / "jobs" / "all-seed-0.log").read_text()
  found = json.loads(command.run(c, workdir).read_text())
  assert (workdir / "jobs" / "all-seed-0.log").read_text() == before  # not done again
  assert {one["state"] for one in found["runs"].values()} == {"done"}
  effects = found["questions"]["without_correctness"]["effects"]
  assert effects["seeds"] == [0, 1]
  one = effects["metrics"]["reward/correctness"]
  by_hand = [by_prompts(workdir, seed) for seed in (0, 1)]
  assert [*one["by_seed"].values()] == pytest.approx(by_hand, abs=1e-6)
  same = found["questions"]["correctness_x1"]["offline"]
  assert same["cosine"]["mean"] == pytest.approx(1.0)
  assert same["spearman"]["mean"] == pytest.approx(1.0)
  assert found["offline"]["agreement"] < 1e-3
  assert found["offline"]["whole"] == c.weights.to_dict()
  assert found["offline"]["moved"] == pytest.approx(0, abs=1e-3)  # the first step alone


def by_prompts(workdir, seed):
  """Difference of the prompts' mean rewards at the end, read once more."""
  sides = []
  for name in ("all", "without_correctness"):
    rows = logs.read_metrics(workdir / "runs" / name / f"seed-{seed}/heldout.jsonl")
    last = max(row["step"] for row in rows)
    kept: dict = {}
    for row in rows:
      if row["step"] == last and row["reward"]["correctness"] is not None:
        kept.setdefault(row["prompt_id"], []).append(row["reward"]["correctness"])
    sides.append({key: sum(x) / len(x) for key, x in kept.items()})
  both = {*sides[0]} & {*sides[1]}
  return sum(sides[1][key] - sides[0][key] for key in both) / max(len(both), 1)
