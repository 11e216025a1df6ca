"""The policy-gradient loop: resume, what it leaves behind, and what it refuses."""

import collections
import itertools
import json
import signal

import jax
import numpy as np
import pytest

from configs import rlhf, rlvr
from stepaudio_jax import checkpoint, learner, logs, rl, steps, train_rl, workdirs
from stepaudio_jax.core import tree
from stepaudio_jax.models import sizes
from stepaudio_jax.rewards import think_format
from tests import tones


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  """Recipes say size=tiny; these tests need no more than a few thousand weights."""
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  tones.policy(folder / "other", seed=5)
  tones.reward_model(folder / "rm", ("correctness", "naturalness"))
  return folder


def wired(c, world, steps=3):
  c.init = str(world / "sft")
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.cache = str(world / "cache")
  c.data.max_tokens = 64
  c.sampling.max_new_tokens = 8
  c.prompts_per_step = 2
  # The exam has the shapes of training, and so its programs.
  c.heldout.samples, c.heldout.batch_size = c.sampling.samples, c.prompts_per_step
  c.total_steps = steps
  return c


def verifiable(world, algorithm="grpo", steps=3):
  return wired(rlvr.get_config(f"algorithm={algorithm},smoke"), world, steps)


def preferred(world, steps=3):
  c = wired(rlhf.get_config("smoke"), world, steps)
  c.reward_model = str(world / "rm")
  c.rewards.learned = {"correctness": 2.0, "naturalness": 0.0}
  c.kl.target, c.kl.horizon = 1e-3, 32  # 8 replies a step move β by up to 5 %
  c.log.warn.window = 2
  return c


