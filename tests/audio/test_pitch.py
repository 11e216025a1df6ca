"""Flattened speech: pitch measured by autocorrelation, the rest sample by sample."""

import librosa
import numpy as np
import pytest
import scipy.signal

from stepaudio_jax.audio import effects, io, pitch
from stepaudio_jax.core.lengths import SAMPLE_RATE

FORMANTS = ((600, 80), (1200, 90), (2500, 120))  # centre and bandwidth in Hz
WINDOW = 480  # samples, 30 ms: of envelopes


def voice(f0_N):
  """Pulses at these frequencies through formants, peak 0.5."""
  phase_N = np.cumsum(f0_N) / SAMPLE_RATE
  sound_N = np.diff(np.floor(phase_N), prepend=0)
  for centre, width in FORMANTS:
    radius = np.exp(-np.pi * width / SAMPLE_RATE)
    turn = 2 * np.pi * centre / SAMPLE_RATE
    poles = [1, -2 * radius * np.cos(turn), radius**2]
    sound_N = scipy.signal.lfilter([1 - radius], poles, sound_N)
  return (0.5 * sound_N / np.abs(sound_N).max()).astype(np.float32)


@pytest.fixture(scope="module")
def glide():
  """120 to 240 Hz in two seconds: one octave, its middle 170 Hz."""
  time_N = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
  return voice(120 * 2 ** (time_N / 2))


@pytest.fixture(scope="module")
def flat(glide):
  return pitch.flattened(glide)


def semitones(samples_N):
  """F0 of every 50 ms as semitones above 100 Hz, by the autocorrelation's peak."""
  found = []
  for start in range(800, len(samples_N) - 1600, 800):
    piece = samples_N[start : start + 800].astype(np.float64)
    likeness = np.correlate(piece, piece, "full")[len(piece) - 1 :]
    likeness /= np.arange(len(piece), 0, -1)
    likeness = likeness[50:150]  # 107 to 320 Hz
    # Two periods are as alike as one: the first lag that is nearly the best.
    first = int(np.argmax(likeness > 0.85 * likeness.max()))
    lag = 50 + first + int(np.argmax(likeness[first : first + 12]))
    found.append(12 * np.log2(SAMPLE_RATE / lag / 100))
  return np.asarray(found)


def level_db(samples_N, floor=1e-3):
  """Root mean square around every sample, in decibels."""
  power_N = np.convolve(
    samples_N.astype(np.float64) ** 2, np.ones(WINDOW) / WINDOW, "same"
  )
  return 10 * np.log10(power_N + floor**2)


def test_a_glide_over_an_octave_becomes_monotone(glide, flat):
  before, after = semitones(glide), semitones(flat)
  assert before.std() > 3  # an even glide over 12 semitones: 12 / √12 = 3.46
  assert after.std() < before.std() / 10
  # The median of the glide: 120 · √2 = 169.7 Hz.
  assert np.median(after) == pytest.approx(12 * np.log2(1.697), abs=0.2)


def test_a_wanted_pitch_is_reached_above_and_below(glide):
  for wanted in (120.0, 220.0):
    found = semitones(pitch.flattened(glide, wanted))
    assert np.median(found) == pytest.approx(12 * np.log2(wanted / 100), abs=0.2)
    assert found.std() < 0.35


def test_length_loudness_and_formants_stay(glide, flat):
  assert (flat.shape, flat.dtype) == (glide.shape, np.float32)
  change_db = (level_db(flat) - level_db(glide))[WINDOW:-WINDOW]
  assert np.abs(change_db).max() < 1.5
  # Where the spectrum has its mass: formants did not move with the pitch.
  centre = [
    np.average(np.arange(len(power)), weights=power)
    for power in (np.abs(np.fft.rfft(x)) ** 2 for x in (glide, flat))
  ]
  assert centre[1] == pytest.approx(centre[0], rel=0.05)


