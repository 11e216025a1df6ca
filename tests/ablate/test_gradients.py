"""Gradients of other rewards: one forward pass for all, against the direct road."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from stepaudio_jax import learner, policy
from stepaudio_jax.ablate import gradients, questions, saved
from stepaudio_jax.core.types import Replies
from stepaudio_jax.models import sizes
from tests import ablation, tones

WEIGHTS = {"correctness": 2.0, "naturalness": 1.0}
PROMPTS = [f"train-{k}#0" for k in (0, 1, 2, 3, 1)]
SAMPLES, TOKENS = 3, 6
NAMES = ("all", "correctness_x1", "without_naturalness", "only_naturalness")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
    yield saved.load(made(tmp_path_factory.mktemp("run"), "token_mean"))


def made(folder, aggregation):
  """Five groups, two of them of one prompt; ragged replies, one reward is missing."""
  world = tones.world(folder)
  tones.policy(world / "sft")
  rng = np.random.default_rng(0)
  reward_PGC = rng.normal(size=(len(PROMPTS), SAMPLES, 2))
  reward_PGC[1, 0, 0] = np.nan
  found = ablation.rows(PROMPTS, reward_PGC, WEIGHTS)
  for one in found:
    count = int(rng.integers(2, TOKENS + 1))
    one |= {
      "token_ids": rng.integers(5, 900, count).tolist(),
      "logprobs": [-7.0] * count,
    }
  keys = {
    "data__cache": str(folder / "cache"),
    "data__options__prompts__path": str(folder / "prompts-{split}.jsonl"),
    "data__max_tokens": 64,
    "sampling__max_new_tokens": TOKENS,
    "sampling__temperature": 0.8,
    "aggregation": aggregation,
  }
  path = ablation.folder(folder / "run", found, WEIGHTS, **keys)
  ablation.pinned(path, world / "sft")
  return path


def asked(*names):
  return [questions.question(name, WEIGHTS, ("sum", "gdpo")) for name in names]


@pytest.fixture(scope="module")
def begun(run):
  return gradients.start(run)


@pytest.fixture(scope="module")
def found(run, begun):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(gradients, "start", lambda _: begun)
    return gradients.gradients([run], asked(*NAMES), 4)


def now(run, begun, step):
  """What the start says of all replies to all prompts, and the replies."""
  shape = (len(PROMPTS), SAMPLES)
  replies = Replies(
    gradients._prompts(begun.feed, step.prompts),
    step.token_BT.reshape(*shape, -1),
    step.count_B.reshape(shape),
  )
  read = functools.partial(policy.logprobs, model=begun.model, temperature=0.8)
  now_BQT = jax.jit(read)(begun.params, replies)
  return np.asarray(now_BQT).reshape(step.mask_BT.shape), replies


@pytest.fixture(scope="module")
def slope(run, begun):
  return program(run, begun)


def program(run, begun):
  """jax.grad of the trainer's own loss."""
  loss_fn = learner.policy_loss(run.config, begun.model, run.algorithm)

  def total(params, update):
    return loss_fn(params, update, jax.random.key(0))[0]

  return jax.jit(jax.grad(total))


def direct(run, begun, slope, question):
  """The gradient on all replies at once, for one question."""
  (step,) = run.steps
  experience = saved.of_question(run, step, question)
  now_BT, replies = now(run, begun, step)
  now_BT = np.where(experience.mask_BT, now_BT, 0.0)
  experience = dataclasses.replace(
    experience, old_BT=now_BT, sampler_BT=now_BT, reference_BT=now_BT
  )
  update = policy.grouped(replies, experience, 0.5)  # KL to the start: no gradient
  leaves = jax.tree.leaves(slope(begun.params, update))
  return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.parametrize("name", ["all", "only_naturalness"])
def test_the_shared_pass_is_the_direct_gradient(run, found, begun, slope, name):
  (question,) = asked(name)
  wanted_D = direct(run, begun, slope, question)
  ours_D = found.total_QD[NAMES.index(name)]
  np.testing.assert_allclose(ours_D, wanted_D, atol=2e-6 * np.abs(wanted_D).max())


