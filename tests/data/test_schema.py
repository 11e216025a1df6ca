"""Rows of the schemas: what loads, and the error of everything that does not."""

import base64
import json
import os

import pytest

from stepaudio_jax.audio import io
from stepaudio_jax.data import corpus as corpus_lib
from stepaudio_jax.data import features, jsonl, keys, schema
from stepaudio_jax.data.corpus import Corpus, load_set
from stepaudio_jax.data.jsonl import Row
from tests.data.rows import audio_row, pair_row, text_row, write_rows, write_tone


def corpus(path, kind=schema.Dialogue, name="dialogue") -> Corpus:
  return Corpus({name: 1.0}, {name: {"path": str(path)}}, "train", kind)


def test_rows_skip_blank_lines_and_know_their_place(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'{"k": 1}\n\n  \n{"k": "\xc3\xa9"}')
  rows = jsonl.Rows(path)
  assert [row.value for row in rows] == [{"k": 1}, {"k": "é"}]
  assert [row.at for row in rows] == [f"{path}:1", f"{path}:4"]
  assert rows[1].folder == str(tmp_path)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "is empty"),
    (b"\n \n", "is empty"),
    (b'{"id": "a"}\n{"id": ', r"a\.jsonl:2: not JSON"),
    (b'{"id": NaN}', r"a\.jsonl:1: not JSON \(NaN is no JSON number\)"),
    (b'{"id": "\xff"}', r"a\.jsonl:1: not JSON"),
    (b"[1, 2]", r"a\.jsonl:1: a list where an object is wanted"),
  ],
)
def test_a_file_that_is_no_json_lines(tmp_path, content, message):
  path = tmp_path / "a.jsonl"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    list(jsonl.Rows(path))


def test_a_missing_file(tmp_path):
  with pytest.raises(ValueError, match=r"there is no file .*b\.jsonl"):
    corpus(tmp_path / "b.jsonl")


def test_paths_are_relative_to_the_file_and_spans_are_kept(tmp_path):
  (tmp_path / "clips").mkdir()
  write_tone(tmp_path / "clips" / "a.wav", 1600)
  row = audio_row("d", "clips/a.wav", "Hm?", "Yes.")
  row["messages"][0]["content"][0] |= {"start_s": 0.02, "end_s": 0.08}
  sample = corpus(write_rows(tmp_path / "a.jsonl", [row])).sample(0, 0)
  where = str(tmp_path / "clips" / "a.wav")
  assert sample.audio == (schema.Audio(where, 0.02, 0.08, "d"),)
  assert sample.row["messages"][0]["content"][0]["path"] == where


def test_bytes_are_base64_and_need_no_file(tmp_path):
  block = {"type": "audio", "bytes": base64.b64encode(b"RIFF").decode()}
  row = text_row("d", "", "Yes.")
  row["messages"][0]["content"] = [block]
  sample = corpus(write_rows(tmp_path / "a.jsonl", [row])).sample(0, 0)
  assert sample.audio[0].source == b"RIFF"


