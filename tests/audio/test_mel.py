"""Log-mel against transformers' two paths, and against arithmetic by hand."""

import subprocess
import sys

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from stepaudio_jax.audio import io, mel
from stepaudio_jax.core import lengths

THIRTY_S = 480_000
RECORDINGS = [
  "fsdd/0_george_0.flac",  # 0.3 s of telephone speech
  "esc10/1-110389-A_dogbark.flac",  # ends in digital silence
  "emodb/03a02Wc.flac",  # loud anger
  "speech/jfk.flac",  # an old noisy recording
  "thorsten/whisper.flac",
  "music/fishin.flac",
  "nature/robin.flac",
]


@pytest.fixture(scope="module")
def whisper() -> WhisperFeatureExtractor:
  return WhisperFeatureExtractor(feature_size=128)


def whisper_numpy(whisper, samples_N):
  padded = np.pad(samples_N, (0, THIRTY_S - len(samples_N)))
  features_ML = whisper._np_extract_fbank_features(padded[None], "cpu")[0]
  return features_ML.T[: lengths.padded_frames(len(samples_N))]


def whisper_torch(whisper, samples_N):
  padded = np.pad(samples_N, (0, THIRTY_S - len(samples_N)))
  features_ML = whisper._torch_extract_fbank_features(padded)
  return features_ML.T[: lengths.padded_frames(len(samples_N))]


def noise(samples, seed=0):
  rng = np.random.default_rng(seed)
  envelope = np.linspace(0, 1, samples) ** 4  # a wide range, and soft at the start
  return (0.3 * envelope * rng.standard_normal(samples)).astype(np.float32)


def assert_equals_whisper(whisper, samples_N):
  ours = mel.log_mel(samples_N)
  assert ours.dtype == np.float32
  np.testing.assert_allclose(ours, whisper_numpy(whisper, samples_N), rtol=0, atol=1e-6)
  np.testing.assert_allclose(ours, whisper_torch(whisper, samples_N), rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", [321, 480, 16_001, 137_911, 479_680])
def test_noise_equals_whisper(whisper, samples):
  assert_equals_whisper(whisper, noise(samples))


@pytest.mark.parametrize("recording", RECORDINGS)
def test_recordings_equal_whisper(whisper, shared_audio, recording):
  assert_equals_whisper(whisper, io.read(shared_audio / recording))


def test_rows_are_the_padded_frames():
  # All residues of the hop near the shortest clip, and both ends of the range.
  near = range(lengths.SHORTEST_SAMPLES, lengths.SHORTEST_SAMPLES + 330)
  for samples in [*near, 15_999, 16_000, 16_001, 479_521, 479_679, 479_680]:
    framed = 1 + (samples + 479 + 2 * 200 - 400) // 160 - 1
    rows = mel.log_mel(np.zeros(samples, np.float32)).shape
    assert rows == (framed, 128) == (lengths.padded_frames(samples), 128)


def test_a_tone_has_the_energy_worked_out_by_hand():
  # A sine of amplitude a at 1 kHz, the centre of bin 25 (40 Hz each), has the power
  # (200 a / 2)^2 there under a periodic Hann window of 400, which sums to 200. Slaney's
  # scale is linear to 1 kHz = 15 mel, then 27 mel a factor 6.4. The 128 bands have
  # 130 corners; band 42 has corners 42, 43, 44: about 982, 1006, 1030 Hz, so bin 25 is
  # the only one in it. Its height is 2 / width: equal area.
  step = (15 + 27 * np.log(8) / np.log(6.4)) / 129
  low, middle, high = (
    1000 / 15 * mels if mels < 15 else 1000 * 6.4 ** ((mels - 15) / 27)
    for mels in (42 * step, 43 * step, 44 * step)
  )
  assert 960 < low < 1000 < middle < high < 1040
  weight = (1000 - low) / (middle - low) * 2 / (high - low)
  amplitude = 0.5
  expected = (np.log10(weight * (100 * amplitude) ** 2) + 4) / 4
  tone = amplitude * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
  steady_LM = mel.log_mel(tone)[2:98]
  np.testing.assert_array_equal(steady_LM.argmax(axis=1), 42)
  np.testing.assert_allclose(steady_LM[:, 42], expected, rtol=0, atol=1e-6)


def test_silence_is_the_clamped_floor():
  # (log10(1e-10) + 4) / 4
  np.testing.assert_array_equal(mel.log_mel(np.zeros(5_000, np.float32)), -1.5)


def test_the_floor_follows_the_chunks_own_maximum():
  half = np.concatenate([noise(16_000), np.zeros(16_000, np.float32)])
  features = mel.log_mel(half)
  # 8 units of log10 below the maximum, divided by 4.
  assert features.min() == pytest.approx(features.max() - 2, abs=1e-6)
  assert mel.log_mel(half / 100).min() < features.min() - 0.5


def test_blocks_leave_no_trace(monkeypatch):
  samples = noise(40_000)
  whole = mel.log_mel(samples)
  monkeypatch.setattr(mel, "BLOCK_FRAMES", 7)
  np.testing.assert_allclose(mel.log_mel(samples), whole, rtol=0, atol=1e-6)


def test_float64_is_the_same_and_the_input_is_left_alone():
  samples = noise(8_000)
  kept = samples.copy()
  np.testing.assert_array_equal(
    mel.log_mel(samples), mel.log_mel(samples.astype(np.float64))
  )
  np.testing.assert_array_equal(samples, kept)


@pytest.mark.parametrize(
  ("samples", "message"),
  [
    (np.zeros(320, np.float32), "320 samples are too short: 321"),
    (np.zeros(0, np.float32), "0 samples are too short"),
    (np.zeros(479_681, np.float32), "479681 samples overflow.* 479680"),
    (np.zeros((2, 400), np.float32), r"shape \(2, 400\)"),
    (np.zeros(400, np.int16), "int16 samples"),
    (np.array([0.0] * 399 + [np.nan]), "1 of 400 samples are NaN.* at 399"),
    (np.array([0.0, -np.inf, np.inf] + [0.0] * 397), "2 of 400 .* at 1"),
  ],
)
def test_bad_samples_are_named(samples, message):
  with pytest.raises(ValueError, match=message):
    mel.log_mel(samples)


def test_filters_are_made_once_and_not_on_import():
  assert mel.mel_filters() is mel.mel_filters()
  assert not mel.mel_filters().flags.writeable
  seen = "import sys, stepaudio_jax.audio.mel; print('librosa' in sys.modules)"
  printed = subprocess.run(
    [sys.executable, "-c", seen], capture_output=True, text=True, check=True
  )
  assert printed.stdout.strip() == "False"