def rows(workdir, name="metrics"):
  found = logs.read_metrics(workdir / f"{name}.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
  """Three steps of RLHF, undisturbed."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
    return train_rl.run(preferred(world), tmp_path_factory.mktemp("rl") / "whole")


def test_stop_and_resume_equals_never_stopped(world, finished, tmp_path):
  train_rl.run(preferred(world, steps=1), tmp_path / "run")
  train_rl.run(preferred(world), tmp_path / "run")
  for name in ("metrics", "samples", "heldout", "warnings"):
    ours, theirs = rows(tmp_path / "run", name), rows(finished, name)
    if name == "heldout":  # the short run held an exam at its end too
      ours = [row for row in ours if row["step"] != 1]
    assert ours == theirs, name
  ours, theirs = (workdirs.load_params(d) for d in (tmp_path / "run", finished))
  assert tree.content_hash(ours) == tree.content_hash(theirs)


def test_warnings_are_given_once(finished):
  """No thought of the little model closes: its reward is dead after two steps."""
  (row,) = [row for row in rows(finished, "warnings") if row["kind"] == "dead"]
  assert (row["step"], row["name"]) == (2, "correctness")
  assert [row["reward/warnings"] for row in rows(finished)] == [0, 1, 1]


def test_sigterm_saves_after_the_step(world, finished, tmp_path, monkeypatch, capsys):
  """Between checkpoints: the recipe would save after step 3 alone."""
  finite = steps.finite

  def announced(scalars, step, ids):
    signal.raise_signal(signal.SIGTERM) if step == 2 else None
    return finite(scalars, step, ids)

  before = signal.getsignal(signal.SIGTERM)
  c = preferred(world)
  c.checkpoint.every_steps = 10
  with monkeypatch.context() as patch:
    patch.setattr(steps, "finite", announced)
    with pytest.raises(SystemExit) as left:
      train_rl.run(c, tmp_path / "run")
  signal.signal(signal.SIGTERM, before)
  assert left.value.code == 0
  assert "/run is saved after step 2; the same command" in capsys.readouterr().err
  assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2]
  train_rl.run(c, tmp_path / "run")
  for name in ("metrics", "samples", "heldout"):
    assert rows(tmp_path / "run", name) == rows(finished, name), name
  ours, theirs = (workdirs.load_params(d) for d in (tmp_path / "run", finished))
  assert tree.content_hash(ours) == tree.content_hash(theirs)


def test_packed_replies_train_the_same_policy(world, finished, tmp_path):
  """Up to rounding: sums are taken in another order."""
  c = preferred(world)
  c.data.pack = True
  folder = train_rl.run(c, tmp_path / "run")
  for ours, theirs in zip(rows(folder), rows(finished), strict=True):
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
    assert ours["train/kl_k3"] == pytest.approx(theirs["train/kl_k3"], abs=1e-5)
    entropy = theirs["train/entropy"]
    assert ours["train/entropy"] == pytest.approx(entropy, rel=1e-5)


@pytest.mark.slow
def test_what_waits_in_the_hosts_memory_changes_nothing(
  world, finished, tmp_path, monkeypatch
):
  kinds = set()
  jitted = steps.jitted

  def noted(step, state):
    kinds.update(leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.opt_state))
    return jitted(step, state)

  monkeypatch.setattr(steps, "jitted", noted)
  for total in (1, 3):  # the second run restores
    c = preferred(world, total)
    c.offload = ("optimiser", "reference")
    train_rl.run(c, tmp_path / "run")
  assert "pinned_host" in kinds
  assert rows(tmp_path / "run") == rows(finished)


@pytest.mark.slow
def test_a_start_that_goes_on_training_does_not_move_the_reference(
  world, finished, tmp_path
):
  c = preferred(world, steps=1)
  c.init = str(tones.policy(tmp_path / "sft"))
  train_rl.run(c, tmp_path / "run")
  tones.saved(tmp_path / "sft", workdirs.load_params(world / "other"), step=2)
  c.total_steps = 3
  train_rl.run(c, tmp_path / "run")
  assert rows(tmp_path / "run") == rows(finished)


def test_sampler_and_trainer_agree(finished):
  for row in rows(finished):
    assert row["train/agreement_max_abs"] <= 1e-5
    assert row["train/agreement_pearson"] > 0.999


def test_samples_carry_their_rewards(finished):
  """8 replies a step (2 prompts × 4), with every dimension, and the sum by hand."""
  found = rows(finished, "samples")
  assert len(found) == 3 * 2 * 4
  assert [row["policy_version"] for row in found[::8]] == [0, 1, 2]
  for row in found:
    assert len(row["token_ids"]) == len(row["logprobs"]) == row["tokens"]
    reward = row["reward"]["correctness"]
    if row["answer"] is None:
      assert reward is None
      assert row["objective"] is None
    else:
      assert row["objective"] == pytest.approx(2 * reward, abs=1e-5)


def test_closed_thoughts_and_refilled_slots(world, finished, tmp_path):
  """The trainer reads the tokens that closed a thought, and learns none of them."""
  c = verifiable(world, steps=1)
  c.sampling.max_think_tokens, c.sampling.max_new_tokens, c.sampling.slots = 3, 12, 3
  train_rl.run(c, tmp_path)
  (row,) = rows(tmp_path)
  assert row["train/agreement_max_abs"] <= 1e-5
  assert row["train/forced_share"] > 0.5
  assert row["train/unclosed_share"] < 0.5
  forced = [reply for reply in rows(tmp_path, "samples") if "forced" in reply]
  assert len(forced) == row["train/forced_share"] * 2 * 4
  for reply in forced:
    assert reply["forced"] == [3, 4, 5, 6]
    assert reply["text"].split("\n</think>\n")[0].strip() == reply["think"]
    assert reply["logprobs"][3:7] == [0.0] * 4
    assert len(reply["token_ids"]) == len(reply["logprobs"]) == reply["tokens"] > 7
  assert "train/forced_share" not in rows(finished)[0]


def test_only_the_policy_has_moved(world, finished):
  before, after = (workdirs.load_params(d) for d in (world / "sft", finished))
  assert tree.content_hash(before["encoder"]) == tree.content_hash(after["encoder"])


def test_the_reference_stays_where_the_policy_began(world, tmp_path):
  """At the first step the policy is the reference: KL 0; later it has moved."""
  c = verifiable(world)
  c.rewards.rules.audio = {"think_format": 1.0}
  c.optim.lr = 1e-2
  train_rl.run(c, tmp_path)
  found = rows(tmp_path)
  assert found[0]["train/kl_k3"] == pytest.approx(0.0, abs=1e-9)


def test_a_critic_has_an_optimiser_and_parameters_of_its_own(world, tmp_path):
  c = verifiable(world, "ppo", steps=1)
  c.optim.lr = 0.0
  train_rl.run(c, tmp_path)
  before, after = (workdirs.load_params(d) for d in (world / "sft", tmp_path))
  for part in ("adaptor", "decoder"):  # learning rate 0: not moved by the value loss
    assert tree.content_hash(before[part]) == tree.content_hash(after[part])
  workdirs.load_model(tmp_path)  # a critic beside the policy does not disturb


def test_beta_follows_the_kl_and_is_logged(finished):
  """The policy begins at the reference: KL 0 at first, which takes 5 % off."""
  found = rows(finished)
  assert found[0]["train/kl_beta"] == 0.02
  assert found[1]["train/kl_beta"] == pytest.approx(0.019)
  for before, after in itertools.pairwise(found):
    error = min(max(before["train/kl_k3"] / 1e-3 - 1, -0.2), 0.2)
    by_hand = before["train/kl_beta"] * (1 + error * 8 / 32)
    assert after["train/kl_beta"] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", rl.names())
def test_every_algorithm_takes_a_step(world, tmp_path, monkeypatch, algorithm):
  monkeypatch.setattr(think_format, "score", lambda row, text: float(len(text) % 3))
  c = verifiable(world, algorithm, steps=1)
  c.kl.where, c.kl.beta, c.reference = "reward", 0.1, str(world / "other")
  c.rewards.overlong.buffer_tokens = 4
  train_rl.run(c, tmp_path)
  (row,) = rows(tmp_path)
  assert row["train/grad_norm"] > 0
  assert "reward/overlong/raw" in row
  before, after = (workdirs.load_params(d) for d in (world / "sft", tmp_path))
  moved = (tree.content_hash(one["decoder"]) for one in (before, after))
  assert len({*moved}) == 2


def test_epochs_and_minibatches_are_updates(world, tmp_path):
  c = verifiable(world, steps=2)
  c.epochs, c.minibatches = 2, 2
  train_rl.run(c, tmp_path)
  saved = checkpoint.Checkpoints(tmp_path, every_steps=1, keep=1)
  assert saved.latest() == 2
  saved.close()
  assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_microbatches_change_no_number(world, tmp_path):
  for parts in (1, 2):
    c = verifiable(world, steps=1)
    c.microbatches = parts
    train_rl.run(c, tmp_path / str(parts))
  whole, split = (rows(tmp_path / name)[0] for name in ("1", "2"))
  for name in ("train/loss", "train/grad_norm", "train/kl_now"):
    assert whole[name] == pytest.approx(split[name], abs=1e-6), name
  # Sampler and trainer agree in float32: what is on by default corrects nothing.
  assert whole["train/correction"] == pytest.approx(1.0, abs=1e-5)
  assert whole["train/correction_limited"] == 0


@pytest.mark.parametrize("packed", [pytest.param(False, marks=pytest.mark.slow), True])
def test_an_only_update_tells_what_a_pass_before_it_would(
  world, tmp_path, monkeypatch, packed
):
  """Two epochs need the pass; forced on, it changes nothing but rounding."""
  letters = lambda example, text: text.count("a") / 4  # noqa: E731
  monkeypatch.setattr(think_format, "score", letters)
  found = {}
  for measured in (False, True):
    c = verifiable(world, steps=2)
    c.data.pack, c.microbatches = packed, 2
    assert learner.update_measures(c)
    with pytest.MonkeyPatch.context() as patch:
      if measured:
        patch.setattr(learner, "update_measures", lambda c: False)
      train_rl.run(c, tmp_path / f"{measured}")
    found[measured] = [
      [row for row in rows(tmp_path / f"{measured}", name) if row["step"]]
      for name in ("metrics", "samples")
    ]
  ours, theirs = (dict(tree.named_leaves(x)) for x in found.values())
  assert ours.keys() == theirs.keys()
  for name, value in theirs.items():
    near = pytest.approx(value, abs=2e-4, nan_ok=True)
    assert ours[name] == (near if isinstance(value, float) else value), name
  assert found[False][0][1]["train/grad_norm"] > 0.01
  assert found[False][0][0]["train/entropy"] > 0.1
  assert 0 < found[False][0][0]["train/agreement_max_abs"] < 1e-3
  c.epochs = 2
  assert not learner.update_measures(c)


def test_heldout_prompts_are_asked_at_the_start_and_at_the_end(finished):
  found = rows(finished, "heldout")
  assert sorted({row["step"] for row in found}) == [0, 3]
  assert len({row["dialogue_id"] for row in found}) == 4
  seeds = collections.Counter(row["sample"] for row in found)
  assert seeds == dict.fromkeys(range(4), 2 * 4)  # heldout.samples, both exams
  result = json.loads((finished / "heldout.json").read_text())
  assert result["steps"] == [0, 3]
  assert result["prompts"] == 4


def changed(c, key, value):
  *folders, last = key.split(".")
  node = c
  for folder in folders:
    node = node[folder]
  with node.unlocked():
    node[last] = value
  return c


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    (
      "algorithm.name",
      "ppoo",
      r"unknown algorithm 'ppoo'; the choices are \['cispo'.*'grpo'",
    ),
    ("rewards.rules.audio.accurate", 1.0, r"'accurate'.*accuracy.*think_format"),
    ("rewards.rules.video", {"accuracy": 1.0}, r"video.*\('audio', 'text'\)"),
    ("kl.where", "rewards", r"'rewards'.*\['loss', 'reward'\]"),
    ("algorithm.clip_high", -0.1, "clip_high=-0.1"),
    ("correction.kind", "tiss", "'tiss'.*'icepop'"),
    ("kl.target", 0.1, "kl.target=0.1 with kl.beta=0"),
    ("rewards.overlong.buffer_tokens", 9, "buffer_tokens=9.*0…8"),
    ("aggregation", "mean", r"'mean'.*token_mean"),
    ("kl.estimator", "k4", r"'k4'.*k1"),
    ("minibatches", 3, "minibatches × microbatches = 3"),
    ("sampling.max_think_tokens", 4, r"=4 must be 0 \(off\) or 1 … 3: 4 tokens close"),
    ("sampling.max_think_tokens", -1, r"=-1 must be 0 \(off\) or 1"),
    ("sampling.slots", -1, "sampling.slots=-1 must be 0"),
    ("heldout.prompts", 400, "only 4 fit"),
    ("heldout.batch_size", 3, "heldout.prompts=4 one of heldout.batch_size=3"),
    ("algorithm.epsilon", 0.1, "unknown key 'algorithm.epsilon'"),
    ("rewards.learned", {"correctness": 1.0}, "need a reward_model"),
  ],
)
def test_wrong_recipes_are_refused_with_the_choices(
  world, tmp_path, key, value, message
):
  with pytest.raises(ValueError, match=message):
    train_rl.run(changed(verifiable(world), key, value), tmp_path)


def test_an_unknown_dimension_lists_those_of_the_reward_model(world, tmp_path):
  c = preferred(world)
  c.rewards.learned = {"correctness": 1.0, "charm": 1.0}
  with pytest.raises(ValueError, match=r"\['charm'\].*'correctness', 'naturalness'"):
    train_rl.run(c, tmp_path)


def test_a_reward_model_that_hears_otherwise_is_refused(world, tmp_path):
  c = preferred(world)
  c.init = str(world / "other")
  with pytest.raises(ValueError, match=r"encoder .* is not the policy's"):
    train_rl.run(c, tmp_path)


def test_policies_that_are_not_finite_stop_with_the_prompts(world, tmp_path):
  params = workdirs.load_params(world / "sft")
  params["decoder"] = jax.tree.map(np.copy, params["decoder"])
  params["decoder"]["norm"]["scale"][:] = np.nan
  c = verifiable(world)
  c.init = str(tones.saved(tmp_path / "broken", params))
  with pytest.raises(FloatingPointError, match=r"not finite on .*heldout-"):
    train_rl.run(c, tmp_path / "run")
