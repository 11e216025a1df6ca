"""Silence against zeros that are made and encoded here by hand."""

import functools

import jax
import numpy as np
import pytest

from stepaudio_jax.audio import io
from stepaudio_jax.core import lengths
from stepaudio_jax.data.store import Chunk
from stepaudio_jax.evals.parts import hearing, prompts
from stepaudio_jax.models.step_audio import StepAudio
from tests.evals import worlds

SAMPLES = {"c0": 8_000, "c1": 8_000, "c2": 12_345}


@pytest.fixture(scope="module")
def model():
  return worlds.model()


@pytest.fixture(scope="module")
def heard(tmp_path_factory, model):
  """(frames of three clips, their keys by name, the silence in their place, lengths)"""
  folder = tmp_path_factory.mktemp("hearing")
  talks = prompts.corpus(worlds.write_world(folder / "w") / "dialogues-heldout.jsonl")
  clips = {
    key: audio for key, audio in talks.clips().items() if "c3" not in audio.source
  }
  frames = hearing.store(model.params, folder / "cache")
  hearing.fill(frames, clips, model.params, model.size)
  names = {audio.source[-6:-4]: key for key, audio in clips.items()}
  before = len(frames)
  silence = hearing.silenced(frames, clips, model.params, model.size)
  return frames, names, silence, (before, len(frames))


def test_silence_has_the_shape_of_the_clip(heard):
  frames, names, silence, _ = heard
  assert set(names) == set(SAMPLES)
  for name, key in names.items():
    assert silence.shape(key) == frames.shape(key)
    ((chunk,), (own,)) = silence.read(key), frames.read(key)
    assert chunk.rows.shape == own.rows.shape
    assert chunk.samples == own.samples == SAMPLES[name]
    assert np.abs(chunk.rows - own.rows).max() > 0.1


def test_silence_is_what_the_encoder_makes_of_zeros(heard, model):
  _, names, silence, _ = heard
  # Zeros have power 0, clamped to 1e-10: (log10(1e-10) + 4) / 4 = −1.5 in each band.
  samples, frames = SAMPLES["c2"], lengths.padded_frames(SAMPLES["c2"])
  mel_BLM = np.zeros((1, frames + 9, 128), np.float32)
  mel_BLM[:, :frames] = -1.5
  encode = jax.jit(functools.partial(StepAudio(model.size).apply, method="encode"))
  wanted_BUE, (used,) = encode(
    {"params": model.params}, mel_BLM, np.asarray([samples], np.int32)
  )
  (chunk,) = silence.read(names["c2"])
  assert used == lengths.encoder_frames(samples)
  np.testing.assert_allclose(chunk.rows[:used], wanted_BUE[0, :used], atol=2e-5)


def test_clips_of_one_length_share_one_silence(heard, model):
  frames, names, silence, (before, after) = heard
  assert (before, after) == (3, 5)  # 8,000 and 12,345 samples: encoded once each
  hearing.silenced(frames, names.values(), model.params, model.size)
  assert len(frames) == 5  # and found again by the next run
  np.testing.assert_array_equal(
    silence.read(names["c0"])[0].rows, silence.read(names["c1"])[0].rows
  )


def test_silence_decodes_to_as_many_zeros():
  samples_N = io.read(hearing.silence(8_001).source)
  np.testing.assert_array_equal(samples_N, np.zeros(8_001, np.float32))


class TwoChunks:
  """A store with one clip of two chunks, and two silences."""

  def shape(self, key):
    return ((10, 400_000), (3, 5_000))

  def read(self, key):
    rows, samples = {"long": (10, 400_000), "short": (3, 5_000)}[key]
    return (Chunk(np.full((rows, 4), rows, np.float32), samples),)


def test_every_chunk_of_a_long_clip_falls_silent():
  silence = hearing.Silence(TwoChunks(), {400_000: "long", 5_000: "short"})
  first, second = silence.read("clip")
  assert (len(first.rows), len(second.rows)) == (10, 3)
  assert (first.samples, second.samples) == (400_000, 5_000)
