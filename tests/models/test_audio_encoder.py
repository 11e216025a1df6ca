"""The tower and the adaptor against torch, and against themselves in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stepaudio_jax.core import lengths
from stepaudio_jax.models.adaptor import Adaptor, input_rows
from stepaudio_jax.models.step_audio import StepAudio
from tests.models import torch_twin
from tests.models.batches import SIZE, random_params

# All residues of L modulo 4, the shortest and the longest clip, and 25 s.
SAMPLES = (321, 640, 641, 960, 1120, 1280, 16_000, 16_001, 31_840, 400_000, 479_680)


@pytest.fixture(scope="module")
def params():
  return random_params(SIZE, seed=1)


@pytest.fixture(scope="module")
def twin(params):
  return torch_twin.encoder(params["encoder"], SIZE)


@pytest.fixture(scope="module")
def mel_BLM():
  """Noise everywhere, also beyond each clip, where nothing may look."""
  shape = (len(SAMPLES), 2 * SIZE.audio_positions, SIZE.mel_bins)
  return np.random.default_rng(2).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def ours(params, mel_BLM):
  """(frames_UE, frame count, audio_AD) of each clip, from two batches."""
  short = run(params, mel_BLM[:-2, :210], SAMPLES[:-2])
  long = run(params, mel_BLM[-2:], SAMPLES[-2:])
  return [*zip(*short, strict=True), *zip(*long, strict=True)]


def run(params, mel_BLM, samples, dtype=jnp.float32):
  model = StepAudio(SIZE, dtype=dtype)

  @jax.jit
  def forward(params, mel_BLM, sample_count_B):
    encoded = model.apply({"params": params}, mel_BLM, sample_count_B, method="encode")
    return *encoded, model.apply({"params": params}, *encoded, method="adapt")

  outputs = forward(params, mel_BLM, jnp.asarray(samples, jnp.int32))
  return tuple(np.asarray(x.astype(jnp.float32)) for x in outputs)


def alone(twin, params, mel_LM, samples):
  """Frames and audio tokens of an unpadded clip, all in torch."""
  mel_LM = mel_LM[: lengths.padded_frames(samples)]
  heard = (lengths.mel_frames(samples) + 1) // 2
  frames_UE = torch_twin.encode_alone(twin, mel_LM, heard)
  audio_AD = torch_twin.adapt(params["adaptor"], frames_UE)
  return frames_UE.numpy(), audio_AD[: lengths.audio_tokens(samples)].numpy()


def test_valid_frames_equal_transformers_on_the_uncropped_spectrogram(
  twin, mel_BLM, ours
):
  for row, samples in enumerate(SAMPLES):
    frames_UE, frame_count, _ = ours[row]
    heard = (lengths.mel_frames(samples) + 1) // 2
    with torch.no_grad():
      want_UE = twin(
        torch.tensor(mel_BLM[row].T[None]),
        attention_mask=torch_twin.key_mask(SIZE.audio_positions, heard),
      ).last_hidden_state[0]
    count = lengths.encoder_frames(samples)
    assert frame_count == count
    np.testing.assert_allclose(
      frames_UE[:count], want_UE[:count], atol=1e-5, err_msg=str(samples)
    )


def test_audio_tokens_equal_torch_on_each_clip_alone(twin, params, mel_BLM, ours):
  for row, samples in enumerate(SAMPLES):
    frames_UE, _, audio_AD = ours[row]
    want_UE, want_AD = alone(twin, params, mel_BLM[row], samples)
    read = min(int(input_rows(lengths.encoder_frames(samples))), len(want_UE))
    np.testing.assert_allclose(
      frames_UE[:read], want_UE[:read], atol=1e-5, err_msg=str(samples)
    )
    assert not frames_UE[read:].any()
    tokens = lengths.audio_tokens(samples)
    np.testing.assert_allclose(
      audio_AD[:tokens], want_AD, atol=1e-5, err_msg=str(samples)
    )
    assert not audio_AD[tokens:].any()


@pytest.mark.parametrize("row", [0, 2, 3, 6, 7])
def test_a_clip_alone_equals_the_clip_among_longer_ones(params, mel_BLM, ours, row):
  samples = SAMPLES[row]
  mel_1LM = mel_BLM[row : row + 1, : lengths.padded_frames(samples)]
  _, _, audio_1AD = run(params, mel_1LM, [samples])
  tokens = lengths.audio_tokens(samples)
  np.testing.assert_allclose(audio_1AD[0, :tokens], ours[row][2][:tokens], atol=1e-5)


def test_frames_cut_to_the_rows_a_cache_keeps_give_the_same_tokens(params, ours):
  adaptor = Adaptor(SIZE)
  for row in (2, 3, 4, 5):  # L = 5, 6, 7, 8: odd and even frame counts
    frames_UE, count, audio_AD = ours[row]
    cut_1UE, count_1 = (
      frames_UE[None, : input_rows(int(count))],
      jnp.asarray([int(count)]),
    )
    got_1AD = adaptor.apply({"params": params["adaptor"]}, cut_1UE, count_1)
    tokens = lengths.adaptor_tokens(int(count))
    assert got_1AD.shape[1] == tokens
    np.testing.assert_allclose(got_1AD[0], audio_AD[:tokens], atol=1e-5)


def test_bfloat16_stays_near(params, mel_BLM, ours):
  rows = slice(0, 9)
  frames_BUE, _, audio_BAD = run(
    params, mel_BLM[rows, :210], SAMPLES[rows], jnp.bfloat16
  )
  for got, part in ((frames_BUE, 0), (audio_BAD, 2)):
    want = np.stack([clip[part] for clip in ours[rows]])
    error = np.abs(got - want).max()
    assert 0 < error < 0.06 * np.abs(want).max()


def test_a_spectrogram_that_overflows_the_positions_is_an_error(params):
  mel_BLM = np.zeros((1, 3001, SIZE.mel_bins), np.float32)
  with pytest.raises(ValueError, match="3001 frames"):
    run(params, mel_BLM, [479_680])
  with pytest.raises(ValueError, match="9 bins"):
    run(params, np.zeros((1, 100, 9), np.float32), [16_000])
