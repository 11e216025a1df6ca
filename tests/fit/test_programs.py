import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import meshes, optim, sharding, steps
from stepaudio_jax.core import entry
from stepaudio_jax.fit import abstract, command, programs
from stepaudio_jax.fit.programs import PROGRAMS
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.pricing import topology
from tests.fit import slices

# Few and short rows, so that they compile in seconds.
SHORT = {
  "data__max_tokens": "64",
  "batch_size": "4",
  "data__encode_batch": "4",
  "optim__name": "adamw",
}


def zeros(tree):
  def one(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)

  return jax.tree.map(one, tree)


def test_the_abstract_state_is_the_one_that_training_begins_with():
  job = slices.job(**SHORT)
  (state, _) = PROGRAMS["supervised step"](job).arguments
  tx = optim.optimiser(job.c.optim, job.c.total_steps)
  params = step_audio.init_params(jax.random.key(0), job.size)
  everywhere = sharding.replicated(job.mesh)
  params = jax.device_put(params, everywhere)
  real = steps.initial_state(params, tuple(job.c.trainable), tx, jax.random.key(0))
  assert jax.tree.structure(real) == jax.tree.structure(state)
  for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(real), strict=True):
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


def test_the_supervised_step_runs():
  """A batch without a target: no loss, no gradient, one step more."""
  program = PROGRAMS["supervised step"](slices.job(**SHORT))
  state, scalars = program.function(*zeros(program.arguments))
  assert int(state.step) == 1
  assert float(scalars["targets"]) == 0
  assert float(scalars["grad_norm"]) == 0


@pytest.mark.parametrize("name", ["supervised step", "prefill", "log-probs"])
def test_flops_against_the_compiler_s_own_count(name):
  """XLA counts the same products, and norms, softmax and the optimiser beside them.

  The plain attention of this machine computes what a causal mask hides. Four layers are
  laid out one after another, so no loop hides any.
  """
  job = slices.job(**SHORT)
  program = PROGRAMS[name](job)
  counted = program.lowered().compile().cost_analysis()["flops"]
  assert 0.95 < counted / program.flops < 1.5


def test_a_block_of_decoding_draws_its_tokens():
  program = PROGRAMS["decode step"](slices.job(**SHORT))
  params, prompted, state = zeros(program.arguments)
  rows = state.alive_B.shape[0]
  prompted = dataclasses.replace(
    prompted, key_B=jax.random.split(jax.random.key(0), rows), divisor=jnp.float32(1)
  )
  state = dataclasses.replace(state, step=jnp.int32(1), alive_B=jnp.ones((rows,), bool))
  done = program.function(params, prompted, state)
  # Logits of zeros draw among 1,024 words; 0 would stop a row.
  assert int(done.step) == 1 + program.runs
  assert np.asarray(done.mask_BT)[:, 1 : 1 + program.runs].any()


def test_bytes_that_a_decode_step_must_read():
  """By hand: float32 weights without the embedding, and all slots of both caches."""
  job = slices.job(**SHORT)
  size = job.size
  counts = {
    "attn": 2 * size.width * size.heads * size.head_width
    + 2 * size.width * size.kv_heads * size.head_width
    + (size.heads + 2 * size.kv_heads) * size.head_width,
    "mlp": 3 * size.width * size.ffn_width,
    "norms": 2 * size.width,
  }
  weights = size.layers * sum(counts.values())
  weights += size.width + size.width * size.vocabulary
  slots = 64 + job.new_tokens
  keys = 2 * size.layers * size.kv_heads * size.head_width * 4 * slots
  segments = 4 * slots + 2  # int32; and two counters
  program = PROGRAMS["decode step"](job)
  assert program.streamed == 4 * (weights + keys + segments)


SUPERVISED = ("encoder features", "supervised step", "prefill", "decode step")
SUPERVISED += ("log-probs",)


@pytest.mark.parametrize("name", SUPERVISED)
def test_the_32b_programs_trace(name):
  """Shapes and shardings fit together; nothing is compiled."""
  job = slices.job("configs/sft.py:size=step_audio_r1", attention="plain")
  assert programs.asked(job.c) == [*SUPERVISED]
  PROGRAMS[name](job).lowered()


