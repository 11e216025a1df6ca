"""Each benchmark's own fields, prompts and gold answers, out of small folders."""

import collections
import json
import os

import numpy as np

from stepaudio_jax import evaluate
from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.evals import (
  big_bench_audio,
  mmar,
  mmau,
  mmsu,
  recordings,
  spoken_mqa,
)
from tests.evals import scorers
from tests.evals.folders import faults, mmau_row, table, tone

INSTRUCTION = (
  "Please choose the answer from the following options, do not provide any additional "
  "explanations or content: "
)


def test_every_reader_shows_a_row():
  """The README sends there whoever wants to know what the files look like."""
  modules = map(evaluate.load_benchmark, evaluate.benchmark_names())
  readers = [module for module in modules if hasattr(module, "read")]
  assert len(readers) == 10
  assert [one.__name__ for one in readers if '\n  {"' not in one.__doc__] == []


def test_shards_hold_audio_and_are_numbered_through(tmp_path):
  def row(answer, hertz):
    context = {"bytes": tone(hertz), "path": "x.wav"}
    answer = {"audio": None, "text": answer}
    return {"context": context, "instruction": {"text": "Solve"}, "answer": answer}

  sums = "data/short_digit"
  table(tmp_path / f"{sums}-00000-of-00002.parquet", [row("1", 100.0), row("2", 200.0)])
  table(tmp_path / f"{sums}-00001-of-00002.parquet", [row("3.0", 300.0)])
  table(
    tmp_path / "data/multi_step_reasoning-00000-of-00001.parquet",
    [row("So.\n#### 1,234", 400.0)],
  )
  items = spoken_mqa.read(tmp_path)
  assert [(item.id, item.gold, item.groups["subset"]) for item in items] == [
    ("multi_step_reasoning-0", "1234", "multi_step_reasoning"),
    ("short_digit-0", "1", "short_digit"),
    ("short_digit-1", "2", "short_digit"),
    ("short_digit-2", "3.0", "short_digit"),
  ]
  text, sound = items[1].talk.row["messages"][0]["content"]
  assert text == {"type": "text", "text": "Solve the given math question step by step."}
  assert sound["bytes"] == tone(100.0) == items[1].talk.audio[0].source
  assert items[1].row["context"] == {"path": "x.wav"}
  json.dumps(dict(items[1].row))
  heard = audio_io.read(items[2].talk.audio[0].source)
  assert np.allclose(
    heard, 0.5 * np.sin(2 * np.pi * 200 * np.arange(1600) / 16_000), atol=1e-3
  )
  # 3 is right by our rule, by the published one only in the reasoning subsets.
  assert spoken_mqa.official(items, ["1234.0", "1", "The answer is 3", "3"]) == [
    1,
    1,
    0,
    0,
  ]
  assert spoken_mqa.score(items[3], "3").value == 1


def test_a_split_may_be_a_folder(tmp_path):
  bare = {"context": {"bytes": tone()}, "answer": "5"}
  table(tmp_path / "long_digit" / "0000.parquet", [bare])
  (item,) = spoken_mqa.read(tmp_path)
  assert (item.id, item.groups) == ("long_digit-0", {"subset": "long_digit"})


def test_faults_of_tables_name_rows(tmp_path):
  rows = [
    {"context": {"bytes": b"", "path": None}, "answer": "many"},
    {"context": {"bytes": None, "path": None}, "answer": "1"},
    {"context": {"bytes": None, "path": "lost.wav"}, "answer": "1"},
  ]
  table(tmp_path / "short_digit-00000-of-00001.parquet", rows)
  _, *lines = faults(spoken_mqa.read, tmp_path)
  at = "short_digit-00000-of-00001.parquet:row"
  assert [line.split(" (looked")[0] for line in lines] == [
    f"{at} 1 ('short_digit-0'): 'answer' is 'many', which ends with no number",
    f"{at} 1 ('short_digit-0'): the 'bytes' of 'context' are b'', not a file's bytes",
    f"{at} 2 ('short_digit-1'): 'context' has neither 'bytes' nor 'path'; it has "
    "['bytes', 'path']",
    f"{at} 3 ('short_digit-2'): no audio file 'lost.wav'",
  ]


def test_audio_is_looked_for_beside_the_file_and_under_audio(tmp_path):
  row = {
    "id": 7,
    "question": "Where is the stress?",
    "choice_a": "first",
    "choice_b": "last",
    "choice_c": None,
    "answer_gt": "FIRST.",
    "task_name": "stress",
    "category": "Perception",
    "sub-category": "Linguistics",
  }
  places = ("audio/a.wav", "question/b.wav", "c.wav")
  scorers.audio(tmp_path, places)
  names = [os.path.basename(place) for place in places]
  rows = [{**row, "id": k, "audio_path": name} for k, name in enumerate(names)]
  scorers.written(tmp_path / "question", "mmsu.jsonl", rows)
  items = mmsu.read(tmp_path)
  assert [item.talk.audio[0].source for item in items] == [
    str(tmp_path / place) for place in places
  ]
  assert [item.id for item in items] == ["0", "1", "2"]
  assert (items[0].gold, items[0].choices) == ("first", ("first", "last"))
  assert items[0].groups == {
    "category": "Perception",
    "task_name": "stress",
    "sub-category": "Perception: Linguistics",
  }
  assert mmsu.official(items, ["A", "B", None]) == [1, 0, 0]


