"""A small world, spoken: its files, its bytes, what can be heard in it."""

import json
import pathlib
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile

from stepaudio_jax.audio import espeak, speech
from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.world import plan, voices, words
from stepaudio_jax.data.world.build import build, main, read_jsonl

ARGUMENTS = {"train_clips": 24, "heldout_per_task": 8, "seed": 0, "processes": 2}
NAMES = {
  f"{k}-{s}" for k in ("clips", "dialogues", "truth") for s in ("train", "heldout")
}
NAMES |= {"captions-train", "text-train"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tmp_path_factory.mktemp("world")
  return build(folder, **ARGUMENTS, text_rows=21)


def all_bytes(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.suffix != ".partial"
  }


def test_the_files_are_those_promised(world):
  folder = world["truth-train"].parent
  assert set(world) == NAMES
  assert {p.name for p in folder.iterdir()} == {f"{n}.jsonl" for n in NAMES} | {
    "speech"
  }
  assert len(read_jsonl(world["clips-train"])) == 24
  assert len(read_jsonl(world["text-train"])) == 21


@pytest.mark.parametrize("kind", ["clips", "dialogues", "text"])
def test_rows_pass_the_schema(world, kind):
  check = schema.speech_clip if kind == "clips" else schema.dialogue
  for name in sorted(NAMES):
    if name.startswith(kind):
      rows = jsonl.Rows(world[name])
      assert [check(rows[k]).id for k in range(len(rows))]


def test_clips_are_there_and_as_long_as_planned(world):
  takes = {
    take.id: take
    for split, counts in (
      ("train", plan.train_counts(24)),
      ("heldout", plan.heldout_counts(8)),
    )
    for take in plan.takes(split, counts, 0)
  }
  rows = [r for s in ("train", "heldout") for r in read_jsonl(world[f"clips-{s}"])]
  assert [row["id"] for row in rows] == list(takes)
  for row in rows:
    take = takes[row["id"]]
    info = soundfile.info(world["clips-train"].parent / row["audio"]["path"])
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert info.frames == round(take.clip.duration_s * 16_000)
    assert row["transcript"] == take.transcript
    labels = {k: v for k, v in row["attributes"].items() if k != "voice"}
    assert labels == take.labels
    assert ("voice" in row["attributes"]) == (len(take.voices) == 1)


def test_dialogues_hear_files_that_exist(world):
  folder = world["dialogues-train"].parent
  for split in ("train", "heldout"):
    for row in read_jsonl(world[f"dialogues-{split}"]):
      heard = [b for m in row["messages"] for b in m["content"] if b["type"] == "audio"]
      assert heard
      assert all((folder / block["path"]).is_file() for block in heard)


def test_same_arguments_same_bytes_also_after_a_kill(world, tmp_path):
  first = all_bytes(world["truth-train"].parent)
  build(tmp_path, **ARGUMENTS, text_rows=21)
  assert all_bytes(tmp_path) == first
  # As a kill leaves it: a file half written, one missing, the speech whole.
  (tmp_path / "truth-train.jsonl").unlink()
  (tmp_path / "clips-train.jsonl.1.partial").write_text('{"id":')
  (tmp_path / "clips-train.jsonl").unlink()
  build(tmp_path, **ARGUMENTS, text_rows=21)
  assert all_bytes(tmp_path) == first


def test_the_command_writes_the_same_and_prompts(world, tmp_path, capsys):
  arguments = [f"--{key}={value}" for key, value in ARGUMENTS.items()]
  out = ["--out", str(tmp_path / "w"), "--text_rows=21"]
  main([*arguments, *out, "--prompt_tasks", "pitch", "rate"])
  made = all_bytes(tmp_path / "w")
  printed = capsys.readouterr().out.split()
  assert sorted(printed) == sorted(str(p) for p in (tmp_path / "w").glob("*.jsonl"))
  for split in ("train", "heldout"):
    rows = [json.loads(row) for row in made.pop(f"prompts-{split}.jsonl").splitlines()]
    assert {row["meta"]["task"] for row in rows} == {"pitch", "rate"}
  assert made == all_bytes(world["truth-train"].parent)


@pytest.mark.parametrize("wrong", [["--prompt_tasks", "pich"], ["--train_clips", "3"]])
def test_a_wrong_command_writes_nothing(tmp_path, capsys, wrong):
  with pytest.raises(SystemExit) as stop:
    main(["--out", str(tmp_path / "w"), *wrong])
  assert stop.value.code == 2
  assert capsys.readouterr().err.startswith("build: ")
  assert not (tmp_path / "w").exists()


def test_a_folder_with_another_world_is_an_error(world):
  folder = world["truth-train"].parent
  before = all_bytes(folder)
  with pytest.raises(ValueError, match="another plan"):
    build(folder, **{**ARGUMENTS, "seed": 1})
  assert all_bytes(folder) == before


@pytest.mark.parametrize(
  ("change", "message"),
  [({"train_clips": 5}, "train_clips=5"), ({"heldout_per_task": 0}, "per_task=0")],
)
def test_a_world_too_small_for_its_tasks_is_refused(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    build(tmp_path / "small", **{**ARGUMENTS, **change})
  assert not (tmp_path / "small").exists()


def median_f0_hz(x_N):
  f0, level = (
    librosa.yin(x_N, fmin=60, fmax=420, sr=16_000, frame_length=1024, hop_length=256),
    librosa.feature.rms(y=x_N, frame_length=1024, hop_length=256)[0],
  )
  return np.median(f0[level > 0.25 * level.max()])


def test_pitch_is_heard(world):
  heard = {level: [] for level in words.PITCHES}
  for row in read_jsonl(world["clips-heldout"]):
    if "pitch" in row["attributes"]:
      path = world["clips-heldout"].parent / row["audio"]["path"]
      x_N = soundfile.read(path, dtype="float32")[0]
      heard[row["attributes"]["pitch"]].append(median_f0_hz(x_N))
  low, middle, high = (heard[level] for level in words.PITCHES)
  assert len(low) == len(middle) == len(high) == 6
  assert max(low) < min(middle)
  assert max(middle) < min(high)


def spoken_s(engine, text, voice, rate):
  utterance = speech.Utterance(text, voice, 50, rate, 100, 45)
  return sum(x.size for x in [speech._say(utterance, engine)]) / 16_000


@pytest.fixture(scope="module")
def engine():
  return espeak.Espeak()


@pytest.mark.parametrize("voice", voices.VOICES)
def test_the_longest_sentence_at_the_slowest_rate_fits(engine, voice):
  slowest = voices.RATE_BAND_WPM["slow"][0]
  for text in ("seven seven seven nine", "nine seven seven nine", "six six seven zero"):
    assert spoken_s(engine, text, voice, slowest) < plan.DURATIONS_S[0]
  pair = ("my coat is silver", "I come from Tokyo", "my name is Victor")
  parts = sorted(
    spoken_s(engine, text, voice, voices.PAIR_RATE_WPM[0]) for text in pair
  )
  assert sum(parts[1:]) + plan.GAP_S[1] < plan.DURATIONS_S[0]


def test_rates_are_heard(engine):
  for voice in voices.VOICES:
    bands = [
      [
        spoken_s(engine, "my name is Anna", voice, rate)
        for rate in voices.RATE_BAND_WPM[r]
      ]
      for r in words.RATES
    ]
    slow, normal, fast = bands
    assert min(slow) > 1.1 * max(normal) > 1.2 * max(fast)


def test_the_world_needs_no_jax():
  code = (
    "import sys, stepaudio_jax.data.world.build, stepaudio_jax.data.world.preferences;"
    "assert 'jax' not in sys.modules"
  )
  root = pathlib.Path(plan.__file__).parents[3]
  subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_truth_is_json_of_everything_known(world):
  row = json.loads(world["truth-heldout"].read_text().splitlines()[0])
  assert set(row) >= {"id", "task", "answer", "emotion", "facts", "clips", "simulated"}
  clip = row["clips"][0]
  assert set(clip) >= {"transcript", "speakers", "utterances", "noise_snr_db"}