def test_rows_of_ms_swift_and_openai_load_unchanged(tmp_path):
  name = write_tone(tmp_path / "a.wav", 1600)
  swift = {
    "messages": [
      {"role": "user", "content": "<audio>What is it?"},
      {"role": "assistant", "content": "<think>\nA tone.\n</think>\nA tone."},
    ],
    "audios": [name],
  }
  data = base64.b64encode(b"RIFF").decode()
  openai = text_row("o", "", "Yes.")
  openai["messages"][0] = {
    "role": "user",
    "content": [
      {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    ],
  }
  rows = corpus(write_rows(tmp_path / "a.jsonl", [swift, openai]))
  first, second = rows.sample(0, 0), rows.sample(0, 1)
  assert first.id == f"{tmp_path / 'a.jsonl'}:1"  # such rows have no id
  assert first.audio == (schema.Audio(str(tmp_path / "a.wav"), None, None, first.id),)
  assert first.row["messages"][1]["think"] == "A tone."
  assert second.row["messages"][0]["role"] == "human"
  assert second.audio[0].source == b"RIFF"


def broken(**changes) -> dict:
  return text_row("d7", "Q", "A") | changes


def with_block(block) -> dict:
  return broken(messages=[{"role": "human", "content": [block]}])


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (broken(id=7), "'id' is 7, not a non-empty string"),
    (broken(id=" "), "'id' is ' ', not a non-empty string"),
    (broken(messages=None), "'messages' is null; the row has"),
    ({"id": "d7"}, r"'messages' is missing; the row has \['id'\]"),
    (broken(messages=[]), "'d7'.*non-empty list"),
    (broken(messages=[{"role": "robot", "content": "x"}]), "'d7'.*'robot' is not in"),
    (with_block({"type": "video"}), "'d7'.*'video' is not in"),
    (with_block({"type": "audio", "path": "a", "start_s": 2, "end_s": 1}), "start_s <"),
    (with_block({"type": "audio", "path": "a", "start_s": -1}), "'d7'.*0 <= start_s"),
    (with_block({"type": "audio", "bytes": "é"}), "'d7'.*not base64"),
    (broken(answer=3), "'answer' is 3"),
    (broken(choices=["a", 3]), "choice 3 is not a string"),
    (broken(rubric=[{"text": "x", "wheight": 1}]), "unknown keys \\['wheight'\\]"),
    (broken(rubric=[{"text": "x", "weight": "1"}]), "rubric 0: 'weight' is '1'"),
    (broken(rubric=["x"]), "rubric 0 is 'x', not an object"),
    (broken(meta="x"), "'meta' is 'x', not an object"),
  ],
)
def test_a_wrong_dialogue_is_named_with_its_line(tmp_path, row, message):
  path = write_rows(tmp_path / "a.jsonl", [text_row("good", "Q", "A"), row])
  with pytest.raises(ValueError, match=rf"(?s)a\.jsonl:2: .*{message}"):
    corpus(path)


@pytest.mark.parametrize("has_id", [True, False])
def test_a_place_is_told_once(tmp_path, has_id):
  row = broken(messages=[{"role": "robot", "content": "x"}])
  row = row if has_id else {"messages": row["messages"]}
  path = write_rows(tmp_path / "a.jsonl", [row])
  with pytest.raises(ValueError, match="message 0: role 'robot'") as caught:
    corpus(path)
  assert str(caught.value).count("a.jsonl:1") == 1


def test_a_sound_that_is_too_short_is_named_with_its_file(tmp_path):
  name = write_tone(tmp_path / "a.wav", 160)
  talks = corpus(write_rows(tmp_path / "a.jsonl", [audio_row("d", name, "Q", "A")]))
  wanted = rf"example 'd' \({tmp_path}/a\.wav\): 10 ms of sound"
  with pytest.raises(io.AudioError, match=wanted):
    features.mels(next(iter(talks.clips().values())))


def test_all_wrong_rows_are_listed_up_to_twenty(tmp_path):
  rows = [broken(id=f"d{k}", answer=k) for k in range(30)]
  with pytest.raises(ValueError, match="the first 20") as caught:
    corpus(write_rows(tmp_path / "a.jsonl", rows))
  assert str(caught.value).count("'answer' is") == 20


def test_an_id_that_occurs_twice(tmp_path):
  path = write_rows(tmp_path / "a.jsonl", [text_row(n, "Q", "A") for n in "xyx"])
  with pytest.raises(ValueError, match=r":3: id 'x' is already that of .*a\.jsonl:1"):
    corpus(path)


def test_missing_audio_is_listed_before_anything_else_happens(tmp_path):
  good = write_tone(tmp_path / "good.wav", 1600)
  rows = [audio_row("ok", good, "Q", "A")]
  rows += [audio_row(f"d{k}", f"lost{k}.wav", "Q", "A") for k in range(25)]
  with pytest.raises(ValueError, match="not there") as caught:
    corpus(write_rows(tmp_path / "a.jsonl", rows))
  text = str(caught.value)
  assert f"{tmp_path / 'a.jsonl'}:2: example 'd0': {tmp_path / 'lost0.wav'}" in text
  assert text.count("lost") == 20
  assert "good.wav" not in text