def texts_and_sounds(item):
  (message,) = item.talk.row["messages"]
  assert message["role"] == "human"
  return [block.get("text", "sound") for block in message["content"]]


def test_prompts(tmp_path):
  """As the specification writes them: letter by letter, text or audio first."""
  options = f"Who speaks?\n{INSTRUCTION}\nA. Man\nB. Woman"
  sample = {"question": "Who speaks?", "choices": ["Man", "Woman"], "answer": "Man"}
  found = {}
  for module, name, row in (
    (mmau, "a.json", mmau_row("a", audio_id="a.wav")),
    (
      mmar,
      "a.json",
      {**sample, "audio_path": "a.wav", "modality": "m", "category": "c"}
      | {"sub-category": "s"},
    ),
    (
      mmsu,
      "a.jsonl",
      {"question": "Who speaks?", "choice_a": "Man", "choice_b": "Woman"}
      | {"answer_gt": "Man", "task_name": "t", "category": "c", "audio_path": "a.wav"},
    ),
    (recordings, "a.json", {**sample, "file": "a.wav"}),
    (
      big_bench_audio,
      "metadata.jsonl",
      {"file_name": "a.wav", "category": "navigate", "official_answer": "Yes"},
    ),
    (spoken_mqa, "a.jsonl", {"context": "a.wav", "answer": "1"}),
  ):
    folder = tmp_path / module.__name__
    scorers.audio(folder, ["a.wav"])
    scorers.written(folder, name, [{"id": "a", **row}])
    (item,) = module.read(folder)
    found[module.__name__.split(".")[-1]] = texts_and_sounds(item)
  assert found == {
    "mmau": [options, "sound"],
    "mmar": [options, "sound"],
    "mmsu": [options, "sound"],
    "recordings": [options, "sound"],
    "big_bench_audio": [
      "sound",
      'Answer the question with only "valid" or "invalid", "yes" or "no", or a number.',
    ],
    "spoken_mqa": ["Solve the given math question step by step.", "sound"],
  }


def test_answers_of_big_bench_audio(tmp_path):
  scorers.audio(tmp_path, ["a.mp3"])
  rows = [
    {"category": category, "official_answer": answer, "file_name": "a.mp3", "id": k}
    for k, (category, answer) in enumerate(
      (
        ("formal_fallacies", "Invalid"),
        ("web_of_lies", "No"),
        ("object_counting", "12"),
        ("object_counting", 7),
      )
    )
  ]
  scorers.written(tmp_path, "metadata.jsonl", rows)
  items = big_bench_audio.read(tmp_path)
  assert [item.gold for item in items] == ["invalid", "no", "12", "7"]
  said = ["It is not valid.", "no", "twelve", "7"]
  scores = [big_bench_audio.score(*pair) for pair in zip(items, said, strict=True)]
  assert [score.value for score in scores] == [1, 1, 1, 1]
  rows[0]["category"] = "hyperbaton"
  rows[1]["official_answer"] = "valid"
  rows[2]["official_answer"] = "a dozen"
  scorers.written(tmp_path, "metadata.jsonl", rows)
  _, *lines = faults(big_bench_audio.read, tmp_path)
  assert [line.split(": ", 1)[1] for line in lines] == [
    "'category' is 'hyperbaton', not one of ['formal_fallacies', 'navigate', "
    "'object_counting', 'web_of_lies']",
    "'official_answer' is 'valid', not ('yes', 'no')",
    "'official_answer' is 'a dozen', not a number",
  ]


def test_recordings_without_an_answer_are_not_asked(tmp_path, caplog):
  scorers.audio(tmp_path, ["a.wav"])
  known = {"file": "a.wav", "question": "What is said?", "answer": "Hello"}
  open_row = {**known, "id": "b", "answer": None, "meta": {"set": "s", "task": "asr"}}
  meta = {"set": "s", "task": None, "fold": 3}
  rows = [{**known, "id": "a", "choices": None, "meta": meta}, open_row]
  scorers.written(tmp_path, "manifest.json", rows)
  (item,) = recordings.read(tmp_path)
  assert (item.id, item.choices, item.groups) == ("a", (), {"set": "s"})
  assert texts_and_sounds(item) == ["What is said?", "sound"]
  assert "1 rows have no answer and are not asked: b" in caplog.text
  del rows[1]["answer"]
  scorers.written(tmp_path, "manifest.json", rows)
  (line,) = faults(recordings.read, tmp_path)[1:]
  assert line.startswith("manifest.json:row 2 ('b'): 'answer' is missing")


def test_real_recordings(shared_audio):
  items = recordings.read(shared_audio)
  assert len(items) == len({item.id for item in items}) == 405
  counted = collections.Counter(item.groups["set"] for item in items)
  assert counted == {
    "fsdd": 160,
    "fsdd_strings": 24,
    "esc10": 79,
    "emodb": 107,
    "emodb_pairs": 12,
    "thorsten": 8,
    "speech": 9,
    "music": 3,
    "nature": 1,
    "commands": 2,
  }
  assert {item.groups["task"] for item in items} >= {"digit", "gender", "emotion"}
  for item in items:
    assert item.gold in item.choices if item.choices else item.gold
    assert recordings.score(item, item.gold).value == 1
    letters = "ABCD"[: len(item.choices)]
    values = [recordings.score(item, letter).value for letter in letters]
    assert values.count(1) == (1 if item.choices else 0)
