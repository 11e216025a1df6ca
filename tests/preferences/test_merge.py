"""Files made one: nothing twice, nothing lost, sound still found."""

import json

from stepaudio_jax.data.jsonl import Row, Rows
from stepaudio_jax.data.sets import preference
from tests.data.rows import write_rows, write_tone
from tests.preferences.told import call, pair


def heard(name, path="clip.wav"):
  block = {"type": "audio", "path": path, "start_s": None, "end_s": 0.05}
  return pair(name, task=name, context=[{"role": "user", "content": [block]}])


def names(path):
  return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_rows_keep_their_order_and_equal_ones_are_kept_once(tmp_path, capsys):
  shared = heard("b")
  (tmp_path / "one").mkdir()
  first = write_rows(tmp_path / "one" / "a.jsonl", [heard("c"), shared, heard("a")])
  second = write_rows(
    tmp_path / "b.jsonl", [heard("d"), heard("b", "one/clip.wav"), heard("0")]
  )
  out = tmp_path / "out" / "all.jsonl"
  assert call("merge", first, second, "--out", out) == 0
  assert names(out) == ["c", "b", "a", "d", "0"]
  told = capsys.readouterr().out
  assert told == f"wrote {out}: 5 rows of 2 files; 1 were there twice\n"


def test_sound_is_found_from_the_new_folder(tmp_path):
  (tmp_path / "one").mkdir()
  write_tone(tmp_path / "one" / "clip.wav", 1600)
  far = str(tmp_path / "one" / "clip.wav")
  rows = [heard("a"), heard("b", far), heard("c", "gs://bucket/clip.wav"), pair("t")]
  path = write_rows(tmp_path / "one" / "a.jsonl", rows)
  out = tmp_path / "out" / "all.jsonl"
  call("merge", path, "--out", out)
  read = [preference.example(row) for row in preference.source("x", path=str(out))]
  sources = [[clip.source for clip in row.audio] for row in read]
  folder = tmp_path / "out"
  assert sources == [
    [f"{folder}/../one/clip.wav"],
    [far],
    ["gs://bucket/clip.wav"],
    [],
  ]
  assert read[0].audio[0].end_s == 0.05
  # In the same folder nothing changes.
  beside = tmp_path / "one" / "again.jsonl"
  call("merge", path, "--out", beside)
  assert [json.loads(line) for line in beside.read_text().splitlines()] == rows


def test_two_rows_of_one_id_are_both_named(tmp_path, capsys):
  first = write_rows(tmp_path / "a.jsonl", [pair("p1"), pair("p2")])
  second = write_rows(tmp_path / "b.jsonl", [pair("p0"), pair("p2", overall=1)])
  out = tmp_path / "all.jsonl"
  assert call("merge", first, second, "--out", out) == 2
  told = capsys.readouterr().err
  assert told.startswith(f"preferences: {second}:2: id 'p2' is that of another row, ")
  assert f"{first}:2; 1 ids clash" in told
  assert told.count("\n") == 1
  assert not out.exists()


def test_a_task_of_two_contexts_cannot_be_merged(tmp_path, capsys):
  other = [{"role": "user", "content": "Who?"}]
  first = write_rows(tmp_path / "a.jsonl", [pair("p1")])
  second = write_rows(tmp_path / "b.jsonl", [pair("p2", context=other)])
  assert call("merge", first, second, "--out", tmp_path / "c.jsonl") == 2
  assert "of the same task 't1' (1 problems in all" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, capsys):
  path = write_rows(tmp_path / "a.jsonl", [pair("p1")])
  assert call("merge", path, "--out", path) == 2
  assert capsys.readouterr().err == f"preferences: {path} exists; name a new file\n"
  assert len(Rows(path)) == 1
  assert isinstance(Rows(path)[0], Row)
