"""Joined digits, and takes of a recording."""

import numpy as np
import pytest
import soundfile

from experiments import recordings_sound
from stepaudio_jax.audio import io as audio_io

RATE = 16_000


def tone(seconds, hertz=400.0):
  time_N = np.arange(round(seconds * RATE)) / RATE
  return (0.2 * np.sin(2 * np.pi * hertz * time_N)).astype(np.float32)


def loudest_hertz(x_N):
  return np.argmax(np.abs(np.fft.rfft(x_N))) * RATE / len(x_N)


def test_joined_clips_have_pauses_of_150_ms_between_them():
  a, b = tone(0.1), tone(0.2, 800)
  x_N = recordings_sound.joined([a, b, a])
  assert len(x_N) == 1600 + 2400 + 3200 + 2400 + 1600
  np.testing.assert_array_equal(x_N[:1600], a)
  np.testing.assert_array_equal(x_N[1600:4000], 0)
  np.testing.assert_array_equal(x_N[4000:7200], b)
  np.testing.assert_array_equal(recordings_sound.joined([a]), a)


def test_a_take_is_as_much_higher_as_it_is_shorter():
  rng = np.random.default_rng(0)
  ratios = []
  for _ in range(8):
    x_N = recordings_sound.taken(tone(1.0), rng, part="digit")
    ratio = RATE / len(x_N)
    assert loudest_hertz(x_N) == pytest.approx(400 * ratio, rel=0.01)
    assert 0.3 <= np.max(np.abs(x_N)) <= 0.9501
    assert x_N.dtype == np.float32
    ratios.append(ratio)
  assert 0.84 < min(ratios) < 0.97 < 1.03 < max(ratios) < 1.19


def test_a_take_of_a_sound_is_a_part_of_it_and_of_a_digit_the_whole():
  quiet_then_loud = np.concatenate([0.01 * tone(2.0, 300), tone(2.0, 1200)])
  rng = np.random.default_rng(1)
  lengths = [
    len(recordings_sound.taken(quiet_then_loud, rng, part="sound_event")) / RATE
    for _ in range(12)
  ]
  assert min(lengths) < 4 / 1.18 < max(lengths)  # shorter than any speed makes it
  assert min(lengths) > 0.6 * 4 / 1.18


def test_files_are_made_where_they_must_be_and_are_the_same_again(tmp_path):
  for name, seconds in (("a", 0.3), ("b", 0.5)):
    soundfile.write(tmp_path / f"{name}.wav", tone(seconds), RATE, subtype="FLOAT")
  meta = {"task": "digit"}
  rows = [
    {"id": "whole", "file": "a.wav", "meta": meta, "take": 0},
    {"id": "taken", "file": "a.wav", "meta": meta, "take": 1},
    {"id": "joined", "files": ["a.wav", "b.wav"], "meta": meta, "take": 0},
    {"id": "plain", "file": "b.wav", "meta": meta},
  ]
  made = recordings_sound.written(rows, tmp_path, tmp_path / "clips", seed=0)
  assert made[0]["file"] == str(tmp_path / "a.wav")
  assert made[3] == {"id": "plain", "file": str(tmp_path / "b.wav"), "meta": meta}
  assert all(row.keys() == made[3].keys() for row in made)
  names = sorted(path.name for path in (tmp_path / "clips").iterdir())
  assert names == ["joined.flac", "taken.flac"]
  assert len(audio_io.read(made[2]["file"])) == round((0.3 + 0.15 + 0.5) * RATE)
  again = recordings_sound.written(rows, tmp_path, tmp_path / "again", seed=0)
  other = recordings_sound.written(rows, tmp_path, tmp_path / "other", seed=1)
  x_N, same_N, other_N = (
    audio_io.read(some[1]["file"]) for some in (made, again, other)
  )
  np.testing.assert_array_equal(x_N, same_N)
  assert len(x_N) != len(other_N)
