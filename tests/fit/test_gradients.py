"""The programs of a policy-gradient step, and what shares a chip with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import learner, rl, sharding
from stepaudio_jax.core import entry, tree
from stepaudio_jax.core.types import Replies
from stepaudio_jax.data import packing
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.fit import (
  abstract,
  command,
  gradients,
  programs,
  residency,
  step,
)
from stepaudio_jax.models import step_audio
from tests import small
from tests.fit import slices

PPO = "configs/rlhf.py:algorithm=ppo"
SHORT = {
  "prompts_per_step": "2",
  "sampling__samples": "2",
  "sampling__max_new_tokens": "24",
  "data__max_tokens": "40",
  "optim__name": "adamw",
  "critic_optim__name": "adamw",
}
LARGE = "configs/rlhf.py:size=step_audio_r1"


@pytest.fixture(scope="module")
def job():
  """Of a model of a few thousand parameters."""
  return dataclasses.replace(slices.job(PPO, **SHORT), size=small.SIZE)


def shapes(values):
  return jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype)), values)


def test_which_programs_a_step_has():
  ppo = slices.job(PPO).c
  drawn = ["encoder features", "prefill", "decode step"]
  both = [*drawn, "reward scores", "reference log-probs"]
  assert programs.asked(ppo) == [*both, "values", "update"]
  preferred = slices.job("configs/rlhf.py").c
  assert programs.asked(preferred) == [*both, "update"]
  preferred.epochs = 2  # then an update does not start from the policy that was asked
  wanted = [*both[:-1], "old log-probs", both[-1], "update"]
  assert programs.asked(preferred) == wanted
  rules = slices.job("configs/rlvr.py:algorithm=grpo")
  assert programs.asked(rules.c) == [*drawn, "reference log-probs", "update"]
  with pytest.raises(ValueError, match=r"without rewards\.learned asks no model"):
    gradients.reward_scores(rules)
  with pytest.raises(ValueError, match="algorithm='grpo' has no critic"):
    gradients.values(rules)
  with pytest.raises(ValueError, match="log-probs of its own: 'reward scores', 'old"):
    programs.log_probs(rules)


def test_the_state_is_the_one_that_training_begins_with(job):
  algorithm = rl.load("ppo")
  params = step_audio.init_params(jax.random.key(0), job.size)
  params = jax.device_put(params, sharding.replicated(job.mesh))
  tx = learner.optimiser(job.c, algorithm)
  real = learner.initial_state(job.c, params, tx, algorithm)
  assert shapes(gradients.state(job)) == shapes(real)


@pytest.mark.slow
def test_the_update_runs(job):
  """No reply has a token: no loss, no gradient, and one step more."""
  program = gradients.update(job)
  state, scalars = program.function(*map(_zeros, program.arguments))
  assert int(state.step) == 1
  assert float(scalars["targets"]) == float(scalars["grad_norm"]) == 0
  assert "value_loss" in scalars


def _zeros(values):
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), values)


@pytest.mark.parametrize("name", ["reward scores", "old log-probs", "values"])
def test_flops_against_the_compiler_s_own_count(name):
  """See test_programs.py; the values go through no head."""
  program = programs.PROGRAMS[name](slices.job(PPO, **SHORT))
  assert program.name == name
  counted = program.lowered().compile().cost_analysis()["flops"]
  assert 0.95 < counted / program.flops < 1.5


def test_an_update_is_three_passes_of_policy_and_critic(job):
  update, one, value = (
    programs.PROGRAMS[name](job) for name in ("update", "old log-probs", "values")
  )
  assert update.flops == 3 * (one.flops + value.flops)
  parts = dataclasses.replace(job, c=job.c.copy_and_resolve_references())
  parts.c.minibatches = 2
  assert gradients.update(parts).flops == update.flops / 2
  assert gradients.old_logprobs(parts).flops == one.flops


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("row_tokens", [0, 45, 60])
def test_packed_rows_are_those_of_the_longest_replies(job, shared, row_tokens):
  """Prompts of 20 tokens with a clip, three replies of 9, laid out by data/packing."""
  prompts = small.dialogue_batch(rows=4)
  whole = np.ones_like(prompts.segment_BT)
  replies = Replies(
    dataclasses.replace(prompts, segment_BT=whole),
    np.ones((4, 3, 9), np.int32),
    np.full((4, 3), 9, np.int32),
  )
  real = packing.packed(replies, 2, row_tokens or 29, 0, shared=shared)
  made = abstract.packed(
    Limits(20, 1, 8),
    4,
    3,
    9,
    16,
    job.mesh,
    shared=shared,
    parts=2,
    row_tokens=row_tokens,
  )
  assert shapes(made) == shapes(real)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_32b_recipe_on_128_chips(algorithm):
  """By hand: 32 groups of 4 chips, each with one prompt's 16 replies at a time."""
  where = slices.described("v5p:4x4x8")
  job = command.job_of(entry.recipe_of(f"{LARGE},algorithm={algorithm}"), where)
  assert ("critic" in gradients.state(job).params) == (algorithm == "ppo")
  rows = gradients.replies(job, job.prompts, job.c.microbatches)
  assert rows.prefix_PBT is None
  assert rows.batch.token_BT.shape == (64, 16, 4096 + 10240)
  chip = rows.batch.token_BT.sharding.shard_shape(rows.batch.token_BT.shape)
  assert chip == (2, 16, 14336)
  learnt = gradients.learnt(rows)
  assert learnt.experience.mask_BT.shape == (64, 1, 16, 10240)
  c = job.c
  for mesh in (job.mesh, job.sampling_mesh):
    sharding.rows(c.heldout.batch_size, 1, mesh)
  assert c.heldout.prompts % c.heldout.batch_size == 0
  # The reward model's weights in two bytes each, a 128th on each chip.
  held = tree.named_leaves(gradients.reward_model(job)["decoder"]["layers"])
  kernels = [leaf for path, leaf in held if path.endswith("kernel")]
  count = sum(leaf.size for leaf in kernels)
  assert abstract.bytes_on_chip(kernels) == 2 * count // 128


