"""The same plan gives the same bytes, and the plan is what is heard."""

import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import librosa
import numpy as np
import pytest
import soundfile

from stepaudio_jax.audio import effects, espeak, speech

RATE = speech.SAMPLE_RATE
PLAIN = speech.Utterance("seven three nine one", "en-us", 50, 175, 100, 50)
BREATHY = dataclasses.replace(PLAIN, text="My name is Alice.", voice="en-us+f3")


def clip(name, *utterances, **changes):
  one = speech.Clip(name, utterances or (PLAIN,), 0.2, 3.0, None, None, 7)
  return dataclasses.replace(one, **changes)


def variant(**changes):
  return dataclasses.replace(PLAIN, **changes)


def samples(folder, name, shard="00000"):
  x_N, rate = soundfile.read(folder / shard / f"{name}.flac")
  assert rate == RATE
  return x_N


def tree(folder):
  files = [path for path in folder.rglob("*") if path.is_file()]
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rms(x_N):
  return np.sqrt(np.mean(x_N**2))


def wait_for(condition, seconds=20.0):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.01)


PLAN = [
  clip(f"c{i:02d}", PLAIN, BREATHY, duration_s=6.0, noise_snr_db=12.0, seed=i)
  for i in range(6)
]
LONG_PLAN = [clip(f"c{i:03d}", PLAIN, BREATHY, duration_s=20.0) for i in range(120)]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
  """PLAN in two shards of four and two."""
  folder = tmp_path_factory.mktemp("spoken")
  speech.speak_shards(PLAN, folder, shard_size=4)
  return folder


@pytest.fixture(scope="module")
def long_spoken(tmp_path_factory):
  folder = tmp_path_factory.mktemp("long")
  speech.speak_shards(LONG_PLAN, folder, shard_size=60)
  return folder


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
  """One shard in which one thing at a time varies."""
  folder = tmp_path_factory.mktemp("heard")
  clips = [clip("plain")]
  clips += [clip(f"pitch{v}", variant(pitch=v)) for v in (20, 50, 85)]
  clips += [clip(f"rate{v}", variant(rate=v)) for v in (100, 175, 350)]
  clips += [clip(f"volume{v}", variant(volume=v)) for v in (25, 50, 100)]
  clips += [clip(f"range{v}", variant(pitch_range=v)) for v in (0, 99)]
  clips += [clip("two", PLAIN, BREATHY, gap_s=0.75, duration_s=5.0)]
  clips += [clip(f"seed{seed}", seed=seed) for seed in (1, 2)]
  clips += [clip("odd", duration_s=2.34567)]
  speech.speak_shards(clips, folder, shard_size=100)
  return folder


def span(x_N, level=2e-3):
  """The samples between the first and the last that are louder than level."""
  loud = np.flatnonzero(np.abs(x_N) > level)
  return loud[0], loud[-1] + 1


def test_the_same_plan_gives_the_same_bytes_whatever_was_said_before(spoken, tmp_path):
  espeak.Espeak().say(
    "Something else.", "en-us+f5", rate=200, volume=100, pitch=60, pitch_range=60
  )
  # The second may have changed meanwhile: breath noise must not come from the clock.
  time.sleep(1.05)
  speech.speak_shards(PLAN, tmp_path, shard_size=4, processes=1)
  assert tree(tmp_path) == tree(spoken)


