"""Benchmark folders as shipped: read in every format, and every fault told at once."""

import io
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.data.keys import Keys
from stepaudio_jax.evals import mmau
from stepaudio_jax.evals.parts import reading
from tests import bucket
from tests.evals import scorers
from tests.evals.folders import faults, mmau_row, table, tone


def test_three_formats_give_the_same_items(tmp_path):
  rows = [mmau_row("a"), mmau_row("b", answer="Man")]
  found = []
  for name in ("mmau-test-mini.json", "any.jsonl", "data/test-00000-of-00001.parquet"):
    folder = tmp_path / name.replace("/", "-")
    scorers.audio(folder, [row["audio_id"] for row in rows])
    if name.endswith("parquet"):
      table(folder / name, rows)
    else:
      scorers.written(folder, name, rows)
    found.append(
      [(item.id, item.gold, item.groups, item.row) for item in mmau.read(folder)]
    )
    assert [item.talk.audio[0].source for item in mmau.read(folder)] == [
      str(folder / "test-mini-audios" / f"{one}.wav") for one in "ab"
    ]
  groups = {"task": "speech", "difficulty": "easy", "sub-category": "Counting"}
  expected = [
    ("a", "Woman", groups, rows[0]),
    ("b", "Man", groups, rows[1]),
  ]
  assert found == [expected] * 3


def test_every_fault_at_once(tmp_path):
  rows = [
    mmau_row("fine"),
    mmau_row("lost"),
    mmau_row("hollow"),
    mmau_row("renamed", question=None, query="Who speaks?", choices=None),
    mmau_row("typed", choices="Man, Woman", difficulty=3),
    mmau_row("fine", question="Again?"),
    mmau_row("other", answer="Child"),
    ["no object"],
    mmau_row(None),
    mmau_row("holes", choices=["Man", "", 3]),
    mmau_row("none", choices=[]),
    mmau_row("number", audio_id=7),
  ]
  present = ("fine", "renamed", "typed", "other", "None", "holes", "none")
  scorers.audio(tmp_path, [f"test-mini-audios/{name}.wav" for name in present])
  (tmp_path / "test-mini-audios" / "hollow.wav").touch()
  scorers.written(tmp_path, "mmau-test-mini.json", rows)
  first, *lines = faults(mmau.read, tmp_path)
  file = "mmau-test-mini.json"
  expected = (
    ("2 ('lost')", "no audio file './test-mini-audios/lost.wav' (looked for "),
    ("3 ('hollow')", "the audio file test-mini-audios/hollow.wav is empty"),
    ("4 ('renamed')", "'question' is missing; the row has ['answer', 'audio_id', "),
    ("4 ('renamed')", "'choices' is missing; the row has ['answer', 'audio_id', "),
    ("5 ('typed')", "'choices' is 'Man, Woman', not a list"),
    ("5 ('typed')", "'difficulty' is 3, not a non-empty string"),
    ("6 ('fine')", "its id 'fine' is that of mmau-test-mini.json:row 1"),
    ("7 ('other')", "'answer' is 'Child', not one of the choices ['Man', 'Woman']"),
    ("8", "a list where an object is wanted: ['no object']"),
    ("9", "'id' is missing; the row has ['answer', 'audio_id', "),
    ("10 ('holes')", "'choices' holds '', not a non-empty string"),
    ("10 ('holes')", "'choices' holds 3, not a non-empty string"),
    ("10 ('holes')", "'answer' is 'Woman', not one of the choices ['Man', '']"),
    ("11 ('none')", "'choices' is empty"),
    ("12 ('number')", "'audio_id' is 7, not a non-empty string"),
  )
  assert first == f"faults: {len(expected)}, in 11 readable rows"
  for row, text in expected:
    known = [one for one in lines if one.startswith(f"{file}:row {row}: {text}")]
    assert len(known) == 1, (row, text, lines)
  numbers = [int(line.split(":row ")[1].split()[0].strip(":")) for line in lines]
  assert numbers == sorted(numbers)


def test_only_so_many_faults_are_listed(tmp_path):
  rows = [mmau_row(str(k)) for k in range(reading.LISTED + 50)]
  scorers.written(tmp_path, "mmau-test-mini.json", rows)
  first, *lines = faults(mmau.read, tmp_path)
  assert first == "faults: 150, in 150 readable rows"
  assert len(lines) == reading.LISTED + 1
  assert lines[-1] == "and 50 more"
  assert "; no folder, or an empty one: test-mini-audios, audio/test-mini" in lines[0]


