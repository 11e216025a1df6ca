"""Decoding from turned weights says what the decoder itself says."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import sampling
from stepaudio_jax.models import sizes, turned
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import draws, program, refilling
from tests.models.batches import SIZE, random_params, speech_batch

NEW, COPIES = 11, 2  # more than a block of the replies' cache
FEW = dataclasses.replace(SIZE, layers=2)
MODEL = StepAudio(FEW)
SETTINGS = draws.Settings(NEW, tuple(range(1, 97, 16)), pad_id=95, copies=COPIES)


@pytest.fixture(scope="module")
def params():
  return random_params(FEW, seed=3)


@pytest.fixture(scope="module")
def prompts():
  """Rows of unlike length with audio; the third row has no prompt."""
  batch = speech_batch((30, 25, 17, 40), seed=5)
  batch.segment_BT[2] = 0
  return batch


@functools.partial(jax.jit, static_argnames=("model", "slots"))
def sampled(params, prompts, model, slots=0):
  rows = jnp.arange(len(prompts.token_BT))
  asked = program.Asked(jax.random.key(2), rows, jnp.float32(0.7))
  settings = dataclasses.replace(SETTINGS, slots=slots)
  run = refilling.sampled if slots else program.sampled
  return run(params, prompts, asked, model=model, settings=settings)


@pytest.fixture(scope="module")
def want(params, prompts):
  return sampled(params, prompts, MODEL)


@pytest.mark.parametrize("slots", [0, 3])
def test_replies_and_log_probs_are_those_of_the_decoder(params, prompts, want, slots):
  assert len(set(np.asarray(want.count_B).tolist())) > 2, "the seed: unlike lengths"
  positions = prompts.token_BT.shape[1] + NEW
  weights = turned.weights(params["decoder"], FEW, positions)
  both = {"plain": params, "turned": weights}
  got = sampled(both, prompts, turned.Turned(MODEL), slots)
  np.testing.assert_array_equal(got.token_BT, want.token_BT)
  np.testing.assert_array_equal(got.mask_BT, want.mask_BT)
  np.testing.assert_allclose(got.logprob_BT, want.logprob_BT, atol=1e-5)


def test_weights_of_bfloat16_are_used_in_float32(params):
  narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params["decoder"])
  made = jax.eval_shape(
    functools.partial(turned.weights, size=FEW, positions=9), narrow
  )
  assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype("float32")}


WIDE = dataclasses.replace(SIZE, name="wide", width=512, layers=1)


@pytest.mark.parametrize(("size", "turns"), [(SIZE, False), (WIDE, True)])
def test_wide_weights_are_turned(size, turns, prompts, monkeypatch):
  """Of the two only the one runs `Turned`, and both give finite replies."""
  ran = []
  extend = turned.Turned.extend
  monkeypatch.setattr(
    turned.Turned, "extend", lambda *given: ran.append(1) or extend(*given)
  )
  told = {"max_new_tokens": 3, "stop_ids": (), "pad_id": 95}
  params, key = random_params(size, seed=3), jax.random.key(2)
  rollout = sampling.sample(params, prompts, key, model=StepAudio(size), **told)
  assert np.isfinite(rollout.logprob_BT).all()
  assert bool(ran) == turns


def test_only_float32_on_one_cpu_is_turned():
  wide, deep = sizes.size("small"), sizes.size("step_audio_r1")
  assert sampling._turned(StepAudio(wide))
  assert not sampling._turned(StepAudio(wide, dtype=jnp.bfloat16))
  assert not sampling._turned(StepAudio(deep))
  with nn.logical_axis_rules((("activation_batch", "data"),)):
    assert not sampling._turned(StepAudio(wide))
