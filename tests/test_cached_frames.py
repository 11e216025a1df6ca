"""Frames that went through the store give the same audio tokens as fresh ones."""

import functools

import jax
import numpy as np
import pytest
import soundfile

from stepaudio_jax.audio import io, mel
from stepaudio_jax.core import lengths
from stepaudio_jax.data import features
from stepaudio_jax.data.schema import Audio
from stepaudio_jax.data.store import Store
from stepaudio_jax.models import step_audio
from tests import small


@pytest.mark.parametrize("samples", [321, 16_000, 16_160, 16_480, 16_800, 52_123])
def test_cached_frames_adapt_like_fresh_ones(tmp_path, samples):
  model = step_audio.StepAudio(small.SIZE)
  params = {"params": step_audio.init_params(jax.random.key(0), small.SIZE)}
  path = tmp_path / "clip.wav"
  rng = np.random.default_rng(samples)
  soundfile.write(path, 0.1 * rng.normal(size=samples), 16_000, subtype="FLOAT")
  audio = Audio(str(path), None, None, "clip")
  key = io.content_key(str(path))

  store = Store(tmp_path / "store", "frames")
  encode = jax.jit(functools.partial(model.apply, params, method="encode"))
  features.fill_frames(store, {key: audio}, encode, batch_size=3)
  (chunk,) = store.read(key)
  adapt = functools.partial(model.apply, params, method="adapt")
  cached_BAD = adapt(chunk.rows[None], np.array([len(chunk.rows)]))

  mel_LM = mel.log_mel(io.read(str(path)))
  fresh_BAD = adapt(*encode(mel_LM[None], np.array([samples])))
  tokens = lengths.audio_tokens(samples)
  assert cached_BAD.shape[1] == tokens
  np.testing.assert_allclose(cached_BAD, fresh_BAD[:, :tokens], atol=2e-6)
