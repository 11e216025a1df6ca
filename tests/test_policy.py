"""Log-probabilities by two roads, and what the loss may and may not move."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepaudio_jax import policy, sampling, steps
from stepaudio_jax.core.types import Experience, Replies, TrainState
from stepaudio_jax.data import packing
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl import grpo, ppo
from stepaudio_jax.rl.parts.correction import Correction
from tests import small

MODEL = StepAudio(small.SIZE)
COPIES, LENGTH, TEMPERATURE = 3, 6, 0.7
HYPER = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}


@pytest.fixture(scope="module")
def params():
  return step_audio.init_params(jax.random.key(0), small.SIZE)


@pytest.fixture(scope="module")
def played(params):
  """Prompts, replies sampled to them at a temperature, and that temperature."""
  prompts = small.dialogue_batch(seed=2, rows=2)
  rollout = sampling.sample(
    params,
    prompts,
    jax.random.key(3),
    model=MODEL,
    max_new_tokens=LENGTH,
    stop_ids=(4, 9),
    pad_id=0,
    temperature=TEMPERATURE,
    copies=COPIES,
  )
  count_BQ = rollout.mask_BT.sum(1, dtype=jnp.int32).reshape(2, COPIES)
  token_BQT = rollout.token_BT.reshape(2, COPIES, LENGTH)
  return Replies(prompts, token_BQT, count_BQ), rollout, TEMPERATURE


def experience(rollout) -> Experience:
  shape = rollout.logprob_BT.shape
  noise_BT = 0.3 * jax.random.normal(jax.random.key(1), shape)

  def masked(x_BT):
    return jnp.where(rollout.mask_BT, x_BT, 0.0)

  return Experience(
    mask_BT=rollout.mask_BT,
    sampler_BT=rollout.logprob_BT,
    old_BT=rollout.logprob_BT,
    reference_BT=masked(rollout.logprob_BT + noise_BT),
    reward_BC=jnp.zeros((shape[0], 1)),
    weight_BC=jnp.ones((shape[0], 1)),
    value_BT=jnp.zeros(shape),
    advantage_BT=masked(jax.random.normal(jax.random.key(2), shape)),
    return_BT=masked(jnp.ones(shape)),
  )


def loss(algorithm, temperature, **options):
  hyper = HYPER | ({} if algorithm is grpo else {"value_clip": 0.2})
  known = {"estimator": "k2", "aggregation": "token_mean"} | options
  return policy.policy_loss(MODEL, algorithm, hyper, temperature=temperature, **known)


def with_critic(params):
  value = {"linear": {"kernel": jnp.ones((16, 1)), "bias": jnp.zeros(1)}}
  speaking = {part: params[part] for part in ("adaptor", "decoder")}
  return {**params, "critic": {**speaking, "value": value}}


def gradient_of(loss_fn, params, update):
  return jax.jit(jax.grad(lambda p: loss_fn(p, update, None)[0]))(params)


def norm(tree) -> float:
  return float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))


def test_log_probs_are_those_of_the_sampler(params, played):
  replies, rollout, temperature = played
  got_BQT = policy.logprobs(params, replies, model=MODEL, temperature=temperature)
  got_BT = jnp.where(rollout.mask_BT, got_BQT.reshape(-1, LENGTH), 0.0)
  assert rollout.mask_BT.sum() > 12
  np.testing.assert_allclose(got_BT, rollout.logprob_BT, atol=1e-5)


def tempered_logits(params, replies, temperature):
  """Whole logits_BQTV of the reply tokens."""
  apply = functools.partial(MODEL.apply, {"params": params})
  x_BD, x_BQTD = apply(replies, method="branches")
  first_BQ1D = jnp.broadcast_to(x_BD[:, None, None], x_BQTD[:, :, :1].shape)
  before_BQTD = jnp.concatenate([first_BQ1D, x_BQTD[:, :, :-1]], axis=2)
  flat_BTD = before_BQTD.reshape(-1, *before_BQTD.shape[2:])
  logits_BTV = apply(flat_BTD, method="logits")
  return logits_BTV.reshape(*x_BQTD.shape[:3], -1) / temperature


def test_measured_log_probs_and_entropy_by_hand(params, played):
  replies, _rollout, temperature = played
  measure = functools.partial(policy.measured, model=MODEL, temperature=temperature)
  found = measure(params, replies)
  logits = tempered_logits(params, replies, temperature)
  probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  entropy = -(probability * np.log(probability)).sum(-1)
  np.testing.assert_allclose(found.entropy_BQT, entropy, atol=1e-5)
  straight = policy.logprobs(params, replies, model=MODEL, temperature=temperature)
  np.testing.assert_allclose(found.logprob_BQT, straight, atol=1e-5)


def test_at_the_old_policy_the_gradient_is_that_of_reinforce(params, played):
  """ratio = 1: ∇loss = −Σ A ∇log π, whatever the clip; KL off."""
  replies, rollout, temperature = played
  e = experience(rollout)
  update = policy.grouped(replies, e, 0.0)
  now_BQT = policy.logprobs(params, replies, model=MODEL, temperature=temperature)
  e = dataclasses.replace(
    e, old_BT=jnp.where(e.mask_BT, now_BQT.reshape(-1, LENGTH), 0.0)
  )
  update = policy.grouped(replies, e, 0.0)
  loss_fn = loss(grpo, temperature)
  got = gradient_of(loss_fn, params, update)

  def reinforce(p):
    now_BQT = policy.logprobs(p, replies, model=MODEL, temperature=temperature)
    now_BT = now_BQT.reshape(-1, LENGTH)
    return -jnp.where(e.mask_BT, e.advantage_BT * now_BT, 0.0).sum()

  wanted = jax.jit(jax.grad(reinforce))(params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), got, wanted
  )


@pytest.mark.parametrize("algorithm", [grpo, ppo], ids=["grpo", "ppo"])
def test_a_first_update_needs_no_pass_before_it(params, played, algorithm):
  """Loss and gradient are those with the measured log-probabilities, which differ from
  the sampler's here by what the policy has learnt; what it tells is what a pass finds.
  """
  replies, rollout, temperature = played
  params = with_critic(jax.tree.map(lambda x: 1.02 * x, params))
  measure = functools.partial(policy.measured, model=MODEL, temperature=temperature)
  known = measure(params, replies)
  e = experience(rollout)
  old_BT = jnp.where(e.mask_BT, known.logprob_BQT.reshape(-1, LENGTH), 0.0)
  assert np.abs(old_BT - e.old_BT).max() > 0.01
  told = policy.grouped(replies, dataclasses.replace(e, old_BT=old_BT), 0.5)
  blank = policy.grouped(replies, dataclasses.replace(e, old_BT=0 * old_BT), 0.5)
  options = {"correction": Correction("tis")}
  found = []
  for first, update in ((False, told), (True, blank)):
    loss_fn = loss(algorithm, temperature, first=first, **options)
    found.append(
      jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params, update, None)
    )
  ((wanted, metrics), wanted_grads), ((got, seen), got_grads) = found
  assert float(got) == pytest.approx(float(wanted), rel=1e-5)
  measured = seen.pop("measured")
  assert seen.keys() == metrics.keys()
  for name, value in metrics.items():
    assert float(seen[name].total) == pytest.approx(float(value.total), abs=1e-4), name
  same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(same, got_grads, wanted_grads)
  jax.tree.map(same, measured, known)


def test_a_first_update_in_parts_tells_of_packed_replies_in_their_order(params):
  """Two prompts a pack: parts of an update are packs, and rows of replies are not."""
  rng = np.random.default_rng(0)
  token_BQT = rng.integers(5, 30, (4, COPIES, LENGTH), np.int32)
  count_BQ = np.full((4, COPIES), LENGTH, np.int32)
  host = Replies(small.dialogue_batch(seed=2, rows=4), token_BQT, count_BQ)
  packed = packing.packed(host, 2, 64, 0, shared=True)
  known = policy.measured(params, packed, model=MODEL, temperature=1.0)
  zero_BT = np.zeros((4 * COPIES, LENGTH), np.float32)
  blank = {field.name: zero_BT for field in dataclasses.fields(Experience)}
  blank["mask_BT"] = np.ones_like(zero_BT, dtype=bool)
  tx, trained = optax.sgd(0.0), {part: params[part] for part in ("adaptor", "decoder")}
  key = jax.random.key_data(jax.random.key(0))
  state = TrainState(trained, {}, tx.init(trained), jnp.int32(0), key)
  one = functools.partial(steps.train_step, tx=tx, microbatches=2)
  one = jax.jit(functools.partial(one, loss_fn=loss(grpo, 1.0, first=True)))
  _, found = one(state, policy.grouped(packed, Experience(**blank), 0.0))

  def same(ours, theirs):
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-4)

  jax.tree.map(same, found["measured"], known)


def test_beta_weighs_the_distance_to_the_reference(params, played):
  """k2 at the old policy is ½ Σ (old − reference)²; the loss grows by β times it."""
  replies, rollout, temperature = played
  e = experience(rollout)
  totals = []
  for beta in (0.0, 0.5):
    update = policy.grouped(replies, e, beta)
    total, metrics = loss(grpo, temperature)(params, update, None)
    totals.append(float(total))
  by_hand = 0.5 * np.square(e.old_BT - e.reference_BT).sum()
  assert totals[1] - totals[0] == pytest.approx(0.5 * by_hand, rel=1e-3)
  assert float(metrics["kl_now"].total) == pytest.approx(by_hand, rel=1e-3)


def test_a_constant_divides_the_loss_of_every_reply(params, played):
  """Ten tokens: a tenth of the sum over tokens; it counts replies, not tokens."""
  replies, rollout, temperature = played
  update = policy.grouped(replies, experience(rollout), 0.5)
  total, metrics = jax.jit(loss(grpo, temperature))(params, update, None)
  options = {"aggregation": "constant", "constant": 10}
  divided = jax.jit(loss(grpo, temperature, **options))
  tenth, counted = divided(params, update, None)
  assert float(tenth) == pytest.approx(float(total) / 10, rel=1e-5)
  assert float(metrics["loss"].count) == int(rollout.mask_BT.sum())
  assert float(counted["loss"].count) == 2 * COPIES


def test_a_correction_weighs_the_policys_loss_and_not_the_kl(params, played):
  """The trainer finds every token 1.5 times as likely as the sampler did, one 4 times:
  weights 1.5 and, where the limit decides, 2; the KL and the counts stay."""
  replies, rollout, temperature = played
  e = experience(rollout)
  ratio_BT = np.full(e.mask_BT.shape, 1.5)
  ratio_BT[0, 0] = 4.0
  sampler_BT = e.old_BT - np.log(ratio_BT).astype(np.float32)
  e = dataclasses.replace(e, sampler_BT=sampler_BT)
  found = {}
  for kind in ("none", "tis"):
    loss_fn = jax.jit(loss(grpo, temperature, correction=Correction(kind)))
    for beta in (0.0, 0.5):
      update = policy.grouped(replies, e, beta)
      found[kind, beta] = loss_fn(params, update, None)
  plain, (total, metrics) = found["none", 0.0], found["tis", 0.0]
  first = -float(e.advantage_BT[0, 0])  # ratio 1 to what the policy was
  assert float(total) == pytest.approx(1.5 * float(plain[0]) + 0.5 * first, rel=1e-4)
  kls = [float(found[kind, 0.5][0] - found[kind, 0.0][0]) for kind in ("none", "tis")]
  assert kls[0] > 0.1
  assert kls[1] == pytest.approx(kls[0], rel=1e-3)
  count = float(metrics["loss"].count)
  assert count == float(plain[1]["loss"].count) == float(metrics["correction"].count)
  assert float(metrics["correction"].total) == pytest.approx(1.5 * count + 0.5)
  assert float(metrics["correction_limited"].total) == 1
  assert "correction" not in plain[1]


def test_replies_that_are_masked_move_nothing(params, played):
  replies, rollout, temperature = played
  e = experience(rollout)
  e = dataclasses.replace(e, mask_BT=jnp.zeros_like(e.mask_BT))
  update = policy.grouped(replies, e, 0.5)
  loss_fn = loss(grpo, temperature)
  gradient = gradient_of(loss_fn, params, update)
  assert norm(gradient) == 0.0
  assert float(loss_fn(params, update, None)[1]["loss"].count) == 0


def test_critic_and_policy_have_gradients_apart(params, played):
  """Without advantage and KL only the critic moves; with a met return only the rest."""
  replies, rollout, temperature = played
  both = with_critic(params)
  loss_fn = loss(ppo, temperature)
  e = experience(rollout)
  still = dataclasses.replace(e, advantage_BT=jnp.zeros_like(e.advantage_BT))
  gradient = gradient_of(loss_fn, both, policy.grouped(replies, still, 0.0))
  learning = norm(gradient["critic"])
  assert learning > 0
  assert norm({k: v for k, v in gradient.items() if k != "critic"}) == 0.0
  value_BQT = policy.values(both["critic"], replies, model=MODEL)
  met_BT = value_BQT.reshape(-1, LENGTH)
  met = dataclasses.replace(e, value_BT=met_BT, return_BT=met_BT)
  gradient = gradient_of(loss_fn, both, policy.grouped(replies, met, 0.0))
  assert norm(gradient["critic"]) < 1e-4 * learning  # the rounding of another program
  assert norm(gradient["decoder"]) > 0


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_mean"])
def test_the_critic_first_changes_no_gradient(params, played, aggregation):
  """Half of each loss is asked for, as a sum with others would."""
  replies, rollout, temperature = played
  update = policy.grouped(replies, experience(rollout), 0.5)
  found = []
  for critic_first in (False, True):
    loss_fn = loss(ppo, temperature, aggregation=aggregation, critic_first=critic_first)

    def half(params, loss_fn=loss_fn):
      total, metrics = loss_fn(params, update, None)
      return 0.5 * total, metrics

    found.append(jax.jit(jax.value_and_grad(half, has_aux=True))(with_critic(params)))
  ((wanted, metrics), wanted_grads), ((got, seen), got_grads) = found
  assert float(got) == pytest.approx(float(wanted), rel=1e-5)
  assert seen.keys() == metrics.keys()
  for name, value in metrics.items():
    assert float(seen[name].total) == pytest.approx(float(value.total), rel=1e-5), name
    assert seen[name].count == value.count
  assert norm(wanted_grads["critic"]) > 0
  same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(same, got_grads, wanted_grads)


def test_values_are_read_before_each_token(params, played):
  """With a head that sums the state, value 0 is that of the prompt's last token."""
  replies, _, _ = played
  both = with_critic(params)
  value_BQT = policy.values(both["critic"], replies, model=MODEL)
  x_BD, x_BQTD = MODEL.apply({"params": params}, replies, method="branches")
  first_BQ = jnp.broadcast_to(x_BD.sum(-1)[:, None], (2, COPIES))
  np.testing.assert_allclose(value_BQT[:, :, 0], first_BQ, atol=1e-4)
  np.testing.assert_allclose(value_BQT[:, :, 1:], x_BQTD.sum(-1)[:, :, :-1], atol=1e-4)
  fresh = {**both["critic"], "value": heads.init_value(jax.random.key(0), 16)}
  assert not policy.values(fresh, replies, model=MODEL).any()