def test_keys_that_nobody_reads_are_logged(tmp_path, caplog):
  corpus(write_rows(tmp_path / "a.jsonl", [broken(anwser="x")]))
  assert "['anwser']" in caplog.text


@pytest.mark.parametrize("few", [0, 2, 9])
def test_one_clip_has_one_key_whatever_its_name(tmp_path, monkeypatch, few):
  monkeypatch.setattr(corpus_lib, "_FEW", few)  # clips kept in mind: none, some, all
  write_tone(tmp_path / "a.wav", 1600)
  (tmp_path / "copy.wav").write_bytes((tmp_path / "a.wav").read_bytes())
  rows = [audio_row(n, f"{n}.wav", "Q", "A") for n in ("a", "copy")]
  rows.append(audio_row("part", "a.wav", "Q", "A"))
  rows[2]["messages"][0]["content"][0]["end_s"] = 0.05
  rows.append(audio_row("again", "copy.wav", "Q", "A"))
  talks = corpus(write_rows(tmp_path / "a.jsonl", rows))
  read = []
  monkeypatch.setattr(
    talks, "sample", lambda *at, old=talks.sample: read.append(at) or old(*at)
  )
  assert [clip.name for clip in talks.clips().values()] == ["a", "part"]
  assert len(read) == (0 if few == 9 else 4)


