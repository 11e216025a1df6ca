"""Qwen2's decoder against torch; segments, packing and the cache against itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stepaudio_jax.models import decoder, layers
from stepaudio_jax.models.step_audio import StepAudio
from tests.models import torch_twin
from tests.models.batches import SIZE, random_params, speech_batch, text_batch

MODEL = StepAudio(SIZE)


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=3)


@functools.partial(jax.jit, static_argnames="method")
def apply(params, *args, method="__call__"):
  return MODEL.apply({"params": params}, *args, method=method)


def hidden(params, batch):
  return np.asarray(apply(params, batch, method="hidden"))


def log_softmax(x):
  x = np.asarray(x, np.float64)
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_logits_equal_transformers_qwen2(params):
  twin = torch_twin.decoder(params["decoder"], SIZE)
  generator = np.random.default_rng(4)
  x_BTD = generator.normal(size=(2, 50, SIZE.width)).astype(np.float32)
  # A far start of the positions, or a wrong theta would hardly show.
  position_BT = np.tile(np.arange(150, 200)[None], (2, 1))
  with torch.no_grad():
    want_BTV = twin(
      inputs_embeds=torch.tensor(x_BTD), position_ids=torch.tensor(position_BT)
    ).logits

  @functools.partial(jax.jit, static_argnames="dtype")
  def ours(params, dtype):
    module = decoder.Decoder(SIZE, dtype)
    variables = {"params": params["decoder"]}
    segment_BT = jnp.ones(x_BTD.shape[:2], jnp.int32)
    hidden_BTD = module.apply(
      variables, x_BTD.astype(dtype), segment_BT, jnp.asarray(position_BT)
    )
    return module.apply(variables, hidden_BTD, method="logits")

  np.testing.assert_allclose(ours(params, jnp.float32), want_BTV, atol=1e-5)
  coarse_BTV = np.asarray(ours(params, jnp.bfloat16))
  assert coarse_BTV.dtype == np.float32
  error = np.abs(coarse_BTV - want_BTV.numpy()).max()
  assert 0 < error < 0.06 * np.abs(want_BTV.numpy()).max()


def test_two_segments_in_a_row_equal_two_rows(params):
  first, second = [5, 7, 11, 2, 3], [5, 7, 90, 1, 64, 8, 8]
  packed = hidden(params, text_batch([first, second]))
  apart = hidden(params, text_batch([first], [second]))
  np.testing.assert_allclose(packed[0, :5], apart[0, :5], atol=1e-6)
  np.testing.assert_allclose(packed[0, 5:], apart[1], atol=1e-6)


def test_padding_and_later_tokens_change_nothing(params):
  short = hidden(params, text_batch([[5, 7, 11]]))
  padded = hidden(params, text_batch([[5, 7, 11]], [list(range(1, 12))]))
  longer = hidden(params, text_batch([[5, 7, 11, 13, 17]]))
  np.testing.assert_allclose(padded[0, :3], short[0], atol=1e-6)
  np.testing.assert_allclose(longer[0, :3], short[0], atol=1e-6)
  assert np.isfinite(padded).all()


def test_the_embedding_of_padding_gets_no_gradient(params):
  batch = text_batch([[5, 7, 11]], [list(range(1, 12))])

  def loss(params):
    logits_BTV = MODEL.apply({"params": params}, batch)
    return jnp.where(batch.loss_BT[..., None], logits_BTV, 0.0).sum()

  gradient = jax.jit(jax.grad(loss))(params)["decoder"]["embed"]["embedding"]
  used = np.abs(gradient).sum(1) > 0
  assert used.nonzero()[0].tolist() == list(range(1, 12))


@pytest.fixture(scope="module")
def prompts():
  return speech_batch((30, 25, 17, 40), seed=5)


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("chunk", [1, 3])
def test_decoding_with_a_cache_equals_the_full_forward_pass(
  params, prompts, chunk, copies
):
  """Audio, rows of unlike length, a gap of padding between prompt and reply."""
  steps, (rows, length) = 6, prompts.token_BT.shape
  replies = rows * copies
  more_BT = np.random.default_rng(6).integers(1, SIZE.vocabulary, (replies, steps))
  more_BT = more_BT.astype(np.int32)
  prompt_B = np.repeat((prompts.segment_BT > 0).sum(1), copies)
  x_BTD, seen = apply(params, prompts, method="prefill")
  assert int(seen.used) == length
  assert seen.k_ZBKSh.shape[1] == rows
  cache = decoder.empty_cache(SIZE, replies, steps + 2, jnp.float32)
  logits = [np.repeat(apply(params, x_BTD, method="logits"), copies, axis=0)]
  for i in range(0, steps, chunk):
    position_BT = (prompt_B[:, None] + i + np.arange(chunk)).astype(np.int32)
    x_BTD, cache = apply(
      params,
      more_BT[:, i : i + chunk],
      position_BT,
      jnp.ones((replies, chunk), jnp.int32),
      cache,
      (seen,),
      method="extend",
    )
    logits.append(apply(params, x_BTD, method="logits"))
  got_BTV = np.concatenate(logits, axis=1)
  assert int(cache.used) == steps

  worst = 0.0
  for b, n in enumerate(prompt_B):
    whole = full_row(prompts, b // copies, more_BT[b])
    want_TV = log_softmax(apply(params, whole))[0]
    seen_TV = np.concatenate([got_BTV[b, :n], got_BTV[b, length:]])
    worst = np.maximum(worst, np.abs(log_softmax(seen_TV) - want_TV).max())  # NaN stays
  assert worst <= 1e-5, worst


def full_row(prompts, b, reply):
  """Row b with its reply right behind the prompt, as training would see it."""
  n = int((prompts.segment_BT[b] > 0).sum())
  whole = text_batch([[*prompts.token_BT[b, :n].tolist(), *reply.tolist()]])
  whole.audio_BT[0, :n] = prompts.audio_BT[b, :n]
  return type(whole)(
    **{
      **vars(whole),
      "frames_BRUE": prompts.frames_BRUE[b : b + 1],
      "frame_count_BR": prompts.frame_count_BR[b : b + 1],
    }
  )


def test_remat_changes_memory_and_not_gradients(params):
  batch = text_batch([[5, 7, 11, 2, 3], [9, 9]])

  def gradient(remat):
    def loss(params):
      logits_BTV = StepAudio(SIZE, remat=remat).apply({"params": params}, batch)
      return jax.nn.log_softmax(logits_BTV)[..., 0].sum()

    return jax.grad(loss)

  want = jax.jit(gradient("none"))(params)["decoder"]
  for name in ("full", "attention", "minimal"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
      jax.jit(gradient(name))(params)["decoder"],
      want,
    )
  programs = {
    r: str(jax.make_jaxpr(gradient(r))(params)) for r in layers.REMAT_POLICIES
  }
  assert all("remat" in program for program in programs.values())
  assert "remat" not in str(jax.make_jaxpr(gradient("none"))(params))
  assert len(set(programs.values())) == len(programs), "a policy did not act"
  with pytest.raises(ValueError, match=r"unknown remat 'all'.*'full'"):
    gradient("all")(params)