@pytest.mark.parametrize("name", ["prefill", "decode step", "reference log-probs"])
def test_the_32b_programs_of_a_policy_gradient_trace(name):
  recipe = "configs/rlvr.py:size=step_audio_r1"
  job = slices.job(recipe, attention="plain", sampling_mesh__tensor="1")
  assert (job.copies, job.new_tokens) == (16, 10240)
  PROGRAMS[name](job).lowered()


def test_split_by_heads():
  for name, devices, tensor in (("step_audio_r1", 64, 8), ("step_audio_2_mini", 6, 2)):
    mesh = programs.split_by_heads(sizes.size(name), devices)
    assert mesh == {"data": -1, "fsdp": 1, "tensor": tensor, "context": 1}


@pytest.mark.parametrize("name", topology.EXAMPLES)
@pytest.mark.parametrize(("size", "tensor"), [("2_mini", 4), ("r1", 8)])
@pytest.mark.parametrize("recipe", ["sft", "rlvr", "rlhf"])
def test_sampling_has_the_devices_of_training_in_their_order(
  recipe, size, tensor, name
):
  """As train_rl has it; a mesh made for these lengths would order them otherwise."""
  where = slices.described(name)
  c = entry.recipe_of(f"configs/{recipe}.py:size=step_audio_{size}")
  job = command.job_of(c, where)
  rows, chips = len(where.devices) // tensor, len(where.devices)
  lengths = {"data": rows, "fsdp": 1, "tensor": tensor, "context": 1}
  assert dict(job.sampling_mesh.shape) == lengths
  of_a_row = 4 if recipe == "rlhf" else 1
  split = {"data": 1, "fsdp": chips // of_a_row, "tensor": 1, "context": of_a_row}
  assert dict(job.mesh.shape) == split
  assert [*job.sampling_mesh.devices.flat] == [*job.mesh.devices.flat]


def test_the_order_of_training_is_one_of_its_own():
  """So the test above could fail: on this slice the two orders differ."""
  where = slices.described("v5p:4x4x4")
  c = entry.recipe_of("configs/rlvr.py:size=step_audio_2_mini")
  job = command.job_of(c, where)
  alone = meshes.mesh(job.c.sampling_mesh, where.devices)
  assert [*alone.devices.flat] != [*job.mesh.devices.flat]


@pytest.mark.parametrize("recipe", ["sft", "midtrain"])
@pytest.mark.parametrize(
  ("name", "size", "rows"),
  [
    ("v5e:4x4", "2_mini", 2),
    ("v6e:4x4", "2_mini", 2),
    ("v5p:4x4x4", "r1", 4),
    ("v5p:4x4x8", "r1", 2),
    ("v6e:16x16", "r1", 1),
  ],
)
def test_rows_that_a_chip_has_at_a_time(recipe, name, size, rows):
  """256 rows by hand: over chips and the recipe's micro-batches."""
  c = entry.recipe_of(f"configs/{recipe}.py:size=step_audio_{size}")
  mesh = command.job_of(c, slices.described(name)).mesh
  assert sharding.rows(c.batch_size, c.microbatches, mesh) == rows


def test_rows_that_the_devices_cannot_share():
  """As train refuses them."""
  c = entry.recipe_of("configs/sft.py:size=step_audio_2_mini")
  with pytest.raises(ValueError, match="256 is not a multiple of 8 microbatches × 64"):
    PROGRAMS["supervised step"](command.job_of(c, slices.described("v5p:4x4x4")))


def test_prompts_that_the_devices_of_training_cannot_share():
  """As train_rl refuses them: its updates take rows of prompts."""
  where = slices.described("v5p:4x4x8")
  c = entry.recipe_of("configs/rlvr.py:size=step_audio_r1")
  with pytest.raises(ValueError, match="64 is not a multiple of 1 microbatches × 128"):
    PROGRAMS["reference log-probs"](command.job_of(c, where))


def test_bytes_on_a_chip():
  """128 rows of 10 bfloat16 over 64 chips are 2·10·2 bytes on each."""
  devices = slices.described("v5p:4x4x4").devices
  mesh = meshes.mesh({"data": 1, "fsdp": -1, "tensor": 1, "context": 1}, devices)
  leaf = abstract.at(sharding.by_rows(mesh), (128, 10), jnp.bfloat16)
  assert abstract.bytes_on_chip({"a": leaf, "b": leaf}) == 2 * 40


def test_another_objective_is_an_error():
  with pytest.raises(ValueError, match="'hear' has no step"):
    PROGRAMS["supervised step"](slices.job("configs/prealign.py:phase=hear"))