def test_index_names_every_file_in_order_with_its_hash(spoken):
  assert sorted(path.name for path in spoken.iterdir()) == ["00000", "00001"]
  rows = []
  for shard in ("00000", "00001"):
    lines = (spoken / shard / "index.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
      data = (spoken / shard / row["path"]).read_bytes()
      assert row["sha256"] == hashlib.sha256(data).hexdigest()
      assert (
        row["samples"]
        == 6 * RATE
        == soundfile.info(spoken / shard / row["path"]).frames
      )
      rows.append(row["id"])
  assert rows == [one.id for one in PLAN]


def test_whole_shards_are_kept_and_missing_ones_made_again(spoken, tmp_path):
  speech.speak_shards(PLAN, tmp_path, shard_size=4)
  for path in (tmp_path / "00001").iterdir():
    path.unlink()
  (tmp_path / "00001").rmdir()
  mark = (tmp_path / "00000" / "c00.flac").stat().st_mtime_ns
  speech.speak_shards(PLAN, tmp_path, shard_size=4)
  assert (tmp_path / "00000" / "c00.flac").stat().st_mtime_ns == mark
  assert tree(tmp_path) == tree(spoken)


def test_another_plan_in_the_folder_is_an_error_and_touches_nothing(spoken):
  before = tree(spoken)
  other = [*PLAN[:5], dataclasses.replace(PLAN[5], seed=99)]
  with pytest.raises(ValueError, match=r"00001 was spoken from another plan"):
    speech.speak_shards(other, spoken, shard_size=4)
  with pytest.raises(ValueError, match=r"beyond this plan's: 00001"):
    speech.speak_shards(PLAN[:4], spoken, shard_size=4)
  assert tree(spoken) == before


def test_a_killed_run_restarts_and_equals_the_never_killed(long_spoken, tmp_path):
  script = tmp_path / "run.py"
  script.write_text(
    textwrap.dedent("""
      import sys, time
      sys.path[:0] = [sys.argv[1], sys.argv[2]]
      from stepaudio_jax.audio import speech
      from test_speech import LONG_PLAN
      finish = speech._finish
      def wait_at_the_second(path, *rest):  # so that the kill always comes in time
        finish(path, *rest) if path.name == "00000" else time.sleep(60)
      speech._finish = wait_at_the_second
      speech.speak_shards(LONG_PLAN, sys.argv[3], shard_size=60, processes=1)
    """)
  )
  here = pathlib.Path(__file__).parent
  folder = tmp_path / "speech"
  run = subprocess.Popen(
    [sys.executable, script, here.parents[1], here, folder], start_new_session=True
  )
  wait_for(lambda: len(list(folder.glob("00001.*.partial/*.flac"))) > 5)
  run.send_signal(signal.SIGKILL)  # the parent only; the child sees its pipe close
  run.wait()
  assert (folder / "00000").exists()
  assert not (folder / "00001").exists()
  (folder / "00001.1.partial").mkdir()
  (folder / "00001.1.partial" / "c060.flac").write_bytes(b"half")
  speech.speak_shards(LONG_PLAN, folder, shard_size=60)
  assert tree(folder) == tree(long_spoken)


def start_shard(folder, clips):
  folder.mkdir()
  plan = {"clips": [dataclasses.asdict(one) for one in clips]}
  (folder / "plan.json").write_text(json.dumps(plan))
  return subprocess.Popen(
    [sys.executable, "-m", "stepaudio_jax.audio.speech", folder],
    stdin=subprocess.PIPE,
    cwd=pathlib.Path(__file__).parents[2],
  )


def test_a_child_ends_when_its_parent_does(tmp_path):
  child = start_shard(tmp_path / "shard", LONG_PLAN * 20)
  wait_for(lambda: (tmp_path / "shard" / "c003.flac").exists())
  assert child.poll() is None
  child.stdin.close()  # what the system does for a parent that is gone
  assert child.wait(timeout=2) == 1


def test_a_killed_child_is_named_and_leaves_nothing(tmp_path, monkeypatch):
  start = speech._start

  def start_and_kill(path, *rest):
    child = start(path, *rest)
    if path.name == "00001":
      wait_for(lambda: list(tmp_path.glob("00001.*.partial/*.flac")))
      child.kill()
    return child

  monkeypatch.setattr(speech, "_start", start_and_kill)
  with pytest.raises(RuntimeError, match=r"00001 was not spoken \(exit status -9\)"):
    speech.speak_shards(LONG_PLAN, tmp_path, shard_size=40)
  assert {path.name for path in tmp_path.iterdir()} <= {"00000"}


def test_the_child_never_imports_jax():
  code = "import sys, stepaudio_jax.audio.speech; print('jax' in sys.modules)"
  out = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, "PYTHONPATH": ""},
  )
  assert out.stdout.split() == [b"False"], out.stderr


