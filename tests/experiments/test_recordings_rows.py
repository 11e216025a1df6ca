"""Two halves of a manifest, and what training rows are made of."""

import json
import random

import pytest

from experiments import recordings_rows
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.evals import recordings
from tests.experiments import manifests


def named(rows):
  return {row["id"] for row in rows}


def heard_on(rows, key):
  return {key(row) for row in rows}


def test_no_speaker_and_no_recordist_is_on_both_sides():
  train, heldout, left_out, rest = recordings_rows.halves(manifests.rows())
  for kind in ("digits", "sounds"):
    sides = [
      {
        origin
        for row in side
        if recordings_rows.kind(row) == kind
        for origin in recordings_rows.origins(row)
      }
      for side in (train, heldout)
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
  # Two of the four speakers, with ten digits and a string each.
  digits = [row for row in heldout if recordings_rows.kind(row) == "digits"]
  assert len(digits) == 22
  # The recordist of both rain and wind has them on one side.
  assert sum({"rain-r1", "wind-r1"} <= named(side) for side in (train, heldout)) == 1
  assert not left_out
  assert named(rest) == {"mood"}


def test_rows_whose_parts_lie_on_both_sides_are_left_out_and_no_others():
  rows = manifests.rows()
  train, heldout, *_ = recordings_rows.halves(rows)
  side = {row["speaker"]: n for n, some in enumerate((train, heldout)) for row in some}
  pairs = [(a, b) for a in manifests.SPEAKERS for b in manifests.SPEAKERS if a < b]
  mixed = {f"string-{a}+{b}" for a, b in pairs if side[a] != side[b]}
  assert len(mixed) == 4  # 2 × 2
  rows += [manifests.string(f"{a}+{b}", 3, 4) for a, b in pairs]
  found = recordings_rows.halves(rows)
  assert named(found.left_out) == mixed
  assert len(found.train) + len(found.heldout) == len(rows) - 1 - len(mixed)


def test_sides_depend_on_names_alone_and_not_on_order_or_sound():
  rows = manifests.rows()
  want = [named(side) for side in recordings_rows.halves(rows)]
  random.Random(1).shuffle(rows)
  rows = [{**row, "file": "other.wav", "choices": None} for row in rows]
  assert [named(side) for side in recordings_rows.halves(rows)] == want


def test_a_row_of_nobody_is_an_error():
  row = manifests.row("x", "What?", ["a", "b"], "a", "sound_event")
  with pytest.raises(ValueError, match="'x' has no 'speaker', 'author' or 'source'"):
    recordings_rows.halves([row])


def test_a_manifest_that_cannot_be_cut_in_two_is_an_error():
  one = [row for row in manifests.rows() if row["speaker"] in ("ann", None)]
  with pytest.raises(ValueError, match=r"\['digits'\] are left for 'heldout'"):
    recordings_rows.halves(one)


def test_the_real_manifest_in_halves(shared_audio):
  rows = json.loads((shared_audio / "manifest.json").read_text())
  train, heldout, left_out, rest = recordings_rows.halves(rows)
  assert len(train) + len(heldout) + len(left_out) + len(rest) == len(rows)
  wanted = {"digit", "digit_string", "sound_event"}
  assert not wanted & {row["meta"]["task"] for row in rest}
  assert not left_out
  for key in (
    lambda row: row["speaker"],
    lambda row: row["meta"].get("author"),
    lambda row: row["meta"].get("freesound"),
    lambda row: row["file"],
    lambda row: row["meta"]["sha256"],
  ):
    both = heard_on(train, key) & heard_on(heldout, key)
    assert both <= {None}
  assert heard_on(heldout, lambda row: row["speaker"]) - {None} == {
    "fsdd:george",
    "fsdd:jackson",
  }
  for side in (train, heldout):
    sounds = [row["answer"] for row in side if row["meta"]["set"] == "esc10"]
    assert len(set(sounds)) == 10  # every kind of sound, three clips at least
    assert min(sounds.count(label) for label in set(sounds)) >= 3


def test_strings_of_one_speaker_say_what_their_files_say():
  rows = manifests.rows()
  made = recordings_rows.strings(rows, 5, seed=3)
  assert len(made) == 5 * len(manifests.SPEAKERS)
  said = {row["file"]: row["answer"] for row in rows}
  numerals = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
  numerals |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
  for row in made:
    words = [said[file] for file in row["files"]]
    assert 2 <= len(words) <= 6
    assert row["answer"] == " ".join(numerals[word] for word in words)
    assert row["meta"]["transcript"] == " ".join(words)
    assert row["question"] == manifests.STRING_QUESTION
    assert all(file.startswith(row["speaker"]) for file in row["files"])
  assert len({tuple(row["files"]) for row in made}) > 5
  assert recordings_rows.strings(rows, 5, seed=3) == made
  digits = [row for row in rows if row["meta"]["task"] == "digit"]
  assert recordings_rows.strings(digits, 5, seed=3) == []  # no string to ask alike


def test_variants_hold_the_answer_once_among_options_of_the_training_rows():
  rows = [manifests.digit(speaker, n) for speaker in ("ann", "bob") for n in range(4)]
  made = recordings_rows.variants(rows, {"digit": 6}, seed=0)
  assert len({row["id"] for row in made}) == len(made) == 48
  for row in made:
    assert row["choices"].count(row["answer"]) == 1
    assert len(row["choices"]) == 2
    assert row["take"] == 0 or set(row["choices"]) <= {"zero", "one", "two", "three"}
  first = [row for row in made if row["take"] == 0]
  asked = {row["id"]: set(row["choices"]) for row in rows}
  assert all(set(row["choices"]) == asked[row["id"][:4]] for row in first)
  places = [row["choices"].index(row["answer"]) for row in made]
  assert 12 <= sum(places) <= 36  # of 48 the second of two options
  (string,) = recordings_rows.variants(
    [manifests.string("ann", 1)], {"digit_string": 1}, seed=0
  )
  assert string["choices"] is None


def test_a_dialogue_asks_as_the_benchmark_does_and_closes_a_true_thought(tmp_path):
  rows = [
    manifests.digit("ann", 3),
    manifests.string("ann", 1, 2),
    manifests.sound("r1", "rain"),
  ]
  for row in rows:
    (tmp_path / row["file"]).write_bytes(b"sound")
  (tmp_path / "manifest.json").write_text(json.dumps(rows))
  items = recordings.read(tmp_path)
  made = [recordings_rows.dialogue(item) for item in items]
  turns = [row["messages"][-1] for row in made]
  assert [(turn["think"], turn["content"][0]["text"]) for turn in turns] == [
    ("The voice says three.", "three"),
    ("The voice says one two.", "one two"),
    ("I hear rain.", "rain"),
  ]
  assert [row["answer"] for row in made] == ["three", "1 2", "rain"]
  for item, row in zip(items, made, strict=True):
    talk = schema.dialogue(Row(row, "here", str(tmp_path)))
    assert talk.row["messages"][:-1] == item.talk.row["messages"]
    reply = talk.row["messages"][-1]["content"][0]["text"]
    assert recordings.score(item, reply).value == 1.0
