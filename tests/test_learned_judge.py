"""A reward model beside a policy: packed, in parts and split it says the same."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from stepaudio_jax import meshes, sharding
from stepaudio_jax.models.heads import init_rewards
from stepaudio_jax.models.step_audio import StepAudio, init_params
from stepaudio_jax.rollout import judge
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.text import tokenizer as tokenizers
from tests import small

HERE = pathlib.Path(__file__).resolve().parents[1]
SIZE = dataclasses.replace(small.SIZE, vocabulary=1024)  # of the tokenizer
NAMES = ("naturalness", "acoustic_grounding")
WORDS = ("One.", "Two, I think.", "A long answer of many words.", "Four")


def made(size=SIZE):
  """A judge of that size, and rewards [8, 2] of two replies to each of four prompts."""
  params = dict(init_params(jax.random.key(0), size))
  params["encoder"] = init_params(jax.random.key(0), SIZE)["encoder"]  # the policy's
  params["rewards"] = init_rewards(jax.random.key(1), size.width, len(NAMES))
  params = jax.tree.map(np.asarray, params)
  loaded = types.SimpleNamespace(
    params=params,
    size=size,
    tokenizer=tokenizers.load("tiny"),
    dimensions=NAMES,
    on_thought=(False, True),
  )
  mesh = meshes.mesh({"data": 1, "fsdp": -1, "tensor": 1, "context": 1})

  def rewards(**how):
    known = {"encoder": params["encoder"], "tokenizer": loaded.tokenizer}
    reader = judge.LearnedJudge(
      loaded, max_new_tokens=40, model=StepAudio(size), mesh=mesh, **known, **how
    )
    texts = [Said("", "a low voice", f"{word}{k}") for word in WORDS for k in (1, 2)]
    texts[3] = Said("", "it never closed", None)
    with sharding.over(mesh):
      found = reader(small.dialogue_batch(rows=4), texts)
    return reader, np.stack([found[name] for name in NAMES], axis=1)

  return rewards


@pytest.fixture(scope="module")
def rewards():
  return made()


@pytest.fixture(scope="module")
def plain(rewards):
  return rewards()[1]


@pytest.mark.parametrize(
  "how", [{"parts": 2}, {"packed": True}, {"packed": True, "parts": 2}]
)
def test_how_replies_are_laid_out_changes_no_reward(rewards, plain, how):
  """All eight differ by far more than the tolerance, so their order counts."""
  assert np.isnan(plain[3]).all()
  assert np.isfinite(np.delete(plain, 3, axis=0)).all()
  apart = np.abs(np.diff(np.sort(np.delete(plain, 3, axis=0), axis=0), axis=0))
  assert apart.min() > 1e-4
  np.testing.assert_allclose(rewards(**how)[1], plain, atol=1e-5)


def test_parts_that_prompts_cannot_make_are_fewer(rewards, plain):
  """Four prompts in six parts: two parts, the greatest that divides both."""
  np.testing.assert_allclose(rewards(parts=6)[1], plain, atol=1e-5)


def test_rows_that_devices_can_share():
  """By hand: 4,096 + 10,258 tokens are not four times a multiple of 1,024."""
  assert judge.reply_room(10240, 10) == 10258
  assert judge.packed_row(4096, 10258) == 16384
  assert judge.packed_row(100, 60) == 160


def test_a_judge_of_another_size_than_the_policy(plain):
  """It needs the policy's encoder and tokens, and no more of it: a wider, deeper one.

  Its rewards are its own, and not those of the policy's size.
  """
  wider = dataclasses.replace(
    SIZE, name="wider", layers=3, width=24, ffn_width=40, adaptor_width=12
  )
  found = made(wider)()[1]
  assert np.isfinite(np.delete(found, 3, axis=0)).all()
  assert np.abs(np.delete(found - plain, 3, axis=0)).min() > 1e-3


@pytest.mark.slow
def test_a_judge_split_over_four_devices(plain):
  code = (
    "import json; from tests import test_learned_judge as t; "
    "reader, found = t.made()(packed=True); "
    "kernel = reader._params['decoder']['layers']['mlp']['gate']['kernel']; "
    "print(json.dumps([found.tolist(), kernel.sharding.shard_shape(kernel.shape)]))"
  )
  flags = "--xla_force_host_platform_device_count=4"
  run = subprocess.run(
    [sys.executable, "-c", code],
    cwd=HERE,
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  found, shard = json.loads(run.stdout.splitlines()[-1])
  np.testing.assert_allclose(np.asarray(found, np.float32), plain, atol=1e-5)
  assert shard == [SIZE.layers, SIZE.width // 4, SIZE.ffn_width]