def test_too_long_speech_names_the_clip_and_the_shard(tmp_path):
  clips = [clip("fits"), clip("tight", duration_s=0.5)]
  message = r"(?s)shard \S*00000 .*clip 'tight': the speech takes 1\.\d+ s.*=0\.5"
  with pytest.raises(RuntimeError, match=message):
    speech.speak_shards(clips, tmp_path, shard_size=2)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (clip("x", variant(voice="en-us+nosuch")), r"'x': unknown variant 'nosuch'.* f3"),
    (clip("x", variant(voice="klingonese")), r"'x': unknown language .*en-us"),
    (clip("x", variant(text=" ")), r"'x': text ' ' has nothing to say"),
    (clip("x", variant(pitch=100)), r"'x': pitch=100 is not .*\[0, 99\]"),
    (clip("x", variant(rate=79)), r"'x': rate=79 is not .*\[80, 450\]"),
    (clip("x", variant(volume=201)), r"'x': volume=201 is not .*\[5, 200\]"),
    (clip("x", variant(pitch_range=5.0)), r"'x': pitch_range=5\.0 is not an integer"),
    (clip("x", utterances=()), r"'x': no utterances"),
    (clip("x", gap_s=-0.1), r"'x': gap_s=-0\.1"),
    (clip("x", duration_s=float("nan")), r"'x': duration_s=nan"),
    (clip("x", reverb_s=0.0), r"'x': reverb_s=0\.0"),
    (clip("a/b"), r"'a/b': the id must serve as a file name"),
    (clip("good"), r"'good': the id was used before"),
  ],
)
def test_a_bad_clip_is_named_before_anything_is_spoken(tmp_path, bad, message):
  with pytest.raises(ValueError, match=message):
    speech.speak_shards([clip("good"), bad], tmp_path / "none", shard_size=1)
  assert not (tmp_path / "none").exists()


def test_a_text_without_sound_names_the_clip(tmp_path):
  with pytest.raises(RuntimeError, match=r"clip 'x': '\.' gave no sound"):
    speech.speak_shards([clip("x", variant(text="."))], tmp_path, shard_size=1)


def test_duration_is_exact_and_the_lead_comes_from_the_seed(heard):
  assert samples(heard, "plain").size == 3 * RATE
  assert samples(heard, "odd").size == 37531  # round(2.34567 · 16,000)
  starts = [span(samples(heard, name))[0] for name in ("seed1", "seed2")]
  assert abs(starts[0] - starts[1]) > 100


def test_pitch_moves_the_fundamental(heard):
  medians = []
  for value in (20, 50, 85):
    x_N = samples(heard, f"pitch{value}")
    f0_L, voiced_L, _ = librosa.pyin(
      x_N, fmin=50, fmax=400, sr=RATE, frame_length=1024, hop_length=320
    )
    medians.append(np.median(f0_L[voiced_L]))
  assert medians[1] / medians[0] > 1.15
  assert medians[2] / medians[1] > 1.25
  assert 90 < medians[1] < 120  # Hz; the voice's file says 82 to 118


def test_pitch_range_spreads_the_fundamental(heard):
  spreads = []
  for value in (0, 99):
    x_N = samples(heard, f"range{value}")
    f0_L, voiced_L, _ = librosa.pyin(
      x_N, fmin=50, fmax=400, sr=RATE, frame_length=1024, hop_length=320
    )
    low, high = np.percentile(f0_L[voiced_L], [10, 90])
    spreads.append(high / low)
  assert spreads[0] < 1.06
  assert spreads[1] > 1.4


def test_rate_shortens_in_proportion(heard):
  spans = [span(samples(heard, f"rate{value}")) for value in (100, 175, 350)]
  slow, normal, fast = (end - start for start, end in spans)
  assert slow / normal == pytest.approx(175 / 100, rel=0.15)
  assert normal / fast == pytest.approx(350 / 175, rel=0.15)


