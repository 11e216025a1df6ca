"""Several reward models as one: by hand, in a run of RLHF, in an evaluation."""

import json

import jax
import numpy as np
import pytest

from configs import rlhf
from stepaudio_jax import logs, meshes, train_rl, workdirs
from stepaudio_jax.core import tree
from stepaudio_jax.models import heads, sizes
from stepaudio_jax.rollout import ensemble, keys
from stepaudio_jax.text import tokenizer as tokenizers
from tests import small, test_train_rl, tones
from tests.evals import test_reward_model as evaluated

folder = evaluated.folder
NAN = float("nan")


def test_disagreement_by_hand():
  # Of two replies to one prompt a says (1, 3), b (2, 8): less their means (−1, 1) and
  # (−3, 3), so 2 apart on either: 2/√2. The other prompt's replies are rated alike but
  # for a constant.
  reward = np.asarray([[1.0, 3.0, 0.0, 5.0], [2.0, 8.0, 9.0, 14.0]])
  found = ensemble.disagreement(reward, 2)
  np.testing.assert_allclose(found, [2**0.5, 2**0.5, 0.0, 0.0], atol=1e-6)
  # Alone each reply's own rewards are compared: 1, 5, 9 and 9 apart.
  alone = ensemble.disagreement(reward, 1)
  np.testing.assert_allclose(alone, np.asarray([1, 5, 9, 9]) / 2**0.5, rtol=1e-6)
  # What nobody could read is missing; the rest is compared without it.
  reward = np.asarray([[1.0, NAN, 3.0], [2.0, NAN, 8.0]])
  found = ensemble.disagreement(reward, 3)
  np.testing.assert_allclose(found, [2**0.5, NAN, 2**0.5], rtol=1e-6)