class TestKeys:
  def test_a_key_is_kept_until_the_file_changes(self, tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    write_tone(path, 1600)
    audio = schema.Audio(str(path), None, 0.05, "a")
    first = keys.Keys(tmp_path / "keys.json")
    key = first[audio]
    assert key == io.content_key(path, None, 0.05)
    first.save()
    reads = []
    hashed = io.content_key
    monkeypatch.setattr(
      io, "content_key", lambda *a, **k: reads.append(a) or hashed(*a, **k)
    )
    again = keys.Keys(tmp_path / "keys.json")
    assert again[audio] == key
    assert not reads
    os.utime(path, ns=(0, 0))
    assert keys.Keys(tmp_path / "keys.json")[audio] == key
    write_tone(path, 1600, 500.0)
    other = keys.Keys(tmp_path / "keys.json")
    assert other[audio] == other[audio] == hashed(path, None, 0.05) != key
    assert len(reads) == 2

  def test_keys_that_another_process_kept_meanwhile_stay(self, tmp_path):
    file = tmp_path / "keys.json"
    clips = []
    for name in "ab":
      write_tone(tmp_path / f"{name}.wav", 1600 + ord(name))
      clips.append(schema.Audio(str(tmp_path / f"{name}.wav"), None, None, name))
    ours, theirs = keys.Keys(file), keys.Keys(file)
    wanted = [ours[clips[0]], theirs[clips[1]]]
    theirs.save()
    ours.save()
    assert sorted(row[-1] for row in json.loads(file.read_text())) == sorted(wanted)
    # A file that has changed has one key, not an old and a new one.
    write_tone(tmp_path / "a.wav", 1600, 900.0)
    later = keys.Keys(file)
    changed = later[clips[0]]
    later.save()
    found = sorted(row[-1] for row in json.loads(file.read_text()))
    assert found == sorted([changed, wanted[1]])

  def test_spans_and_bytes_have_keys_of_their_own(self, tmp_path):
    write_tone(tmp_path / "a.wav", 1600)
    sources = [str(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes(), b"other"]
    known = keys.Keys(tmp_path / "keys.json")
    path, same, other = (known[schema.Audio(s, None, None, "a")] for s in sources)
    assert path == same != other
    assert known[schema.Audio(sources[0], 0.01, None, "a")] != path

  def test_a_corpus_keeps_its_keys(self, tmp_path):
    name = write_tone(tmp_path / "a.wav", 1600)
    path = write_rows(tmp_path / "a.jsonl", [audio_row("d", name, "Q", "A")])
    file = tmp_path / "deep" / "keys.json"
    options = {"dialogue": {"path": str(path)}}
    clips = Corpus({"dialogue": 1.0}, options, "train", key_file=str(file)).clips()
    assert [row[-1] for row in json.loads(file.read_text())] == list(clips)


class TestMixture:
  def test_weights_and_names(self, tmp_path):
    options = {}
    for name in "ab":
      path = write_rows(tmp_path / f"{name}.jsonl", [text_row(name, "Q", "A")])
      options[f"{name}1"] = {"set": "dialogue", "path": str(path)}
    both = Corpus({"b1": 3.0, "a1": 1.0, "off": 0.0}, options, "train")
    assert (both.names, both.weights) == (("a1", "b1"), (1.0, 3.0))
    assert [both.sample(*place).id for place in both.places()] == ["a", "b"]

  def test_files_of_one_name_mix_although_their_rows_have_no_ids(self, tmp_path):
    options = {}
    for name in "ab":
      (tmp_path / name).mkdir()
      row = {k: v for k, v in text_row("", "Q", "A").items() if k != "id"}
      path = write_rows(tmp_path / name / "train.jsonl", [row])
      options[name] = {"set": "dialogue", "path": str(path)}
    both = Corpus({"a": 1.0, "b": 1.0}, options, "train")
    found = [both.sample(*place).id for place in both.places()]
    assert found == [f"{tmp_path}/{name}/train.jsonl:1" for name in "ab"]

  def test_the_split_is_part_of_the_path(self, tmp_path):
    write_rows(tmp_path / "a-heldout.jsonl", [text_row("h", "Q", "A")])
    options = {"dialogue": {"path": str(tmp_path / "a-{split}.jsonl")}}
    assert Corpus({"dialogue": 1.0}, options, "heldout").sample(0, 0).id == "h"

  @pytest.mark.parametrize(
    ("mix", "options", "message"),
    [
      ({"x": 1.0}, {"x": {}}, "unknown data set 'x'; the choices are .*'speech'"),
      ({"x": 1.0}, {"x": {"set": "y"}}, "unknown data set 'y'"),
      ({"dialogue": 1.0}, {}, "no options .* for \\['dialogue'\\]"),
      (
        {"dialogue": 1.0},
        {"dialogue": {"path": "a"}, "dialoge": {"path": "b"}},
        r"options of \['dialoge'\], which the mix does not name",
      ),
      ({"dialogue": 1.0}, {"dialogue": {"pth": "a"}}, "'pth'.*\\['path'\\] missing"),
      ({"dialogue": -1.0}, {"dialogue": {"path": "a"}}, "wrong are {'dialogue': -1.0}"),
      ({"dialogue": 0.0}, {"dialogue": {"path": "a"}}, "not all 0"),
      ({}, {}, "not all 0"),
    ],
  )
  def test_errors(self, mix, options, message):
    with pytest.raises(ValueError, match=message):
      Corpus(mix, options, "train")

  def test_a_set_of_another_kind(self, tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [text_row("d", "Q", "A")])
    with pytest.raises(ValueError, match="holds Dialogue, wanted is Preference"):
      corpus(path, schema.Preference)


class TestPreference:
  def load(self, row):
    return load_set("preference").example(Row(row, "f:1", "/data"))

  def test_candidates_are_whole_dialogues(self):
    pair = self.load(pair_row())
    assert (pair.overall, pair.dims) == (-2, {"naturalness": 1, "coherence": None})
    first, second = pair.candidates
    assert [m["role"] for m in first.messages] == ["human", "assistant"]
    assert (first.think, second.think) == ("Six words.", None)
    assert first.messages[1]["think"] == "Six words."
    assert second.messages == [
      *pair.context,
      {"role": "assistant", "content": [{"type": "text", "text": "Slow."}]},
    ]
    assert pair.gold is None

  def test_the_context_has_its_clips(self):
    context = [{"role": "human", "content": [{"type": "audio", "path": "a.flac"}]}]
    pair = self.load(pair_row(context=context))
    assert pair.audio == (schema.Audio("/data/a.flac", None, None, "p1"),)

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"schema": "pref/2"}, "'pref/2'; known is 'pref/1'"),
      ({"schema": None}, "'schema' is missing"),
      ({"rater": None}, "'rater' is missing"),
      ({"overal": 1}, "unknown keys \\['overal'\\]; the choices are"),
      ({"overall": 4}, "overall: 4 is not a whole number from -3 to 3"),
      ({"overall": 0.5}, "'overall' is 0.5, not a whole number"),
      ({"dims": {"coherence": -4}}, "dims.coherence: -4"),
      ({"dims": {"coherence": True}}, "dims.coherence: True"),
      ({"candidates": [{"cid": "x", "text": "a", "model": "m"}]}, "1 candidates"),
      ({"candidates": [{"cid": "x", "text": "a", "model": "m"}] * 2}, "both .* 'x'"),
      ({"candidates": [{"cid": "x", "text": "a"}] * 2}, "candidate 0.*'model' is miss"),
      ({"candidates": [{"cid": "x", "txt": "a"}] * 2}, "candidate 0.*'txt'"),
      ({"candidates": ["x", "y"]}, "candidate 0 of 'p1' is 'x'"),
      ({"scores": {"z": {}}}, "scores: unknown keys \\['z'\\]; the choices"),
      ({"scores": {"x": {"coherence": 0}}}, "scores.x.coherence: 0 is not a number"),
      ({"scores": {"x": 3}}, "scores.x is 3"),
      ({"context": [{"role": "assistant", "content": "A"}]}, "ends with the assistant"),
      ({"confidence": "high"}, "'confidence' is 'high', not a finite number"),
      ({"ts": None}, "'ts' must be a time"),
      ({"order_seed": None}, "'order_seed' is missing"),
      ({"rubric": [{"text": "x"}]}, "rubric 0: 'weight' is missing"),
    ],
  )
  def test_errors(self, changes, message):
    with pytest.raises(ValueError, match=f"f:1.*{message}"):
      self.load(pair_row(**changes))