def test_volume_survives_into_the_file(heard):
  quiet, half, full = (rms(samples(heard, f"volume{v}")) for v in (25, 50, 100))
  assert half / quiet == pytest.approx(2, rel=0.15)
  assert full / half == pytest.approx(2, rel=0.1)


def test_the_gap_is_silence_between_the_utterances(heard):
  x_N = samples(heard, "two")
  start, end = span(x_N)
  silent = np.abs(x_N[start:end]) == 0
  edges = np.flatnonzero(np.diff(np.concatenate([[0], silent, [0]]).astype(int)))
  longest = np.max(edges[1::2] - edges[::2])
  # Resampling rings into the gap for some ms, below one step of 16 bits mostly.
  assert longest == pytest.approx(0.75 * RATE, rel=0.02)


def alone(folder, one):
  """The clip as a fresh process says it first."""
  speech.speak_shards([one], folder, shard_size=1)
  return samples(folder, one.id)


@pytest.mark.parametrize(("snr_db", "seed"), [(20.0, 7), (0.0, 8)])
def test_noise_has_the_asked_power(tmp_path, snr_db, seed):
  dry_N = alone(tmp_path / "dry", clip("x", seed=seed))
  noisy_N = alone(tmp_path / "noisy", clip("x", seed=seed, noise_snr_db=snr_db))
  noise_N = noisy_N - dry_N  # the speech and its place are the same in both
  start, end = span(dry_N)
  measured = 20 * np.log10(rms(dry_N[start:end]) / rms(noise_N))
  assert measured == pytest.approx(snr_db, abs=0.2)
  assert rms(noise_N[:4000]) == pytest.approx(rms(noise_N), rel=0.3)  # from the start


def test_reverberation_keeps_the_power_and_adds_a_tail(tmp_path):
  one = clip("x", duration_s=6.0)
  dry_N = alone(tmp_path / "dry", one)
  wet_N = alone(tmp_path / "wet", dataclasses.replace(one, reverb_s=0.4))
  start, end = span(dry_N)
  assert span(wet_N)[0] == pytest.approx(start, abs=20)
  assert rms(wet_N) == pytest.approx(rms(dry_N), rel=0.15)
  assert np.max(np.abs(dry_N[end:])) < 2e-3
  # Straight after the speech and 0.2 s later, half of RT60: 30 dB.
  early, late = (rms(wet_N[at : at + 800]) for at in (end, end + 3200))
  assert 20 * np.log10(early / late) == pytest.approx(30, abs=8)


def test_room_falls_by_60_db_in_its_time():
  response_N = effects.room(0.5, RATE, np.random.default_rng(0))
  assert np.sum(response_N**2) == pytest.approx(1)
  early, late = rms(response_N[800:1600]), rms(response_N[4800:5600])
  # 0.25 s apart, half of 0.5 s: 30 dB.
  assert 20 * np.log10(early / late) == pytest.approx(30, abs=1)


def test_convolve_is_numpys():
  rng = np.random.default_rng(0)
  x_N, response_N = rng.standard_normal(300), rng.standard_normal(41)
  expected = np.convolve(x_N, response_N)
  np.testing.assert_allclose(effects.convolve(x_N, response_N), expected, atol=1e-12)


@pytest.mark.parametrize(("colour", "slope_db"), [("white", 0.0), ("pink", -3.0)])
def test_noise_colour(colour, slope_db):
  x_N = effects.noise(1 << 17, colour, RATE, np.random.default_rng(0))
  assert rms(x_N) == pytest.approx(1)
  power = np.abs(np.fft.rfft(x_N)) ** 2
  hertz = np.fft.rfftfreq(x_N.size, 1 / RATE)
  octaves = [
    10 * np.log10(np.mean(power[(hertz >= low) & (hertz < 2 * low)]))
    for low in (100, 200, 400, 800, 1600, 3200)
  ]
  np.testing.assert_allclose(np.diff(octaves), slope_db, atol=0.6)


def test_unknown_noise_colour_lists_the_choices():
  with pytest.raises(ValueError, match="'brown'; there are white, pink"):
    effects.noise(10, "brown", RATE, np.random.default_rng(0))
