"""The shared step: sums over micro-batches, what must not move, a toy to learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepaudio_jax import meshes, sharding, steps
from stepaudio_jax.core import tree
from stepaudio_jax.core.types import SpeechBatch, TrainState
from stepaudio_jax.models import hear, step_audio
from tests import small

MODEL = step_audio.StepAudio(small.SIZE)
LOSS = steps.next_token_loss(MODEL, ("dialogue",))


@pytest.fixture(scope="module")
def params():
  return step_audio.init_params(jax.random.key(0), small.SIZE)


def fresh_state(params, tx, trained=("adaptor", "decoder")):
  named, frozen = tree.split(params, trained)
  key = jax.random.key_data(jax.random.key(0))
  return TrainState(named, frozen, tx.init(named), jnp.int32(0), key)


def stepper(tx, microbatches=1, loss_fn=LOSS):
  return jax.jit(
    functools.partial(
      steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=microbatches
    )
  )


@pytest.mark.parametrize("microbatches", [2, 4])
def test_micro_batches_change_nothing_although_their_masks_are_ragged(
  params, microbatches
):
  tx = optax.sgd(0.1)
  batch = small.dialogue_batch()
  counts = batch.loss_BT.sum(1)
  assert len(set(counts.tolist())) > 1  # a mean of means would differ
  whole, whole_metrics = stepper(tx)(fresh_state(params, tx), batch)
  parts, part_metrics = stepper(tx, microbatches)(fresh_state(params, tx), batch)
  for name, value in whole_metrics.items():
    assert float(part_metrics[name]) == pytest.approx(float(value), rel=1e-5), name
  for (name, a), (_, b) in zip(
    tree.named_leaves(whole.params), tree.named_leaves(parts.params), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_what_a_loss_tells_of_rows_keeps_their_order(params, microbatches):
  def telling(params, batch, rng):
    total, metrics = LOSS(params, batch, rng)
    return total, metrics | {"rows": {"first_B": batch.token_BT[:, 0]}}

  tx, batch = optax.sgd(0.1), small.dialogue_batch()
  assert len({*batch.token_BT[:, 0].tolist()}) > 1
  batch = dataclasses.replace(batch, token_BT=batch.token_BT + np.arange(4)[:, None])
  _, found = stepper(tx, microbatches, telling)(fresh_state(params, tx), batch)
  np.testing.assert_array_equal(found["rows"]["first_B"], batch.token_BT[:, 0])


def test_one_sgd_step_is_the_gradient_of_the_mean_loss(params):
  tx = optax.sgd(1.0)
  batch = small.dialogue_batch()
  after, _ = stepper(tx)(fresh_state(params, tx), batch)

  def mean_loss(trained):
    total, metrics = LOSS({**params, **trained}, batch, None)
    return total / metrics["loss"].count

  trained, _ = tree.split(params, ("adaptor", "decoder"))
  grads = jax.jit(jax.grad(mean_loss))(trained)
  moved = jax.tree.map(jnp.subtract, trained, after.params)
  for (name, a), (_, b) in zip(
    tree.named_leaves(grads), tree.named_leaves(moved), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6, err_msg=name)


def test_the_frozen_encoder_gets_no_gradient_and_no_optimiser_state(params):
  tx = optax.adamw(1e-2)
  state = fresh_state(params, tx)
  assert set(state.params) == {"adaptor", "decoder"}
  assert tree.content_hash(state.frozen) == tree.content_hash(
    {"encoder": params["encoder"]}
  )
  trained = tree.parameter_count(state.params)
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state))
  assert moments == 2 * trained + 1
  batch = small.dialogue_batch()
  grads = jax.jit(jax.grad(lambda p: LOSS(p, batch, None)[0]))(params)
  assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads["encoder"]))
  assert any((np.asarray(g) != 0).any() for g in jax.tree.leaves(grads["adaptor"]))
  after, _ = stepper(tx)(state, batch)
  assert tree.content_hash(after.frozen) == tree.content_hash(state.frozen)


def test_placeholders_and_masked_targets_get_exactly_no_gradient(params):
  batch = small.dialogue_batch()
  grads = jax.jit(jax.grad(lambda p: LOSS(p, batch, None)[0]))(params)
  embedding_VD = np.asarray(grads["decoder"]["embed"]["embedding"])
  assert (embedding_VD[3] == 0).all()  # the patch is replaced, never read
  unused = set(range(32)) - set(np.unique(batch.token_BT).tolist())
  assert all((embedding_VD[token] == 0).all() for token in unused)
  assert (embedding_VD != 0).any()

  def of_frames(frames):
    heard = dataclasses.replace(batch, frames_BRUE=frames)
    return LOSS(params, heard, None)[0]

  frames = jax.jit(jax.grad(of_frames))(jnp.asarray(batch.frames_BRUE))
  assert (np.asarray(frames) != 0).any()


def test_a_batch_with_nothing_to_predict_moves_nothing(params):
  tx = optax.sgd(0.1)
  batch = small.dialogue_batch()
  batch = dataclasses.replace(batch, loss_BT=np.zeros_like(batch.loss_BT))
  after, metrics = stepper(tx)(fresh_state(params, tx), batch)
  before, _ = tree.split(params, ("adaptor", "decoder"))
  assert tree.content_hash(after.params) == tree.content_hash(before)
  assert np.isnan(metrics["loss"])  # shown as what it is: a mean of nothing


def test_a_few_steps_learn_a_batch_by_heart(params):
  tx = optax.adam(1e-2)
  step, state = stepper(tx), fresh_state(params, tx)
  losses = []
  for _ in range(40):
    state, metrics = step(state, small.dialogue_batch())
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.3 * losses[0]
  assert int(state.step) == 40


def test_hearing_learns_and_reports_each_attribute(params):
  heads = hear.HearingHeads(5, {"pitch": ("low", "high")})
  trained = {
    "encoder": params["encoder"],
    "hear": hear.init_params(jax.random.key(1), heads, small.SIZE.encoder_width),
  }
  rng = np.random.default_rng(0)
  batch = SpeechBatch(
    mel_BLM=rng.normal(size=(4, 102, 128)).astype(np.float32),
    sample_count_B=np.full(4, 16_000, np.int32),
    transcript_BT=rng.integers(1, 5, size=(4, 3)).astype(np.int32),
    transcript_count_B=np.full(4, 3, np.int32),
    attribute_BC=np.array([[0], [1], [-1], [1]], np.int32),
    example_B=np.arange(4, dtype=np.int32),
  )
  tx = optax.adam(1e-2)
  state = fresh_state(trained, tx, ("encoder", "hear"))
  step = stepper(tx, loss_fn=steps.hear_loss(MODEL, heads, ("pitch",)))
  first = None
  for _ in range(60):
    state, metrics = step(state, batch)
    first = first if first is not None else float(metrics["loss"])
  assert float(metrics["loss"]) < 0.2 * first
  assert float(metrics["accuracy_pitch"]) == 1.0


def test_moments_that_wait_in_the_hosts_memory_change_nothing(params):
  mesh = meshes.mesh({"data": 1, "fsdp": 1, "tensor": 1, "context": 1})
  dtypes = dict.fromkeys(step_audio.PARTS, np.float32)
  place = sharding.placer(mesh, step_audio.axis_names(small.SIZE), dtypes)
  tx, batch = optax.adamw(1e-2), small.dialogue_batch()
  ends = []
  for offload in (False, True):
    on_mesh = tree.nested((p, place(p, x)) for p, x in tree.named_leaves(params))
    state = steps.initial_state(
      on_mesh, ("adaptor", "decoder"), tx, jax.random.key(0), offload=offload
    )
    one = functools.partial(steps.train_step, loss_fn=LOSS, tx=tx, microbatches=1)
    step = steps.jitted(one, state)
    for _ in range(2):
      state, _ = step(state, batch)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state) if x.ndim}
    assert kinds == {"pinned_host" if offload else "device"}
    ends.append(tree.content_hash(state.params))
  assert ends[0] == ends[1]