def test_cosines(run, found):
  one = gradients.compared(found, asked(*NAMES), 300)
  for name in ("all", "correctness_x1"):
    assert one[name]["cosine"]["mean"] == pytest.approx(1.0)
    assert one[name]["cosine"]["low"] == pytest.approx(1.0)
    assert one[name]["length"] == pytest.approx(1.0)
  alone = one["only_naturalness"]["cosine"]
  whole_D, other_D = (found.total_QD[k].astype(np.float64) for k in (0, 3))
  by_hand = whole_D @ other_D / np.sqrt((whole_D @ whole_D) * (other_D @ other_D))
  assert alone["mean"] == pytest.approx(by_hand)
  assert alone["low"] < alone["mean"] < alone["high"] < 0.999


def test_without_any_reward_there_is_no_direction(found):
  nothing = dataclasses.replace(
    found,
    total_QD=np.zeros_like(found.total_QD[:2]),
    count_Q=np.zeros(2),
    block_KQS=np.zeros_like(found.block_KQS[:, :2]),
  )
  one = gradients.compared(nothing, asked("all", "only_naturalness"), 20)
  assert one["only_naturalness"]["cosine"]["mean"] is None
  assert one["only_naturalness"]["length"] is None


def test_a_missing_reward_masks_its_reply_where_it_counts(run, found):
  """Its tokens leave the divisor, of all questions but that which does not ask it."""
  (step,) = run.steps
  tokens = step.count_B.sum()
  lost = step.count_B[SAMPLES]  # the first reply of the second group
  assert found.count_Q.tolist() == [tokens - lost] * 3 + [tokens]


def test_blocks_add_up_and_keep_prompts_together(found):
  assert found.block_KQS.shape[0] == 4
  sketch_QS = gradients.sketched(found.total_QD)
  np.testing.assert_allclose(
    found.block_KQS.sum(0), sketch_QS, atol=1e-5 * np.abs(sketch_QS).max()
  )
  assert gradients._dealt(["a", "b", "a", "c"], 2) == {"a": 0, "b": 1, "c": 0}


def test_sketches_keep_angles():
  rng = np.random.default_rng(1)
  x_D, noise_D = rng.normal(size=(2, 300_000))
  y_D = 0.6 * x_D + 0.8 * noise_D
  one, other = gradients.sketched(np.stack([x_D, y_D]))
  exact = gradients.cosine(x_D, y_D)
  assert gradients.cosine(one, other) == pytest.approx(exact, abs=0.02)


def test_how_far_the_policies_had_moved(run, found, begun):
  """The rows say −7 of every token: the mean of −7 less what the start says."""
  (step,) = run.steps
  now_BT, _ = now(run, begun, step)
  assert found.moved == pytest.approx(-7 - now_BT[step.mask_BT].mean(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["sequence_mean_token_mean", "constant"])
def test_other_means_of_the_loss(tmp_path, monkeypatch, aggregation):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  run = saved.load(made(tmp_path, aggregation))
  (question,) = asked("all")
  begun = gradients.start(run)
  wanted_D = direct(run, begun, program(run, begun), question)
  ours_D = gradients.gradients([run], [question], 2).total_QD[0]
  np.testing.assert_allclose(ours_D, wanted_D, atol=2e-6 * np.abs(wanted_D).max())


def test_played_dialogues_and_other_starts_are_refused(run, tmp_path):
  c = run.config.copy_and_resolve_references()
  c.sampling.turns = 2
  with pytest.raises(ValueError, match=r"sampling.turns=2.*gradient_steps=0"):
    gradients.start(dataclasses.replace(run, config=c))
  rows = ablation.rows(PROMPTS[:1], [[(0, 1), (1, 0), (1, 1)]], WEIGHTS)
  other = ablation.folder(tmp_path / "run", rows, WEIGHTS)
  ablation.pinned(other, tmp_path / "elsewhere")
  with pytest.raises(ValueError, match="one start and one loss"):
    gradients.gradients([run, saved.load(other)], asked("all"), 2)


@pytest.mark.parametrize(
  ("key", "value"), [("temperature", 0.5), ("max_new_tokens", 99)]
)
def test_runs_that_drew_otherwise_have_no_common_gradient(run, key, value):
  c = run.config.copy_and_resolve_references()
  c.sampling[key] = value
  other = dataclasses.replace(run, config=c)
  with pytest.raises(ValueError, match=f"one start and one loss.*{value}"):
    gradients._check_alike([run, other])
