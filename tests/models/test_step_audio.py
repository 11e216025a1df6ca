"""The splice, the gradients that must be zero, and the shapes of every size."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.core.tree import named_leaves, parameter_count
from stepaudio_jax.models import layers, sizes, step_audio
from stepaudio_jax.models.step_audio import StepAudio
from tests.models.batches import SIZE, random_params, speech_batch, text_batch

MODEL = StepAudio(SIZE)
PATCH = 96


@functools.partial(jax.jit, static_argnames=("model", "method"))
def apply(params, *args, model=MODEL, method=None):
  return model.apply({"params": params}, *args, method=method)


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=7)


@pytest.fixture(scope="module")
def batch():
  """Speech with the patch id wherever an audio token goes, as the renderer does."""
  batch = speech_batch((30, 25, 17, 40), seed=8)
  tokens = np.where(batch.audio_BT >= 0, PATCH, batch.token_BT % PATCH)
  return dataclasses.replace(batch, token_BT=tokens.astype(np.int32))


def test_splice_by_hand():
  text_BTD = jnp.asarray([[[1.0], [2.0], [3.0], [4.0]], [[5.0], [6.0], [7.0], [8.0]]])
  audio_BAD = jnp.asarray([[[10.0], [20.0], [30.0]], [[40.0], [50.0], [60.0]]])
  audio_BT = jnp.asarray([[-1, 2, 0, -1], [-1, -1, -1, 1]])
  got_BTD = step_audio.splice(text_BTD, audio_BAD, audio_BT)
  assert got_BTD[..., 0].tolist() == [[1, 30, 10, 4], [5, 6, 7, 50]]


def test_clips_of_a_row_are_spliced_in_order(params, batch):
  """Each clip adapted alone lands where the row's audio indices point."""
  clip_AD = {}
  for r in range(2):
    clip_AD[r] = apply(
      params,
      batch.frames_BRUE[3, r][None],
      batch.frame_count_BR[3, r][None],
      method="adapt",
    )[0]
  embedded_BTD = apply(params, batch, method="embedded")
  table_VD = params["decoder"]["embed"]["embedding"]
  per_clip = batch.frames_BRUE.shape[2] // 2
  for t, a in enumerate(batch.audio_BT[3]):
    token = batch.token_BT[3, t]
    want_D = table_VD[token] if a < 0 else clip_AD[a // per_clip][a % per_clip]
    np.testing.assert_allclose(embedded_BTD[3, t], want_D, atol=1e-6)


def test_patch_embedding_and_absent_frames_get_exactly_no_gradient(params, batch):
  def loss(params, frames_BRUE):
    full = dataclasses.replace(batch, frames_BRUE=frames_BRUE)
    logits_BTV = MODEL.apply({"params": params}, full)
    return jnp.where(batch.loss_BT[..., None], jax.nn.log_softmax(logits_BTV), 0).sum()

  by_params, by_frames = jax.jit(jax.grad(loss, argnums=(0, 1)))(
    params, jnp.asarray(batch.frames_BRUE)
  )
  table_VD = np.asarray(by_params["decoder"]["embed"]["embedding"])
  assert not table_VD[PATCH].any()
  written = np.unique(batch.token_BT[(batch.segment_BT > 0) & (batch.audio_BT < 0)])
  assert (np.abs(table_VD[written]).sum(1) > 0).all()
  assert all(np.abs(g).max() > 0 for _, g in named_leaves(by_params["adaptor"]))
  for b in range(4):
    for r in range(2):
      rows = 2 * ((int(batch.frame_count_BR[b, r]) + 1) // 2)
      assert not np.asarray(by_frames[b, r, rows:]).any()
      assert np.abs(by_frames[b, r, :rows]).sum(-1).all()


def test_the_text_only_batch_needs_no_adaptor(params):
  text_only = {"decoder": params["decoder"]}
  logits_BTV = jax.eval_shape(apply, text_only, text_batch([[1, 2, 3]]))
  assert logits_BTV.shape == (1, 3, SIZE.vocabulary)


def test_bfloat16_stays_near_float32(params, batch):
  want_BTV = np.asarray(apply(params, batch))
  half = StepAudio(SIZE, dtype=jnp.bfloat16)
  got_BTV = apply(params, batch, model=half)
  assert got_BTV.dtype == jnp.float32
  hidden = functools.partial(apply, model=half, method="hidden")
  assert jax.eval_shape(hidden, params, batch).dtype == jnp.bfloat16
  error = np.abs(got_BTV - want_BTV)[batch.segment_BT > 0]
  assert error.max() < 0.15 * np.abs(want_BTV).max()


@pytest.mark.parametrize(
  ("name", "count"),
  [("step_audio_2_mini", 8_315_179_264), ("step_audio_r1", 33_487_033_600)],
)
def test_published_parameter_counts(name, count):
  assert parameter_count(step_audio.abstract_params(sizes.size(name))) == count


@pytest.mark.parametrize("name", list(sizes.SIZES))
def test_every_size_runs_abstractly(name):
  size = sizes.size(name)
  params = step_audio.abstract_params(size)
  assert all(leaf.dtype == jnp.float32 for _, leaf in named_leaves(params))
  assert {leaf.shape[0] for _, leaf in named_leaves(params["decoder"]["layers"])} == {
    size.layers
  }
  model = StepAudio(size, dtype=jnp.bfloat16, remat="full")
  small = speech_batch((30, 25), seed=1, size=size)
  logits = jax.eval_shape(lambda p: model.apply({"params": p}, small), params)
  assert logits.shape == (2, 30, size.vocabulary)
  mel_BLM = jax.ShapeDtypeStruct((2, 402, size.mel_bins), jnp.float32)
  samples_B = jax.ShapeDtypeStruct((2,), jnp.int32)
  frames, _ = jax.eval_shape(
    lambda *a: model.apply({"params": a[0]}, *a[1:], method="encode"),
    params,
    mel_BLM,
    samples_B,
  )
  assert frames.shape == (2, 100, size.encoder_width)


def test_small_is_about_fifty_million():
  count = parameter_count(step_audio.abstract_params(sizes.size("small")))
  assert 45e6 < count < 55e6


def test_an_unknown_size_lists_the_sizes():
  with pytest.raises(ValueError, match=r"unknown size '7b'.*'step_audio_r1'.*'tiny'"):
    sizes.size("7b")


def test_every_parameter_has_known_axis_names():
  boxed = step_audio.abstract_params(SIZE, boxed=True)
  boxes = jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names"))
  used = set()
  for box in boxes:
    assert len(box.names) == box.value.ndim
    used |= set(box.names) - {None}
  assert used == set(layers.PARAMETER_AXES) - {"reward"}


def test_fresh_parameters_start_near_a_uniform_guess():
  """Untrained loss is ln V plus a little; residual writes are scaled down."""
  size = dataclasses.replace(SIZE, width=64, ffn_width=128)
  params = step_audio.init_params(jax.random.key(0), size)
  batch = speech_batch((30, 25, 17, 40), seed=8, size=size)
  logits_BTV = apply(params, batch, model=StepAudio(size))
  log_probs = np.asarray(jax.nn.log_softmax(logits_BTV))
  wanted = np.take_along_axis(log_probs[:, :-1], batch.token_BT[:, 1:, None], -1)
  loss = -wanted[..., 0][batch.segment_BT[:, 1:] > 0].mean()
  assert np.log(size.vocabulary) - 0.3 < loss < np.log(size.vocabulary) + 1.0
  stacked = params["decoder"]["layers"]
  out, query = (np.std(stacked["attn"][k]["kernel"]) for k in ("out", "query"))
  # fan-in: 1/√64 for both; residual writes 1/√(2·3 layers) of that.
  np.testing.assert_allclose(query, 1 / 8, rtol=0.05)
  np.testing.assert_allclose(out, 1 / 8 / np.sqrt(6), rtol=0.05)