class TestSpeechClip:
  def load(self, **changes):
    row = {"id": "c", "audio": {"path": "c.wav"}, "transcript": "hi"} | changes
    return load_set("speech").example(Row(row, "f:1", "/data"))

  def test_a_clip(self):
    clip = self.load(attributes={"pitch": "low"})
    assert clip.audio == (schema.Audio("/data/c.wav", None, None, "c"),)
    assert (clip.transcript, clip.attributes) == ("hi", {"pitch": "low"})

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"transcript": None}, "'c' has no transcript"),
      ({"attributes": {"pitch": 3}}, "attribute 'pitch' of 'c' is 3"),
      ({"audio": {"path": "a", "bytes": "aa"}}, "either 'path' or 'bytes'"),
      ({"audio": {"url": "a"}}, "'url'"),
      ({"audio": "a.wav"}, "'audio' is 'a.wav', not an object"),
      ({"label": "x"}, "unknown keys \\['label'\\]"),
    ],
  )
  def test_errors(self, changes, message):
    with pytest.raises(ValueError, match=f"f:1.*{message}"):
      self.load(**changes)


def test_a_row_read_back_is_the_row_written(tmp_path):
  row = text_row("d", "Q", "A") | {"answer": "A", "choices": ["A"], "meta": {"k": [1]}}
  sample = corpus(write_rows(tmp_path / "a.jsonl", [row])).sample(0, 0)
  assert json.loads(json.dumps(sample.row))["meta"] == {"k": [1]}
  assert {k: sample.row[k] for k in ("id", "answer", "choices")} == {
    "id": "d",
    "answer": "A",
    "choices": ["A"],
  }