def test_what_is_offloaded_lies_on_the_host(job):
  def lies(*offload):
    c = job.c.copy_and_resolve_references()
    with c.unlocked():
      c.offload = offload
    found = residency.parts(dataclasses.replace(job, c=c))
    near, far = abstract.bytes_on_chip, abstract.bytes_on_host
    return {name: (near(part), far(part)) for name, part in found.items()}

  here = lies()
  params = step_audio.abstract_params(job.size)
  weights = sum(
    leaf.size for part in learner.SPEAKING for leaf in jax.tree.leaves(params[part])
  )
  assert here["policy"] == here["reference"] == (4 * weights, 0)
  assert here["critic"] == (4 * (weights + job.size.width + 1), 0)
  near, far = here["policy's optimiser"]
  assert far == 0
  assert 8 * weights <= near < 8 * weights + 100  # and counters
  away = lies("optimiser", "reference")
  assert away["reference"] == (0, 4 * weights)
  assert away["policy's optimiser"][1] == 8 * weights
  assert away["policy's optimiser"][0] < 100
  assert away["critic's optimiser"][1] == 8 * (weights + job.size.width + 1)
  assert away["policy"] == here["policy"]


def test_the_sum_beside_a_program_by_hand():
  near = {"policy": 10, "critic": 5, "reference": 3, "sampler's copy": 4}
  near["KV caches"] = 20
  rows = [
    {"program": "old log-probs", "hbm_peak_bytes": 17, "hbm_limit_bytes": 25},
    {"program": "decode step", "hbm_peak_bytes": 30, "hbm_limit_bytes": 25},
    {"program": "prefill", "hbm_peak_bytes": 11, "hbm_limit_bytes": 25},
  ]
  found = [residency.beside(row, near, {"reference": 7, "critic": 0}) for row in rows]
  # 7 of its own beside 10 + 5 + 3; 6 beside all; 7 beside all but the caches.
  assert [row["own_bytes"] for row in found] == [7, 6, 7]
  assert [row["together_bytes"] for row in found] == [25, 48, 29]
  assert [row["fits_together"] for row in found] == [True, False, False]
  assert "KV caches" not in found[2]["resident_bytes"]
  assert found[0]["offloaded_bytes"] == {"reference": 7}


def test_the_table_a_person_reads():
  gib = 2**30
  row = {"program": "values", "hbm_peak_bytes": 6 * gib, "hbm_limit_bytes": 8 * gib}
  near = {"policy": 2 * gib, "critic": 5 * gib}
  text = residency.note([residency.beside(row, near, {"reference": gib})])
  assert "| while this runs | policy | critic | its own | sum | fits |" in text
  assert "| values | 2.0 | **5.0** | 1.0 | 8.0 | yes |" in text
  assert "The most is 8.0 of 8.0 GiB." in text
  assert "host's memory, GiB a chip: reference 1.0." in text


def test_what_else_stays_on_a_chip(job):
  """Another reward model; the encoder in two bytes a number, as a sampler hears."""
  one = residency.parts(job)
  c = job.c.copy_and_resolve_references()
  c.reward_model, c.dtype = "runs/rm-0,runs/rm-1,runs/rm-2", "bfloat16"
  found = residency.parts(dataclasses.replace(job, c=c))
  near = {name: abstract.bytes_on_chip(part) for name, part in found.items()}
  assert "other reward models" not in one
  assert near["other reward models"] == 2 * near["reward model"]
  encoder = jax.tree.leaves(step_audio.abstract_params(job.size)["encoder"])
  assert near["encoder on every chip"] == 2 * sum(leaf.size for leaf in encoder)
  heard = programs.encoder_features(job)
  row = {"program": heard.name, "hbm_peak_bytes": 10**9, "hbm_limit_bytes": 10**10}
  beside = residency.added(job, [row])[0]
  assert beside["given"] == ["encoder on every chip"]
  # 2 prompts × 2 replies of 24 tokens: six numbers, a mask, two rewards' columns, β.
  experience = gradients.learnt(gradients.replies(job, 2, 1)).experience
  assert abstract.bytes_on_chip(experience) == 4 * (24 * (6 * 4 + 1) + 2 * 4)


def test_what_a_step_takes_by_hand(job):
  c = job.c.copy_and_resolve_references()
  c.reward_model, c.epochs, c.minibatches = "runs/rm-0,runs/rm-1", 3, 2
  c.microbatches = 5
  several = step.runs(dataclasses.replace(job, c=c))
  assert several["reward scores"] == 2 * 2 * 5
  assert several["update"] == 3 * 2
  assert step.asked(job) == [*programs.asked(job.c)][1:]  # nothing is heard again
  seconds = {
    "encoder features": 9.0,
    "prefill": 2.0,
    "decode step": 0.5,
    "update": None,
  }
  rows = step.added(
    job, [{"program": name, "seconds_expected": s} for name, s in seconds.items()]
  )
  text = step.note(rows, [*seconds, "values"])
  assert "| decode step | 23 | 0.5 | 11.5 | 85.2% |" in text  # of 24 tokens
  assert "**Together 13.5 s**, without update, values: no time is known." in text


def test_dialogues_of_many_turns_are_not_priced(job):
  c = job.c.copy_and_resolve_references()
  c.sampling.turns = 2
  with pytest.raises(ValueError, match=r"sampling\.turns=2: one turn is priced"):
    gradients.old_logprobs(dataclasses.replace(job, c=c))