def test_loudness_that_rises_is_kept(glide):
  """By 40 dB in two seconds, while every piece is laid down elsewhere."""
  rise_N = 10 ** (np.linspace(-40, 0, len(glide)) / 20)
  rising = (rise_N * glide).astype(np.float32)
  change_db = level_db(pitch.flattened(rising)) - level_db(rising)
  assert np.abs(change_db[WINDOW:-WINDOW]).max() < 1.5


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_comes_back_bit_for_bit(colour):
  for seed in range(3):
    rng = np.random.default_rng(seed)
    noise = effects.noise(SAMPLE_RATE, colour, SAMPLE_RATE, rng).astype(np.float32)
    np.testing.assert_array_equal(pitch.flattened(0.1 * noise), 0.1 * noise)


def test_what_is_not_voiced_is_not_touched(glide):
  """Noise, the voice from 1.0 to 2.0 s, noise: only the voice changes."""
  rng = np.random.default_rng(0)
  noise = (0.05 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
  clip = np.concatenate([noise, glide[SAMPLE_RATE // 2 :][:SAMPLE_RATE], noise])
  kept = clip.copy()
  out = pitch.flattened(clip)
  changed = np.flatnonzero(out != clip)
  margin = SAMPLE_RATE // 20
  assert changed[0] > SAMPLE_RATE - margin
  assert changed[-1] < 2 * SAMPLE_RATE + margin
  assert len(changed) > 0.9 * SAMPLE_RATE
  np.testing.assert_array_equal(clip, kept)  # the argument is not written to


@pytest.mark.parametrize("samples", [1, 321, 16_000])
def test_silence_and_the_shortest_clip_come_back(samples):
  silence = np.zeros(samples, np.float32)
  np.testing.assert_array_equal(pitch.flattened(silence), silence)
  click = silence.copy()
  click[samples // 2] = 0.5
  np.testing.assert_array_equal(pitch.flattened(click), click)


def test_a_long_clip_is_tracked_in_pieces_without_seams(monkeypatch, glide):
  whole = pitch.track(glide)
  monkeypatch.setattr(pitch, "_PIECE_FRAMES", 70)
  pieces = pitch.track(glide)
  assert pieces.shape == whole.shape == (201,)
  np.testing.assert_allclose(12 * np.log2(pieces / whole), 0, atol=0.41)


@pytest.mark.parametrize(
  ("samples", "f0_hz", "message"),
  [
    (np.zeros((2, 400), np.float32), None, r"one channel of .*\(2, 400\)"),
    (np.zeros(400, np.int16), None, "not int16"),
    (np.full(400, np.nan, np.float32), None, "NaN or infinite"),
    (np.zeros(400, np.float32), 30.0, r"f0_hz=30.0 is not in \[60, 500\]"),
  ],
)
def test_what_is_no_clip_or_pitch_is_refused(samples, f0_hz, message):
  with pytest.raises(ValueError, match=message):
    pitch.flattened(samples, f0_hz)


@pytest.mark.parametrize(
  "name", ["emodb/03a07Fa.flac", "thorsten/surprised.flac", "speech/LJ001-0002.flac"]
)
def test_real_speech_loses_its_melody_and_keeps_its_timing(shared_audio, name):
  clip = io.read(shared_audio / name)
  out = pitch.flattened(clip)
  assert out.shape == clip.shape
  spread = []
  for samples_N in (clip, out):
    f0_L, voiced_L, _ = librosa.pyin(
      samples_N, fmin=60, fmax=500, sr=SAMPLE_RATE, frame_length=1024, hop_length=256
    )
    spread.append(np.std(12 * np.log2(f0_L[voiced_L])))
  assert spread[0] > 3
  assert spread[1] < spread[0] / 5
  # Words stand where they stood: envelopes agree, and best without any shift.
  levels = [level_db(x)[::160] for x in (clip, out)]
  assert np.percentile(np.abs(levels[1] - levels[0]), 95) < 1.5
  alike = [
    np.corrcoef(levels[0][3:-3], np.roll(levels[1], k)[3:-3])[0, 1]
    for k in range(-3, 4)
  ]
  assert int(np.argmax(alike)) == 3


def test_a_whisper_has_no_melody_to_lose(shared_audio):
  clip = io.read(shared_audio / "thorsten" / "whisper.flac")
  np.testing.assert_array_equal(pitch.flattened(clip), clip)