def test_the_mean_less_what_they_disagree_on():
  prompts = small.dialogue_batch(rows=1)
  members = [
    lambda prompts, texts, x=x: {"warmth": np.asarray(x, np.float32)}
    for x in ([1.0, 3.0], [2.0, 8.0])
  ]
  mean = ensemble.Ensemble(members)(prompts, [None, None])
  assert mean["warmth"].tolist() == [1.5, 5.5]
  less = ensemble.Ensemble(members, uncertainty=2.0)(prompts, [None, None])
  np.testing.assert_allclose(less["warmth"], mean["warmth"] - 2 * 2**0.5, rtol=1e-6)
  np.testing.assert_allclose(less["warmth/disagreement"], 2**0.5, rtol=1e-6)
  named = ensemble.logged({"warmth": 3.0}, "runs/a,runs/b")
  assert named == {"warmth": 3.0, "warmth/disagreement": 0.0}
  assert ensemble.logged({"warmth": 3.0}, "runs/a") == {"warmth": 3.0}
  both = {"reward_model": "runs/a", "reward_model_2": "runs/b"}
  assert ensemble.sources("runs/a, runs/b") == both
  assert ensemble.sources("") == {}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Tones, a policy, a reward model and two others: of other heads, or dimensions."""
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  names = ("correctness", "naturalness")
  tones.reward_model(folder / "rm", names)
  tones.reward_model(folder / "odd", names[::-1])
  params = workdirs.load_params(folder / "rm")
  params["rewards"] = heads.init_rewards(jax.random.key(7), tones.LITTLE.width, 2)
  tones.saved(folder / "rm2", jax.device_get(params))
  workdirs.describe_rewards(folder / "rm2", names, ())
  return folder


def reader(c, world):
  """What a run of RLHF would be rewarded by."""
  sources = ensemble.sources(c.reward_model)
  mesh = meshes.mesh({"data": 1, "fsdp": 1, "tensor": 1, "context": 1})
  encoder = workdirs.load_params(world / "sft")["encoder"]
  return train_rl.judge(c, sources, encoder, tokenizers.load("tiny"), mesh)


def test_rlhf_takes_several_reward_models_that_are_alike(world):
  c = rlhf.get_config("smoke")
  c.reward_model = f"{world / 'rm'},{world / 'rm2'}"
  c.rewards.learned = {"correctness": 2.0}
  assert isinstance(reader(c, world), ensemble.Ensemble)
  c.reward_model = f"{world / 'rm'},{world / 'odd'}"
  with pytest.raises(ValueError, match=r"odd cannot be in an ensemble.*dimensions"):
    reader(c, world)
  c.reward_model, c.rewards.uncertainty = str(world / "rm"), 0.5
  with pytest.raises(ValueError, match=r"uncertainty=0.5 .* needs learned rewards of"):
    reader(c, world)
  c.rewards.uncertainty = -1.0
  with pytest.raises(ValueError, match=r"uncertainty=-1.0: must be at least 0"):
    keys.checked(c)


@pytest.mark.slow
def test_rlhf_logs_what_its_reward_models_disagree_on(world, tmp_path, monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  c = test_train_rl.wired(rlhf.get_config("smoke"), world, steps=1)
  c.reward_model = f"{world / 'rm'},{world / 'rm2'}"
  c.rewards.learned = {"correctness": 2.0, "naturalness": 0.0}
  c.rewards.uncertainty = 0.5
  # Thoughts of random weights would never close, and nothing would be rewarded.
  c.sampling.max_think_tokens, c.sampling.max_new_tokens = 3, 12
  train_rl.run(c, tmp_path / "run")
  (row,) = test_train_rl.rows(tmp_path / "run")
  assert row["reward/correctness/disagreement/raw"] > 1e-3
  assert row["reward/correctness/disagreement/share"] == 0.0
  samples = logs.read_metrics(tmp_path / "run" / "samples.jsonl")
  rewarded = [sample for sample in samples if sample["answer"] is not None]
  assert len(rewarded) > 4
  for sample in rewarded:
    assert set(sample["reward"]) == {
      *("correctness", "naturalness"),
      *("correctness/disagreement", "naturalness/disagreement"),
    }
    weighted = 2 * sample["reward"]["correctness"]
    assert sample["objective"] == pytest.approx(weighted, rel=1e-5)
  sources = json.loads((tmp_path / "run" / "sources.json").read_text())
  assert sources["reward_model_2"].endswith("rm2/checkpoints/1")


def test_members_must_be_alike_and_named_once(world):
  found = workdirs.load_ensemble([world / "rm", world / "rm2"])
  (other,) = found.others
  assert "encoder" not in other
  theirs = workdirs.load_reward_model(world / "rm2").params["rewards"]
  assert tree.content_hash(other["rewards"]) == tree.content_hash(theirs)
  with pytest.raises(ValueError, match=r"dimensions \(\('correctness', 'naturalness'"):
    workdirs.load_ensemble([world / "rm", world / "odd"])
  assert workdirs.members("a") == ["a"]
  for text in ("a,a", "a,", ""):
    with pytest.raises(ValueError, match="folders, each named once"):
      workdirs.members(text)


def test_an_evaluation_is_of_the_mean(folder, tmp_path):
  """Of two members, whose own rewards stand beside it."""
  params = workdirs.load_params(folder / "rm")
  moved = params["rewards"]["linear"]["kernel"] + 0.5
  params["rewards"]["linear"]["kernel"] = moved
  size, tokenizer = (
    load(folder / "rm") for load in (workdirs.load_size, workdirs.load_tokenizer)
  )
  tones.saved(folder / "rm2", params)
  workdirs.describe(folder / "rm2", size, tokenizer)
  workdirs.describe_rewards(folder / "rm2", evaluated.DIMENSIONS, ("naturalness",))
  both = f"{folder / 'rm'},{folder / 'rm2'}"
  gaps = {}
  for name in (folder / "rm", folder / "rm2", both):
    out = tmp_path / str(len(gaps))
    run(name, folder, out)
    items = evaluated.items_of(out)
    gaps[str(name)] = np.asarray(
      [one["dimensions"]["overall"]["reward"] for one in items]
    )
  first, second, mean = gaps.values()
  assert np.abs(first - second).max() > 1e-2
  np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-5)
  with pytest.raises(ValueError, match=r"\['world'\] take one alone"):
    evaluated.evaluate.run(checkpoint=both, benchmarks=["world"], data=folder)


def run(checkpoint, data, out):
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(evaluated.reward_model, "plots", lambda summary: {})
    evaluated.evaluate.run(
      checkpoint=checkpoint,
      benchmarks=["reward_model"],
      data=data,
      out=out,
      limit=2,
      controls=["silence"],
      cache=data / "cache",
    )