@pytest.mark.parametrize(
  ("name", "content", "expected"),
  [
    ("a.json", "[]", "a.json is empty: it holds no rows"),
    ("a.json", " \n", "a.json is empty: it holds no rows"),
    ("a.json", '{"id": "a"}', "a.json: a dict where a list of objects is wanted"),
    ("a.json", '[{"id": ', "a.json: Expecting value"),
    ("a.json", '[{"id": NaN}]', "a.json: NaN is no JSON number"),
    ("a.jsonl", "\n\n", "a.jsonl is empty: it holds no rows"),
    ("a.jsonl", '\n{"id": \n', "a.jsonl:2: not JSON"),
    ("a.parquet", "", "a.parquet: no Parquet file, or a broken one: "),
    ("a.parquet", "PAR1 and no more", "a.parquet: no Parquet file, or a broken one: "),
  ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, expected):
  (tmp_path / name).write_text(content, encoding="utf-8")
  first, line = faults(mmau.read, tmp_path)
  assert first == "faults: 1, in 0 readable rows"
  assert line.startswith(expected)


def test_a_table_without_rows(tmp_path):
  schema = pyarrow.schema([("id", pyarrow.string())])
  empty = pyarrow.Table.from_pylist([], schema=schema)
  pyarrow.parquet.write_table(empty, tmp_path / "a.parquet")
  assert faults(mmau.read, tmp_path)[1] == "a.parquet is empty: it holds no rows"


def test_a_bad_line_does_not_hide_the_rest(tmp_path):
  scorers.audio(tmp_path, ["test-mini-audios/a.wav"])
  lines = [json.dumps(mmau_row("a")), "{", json.dumps(mmau_row("a"))]
  (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
  _, broken, double = faults(mmau.read, tmp_path)
  assert broken.startswith("a.jsonl:2: not JSON")
  assert double == "a.jsonl:3 ('a'): its id 'a' is that of a.jsonl:1"


def test_folders_with_nothing_to_read(tmp_path):
  (tmp_path / "notes.txt").touch()
  expected = (
    r"holds none of \['mmau-test-mini.json', 'mmau-test.json', '\*.json', '\*.jsonl', "
    r"'\*.parquet', '\*/\*.parquet'\]; it holds \['notes.txt'\]"
  )
  with pytest.raises(ValueError, match=expected):
    mmau.read(tmp_path)
  with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
    mmau.read(tmp_path / "nowhere")
  with pytest.raises(ValueError, match=r"notes.txt: the kinds of files that are read"):
    mmau.read(tmp_path / "notes.txt")
  for name in ("one.json", "two.json"):
    scorers.written(tmp_path, name, [mmau_row("a")])
  with pytest.raises(ValueError, match=r"several files .*'one.json', 'two.json'"):
    mmau.read(tmp_path)
  scorers.audio(tmp_path, ["test-mini-audios/a.wav"])
  assert [item.id for item in mmau.read(tmp_path / "two.json")] == ["a"]


def test_test_mini_is_read_before_the_full_test(tmp_path):
  scorers.audio(tmp_path, ["test-mini-audios/a.wav", "test-mini-audios/b.wav"])
  scorers.written(tmp_path, "mmau-test.json", [mmau_row("a"), mmau_row("b")])
  assert len(mmau.read(tmp_path)) == 2
  scorers.written(tmp_path, "mmau-test-mini.json", [mmau_row("a")])
  assert len(mmau.read(tmp_path)) == 1


def test_content_decides_the_decoder(tmp_path):
  mp3 = tone(200.0, "MP3")
  row = mmau_row("a")
  path = tmp_path / "test-mini-audios" / "a.wav"
  path.parent.mkdir()
  path.write_bytes(mp3)
  scorers.written(tmp_path, "mmau-test-mini.json", [row])
  (item,) = mmau.read(tmp_path)
  (audio,) = item.talk.audio
  heard = audio_io.read(audio.source)
  spectrum = np.abs(np.fft.rfft(heard, 16_000))
  assert abs(int(spectrum.argmax()) - 200) <= 5
  assert Keys()[audio] == audio_io.content_key(mp3)


def test_a_remote_file_is_taken_at_its_word(tmp_path):
  row = mmau_row("a", audio_id="gs://bucket/a.wav")
  scorers.written(tmp_path, "mmau-test-mini.json", [row])
  (item,) = mmau.read(tmp_path)
  assert item.talk.audio[0].source == "gs://bucket/a.wav"


def test_a_folder_in_a_bucket(monkeypatch):
  with bucket.served(monkeypatch) as place:
    folder = epath.Path(place) / "mmau"
    rows = [mmau_row("a"), mmau_row("b", audio_id="b.wav"), mmau_row("c")]
    (folder / "mmau-test-mini.json").write_text(json.dumps(rows[:2]))
    for name in ("test-mini-audios/a.wav", "audio/b.wav"):
      (folder / name).write_bytes(tone())
    first, second = mmau.read(folder)
    assert first.talk.audio[0].source == f"{folder}/test-mini-audios/a.wav"
    assert second.talk.audio[0].source == f"{folder}/audio/b.wav"
    assert len(audio_io.read(second.talk.audio[0].source)) == 1600
    (folder / "mmau-test-mini.json").unlink()
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    (folder / "data" / "test-00000-of-00001.parquet").write_bytes(file.getvalue())
    (line,) = faults(mmau.read, folder)[1:]
    at = "data/test-00000-of-00001.parquet:row 3 ('c')"
    assert line.startswith(f"{at}: no audio file './test-mini-audios/c.wav'")


def test_each_folder_of_audio_is_listed_once(tmp_path, monkeypatch):
  rows = [mmau_row(str(k)) for k in range(20)]
  scorers.audio(tmp_path, [row["audio_id"] for row in rows])
  scorers.written(tmp_path, "mmau-test-mini.json", rows)
  listed, scandir = [], os.scandir
  sounds = str(tmp_path / "test-mini-audios")

  def counted(path="."):
    listed.append(str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", counted)
  assert len(mmau.read(tmp_path)) == 20
  assert listed.count(sounds) == 1


def test_more_choices_than_letters(tmp_path):
  scorers.audio(tmp_path, ["test-mini-audios/a.wav"])
  choices = [str(k) for k in range(27)]
  row = mmau_row("a", choices=choices, answer="5")
  scorers.written(tmp_path, "mmau-test-mini.json", [row])
  (line,) = faults(mmau.read, tmp_path)[1:]
  assert line.endswith("27 choices are more than there are letters")
