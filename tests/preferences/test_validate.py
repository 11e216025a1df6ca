"""Every problem of every line at once; then counts that were made by hand."""

import json

import pytest

from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.preferences import lines
from tests.data.rows import pair_row, write_rows, write_tone
from tests.preferences.told import call, pair

LABEL = "not a whole number from -3 to 3"


def problems(**changes) -> list[str]:
  return lines.read(Row(pair_row(**changes), "f:7", "/data"))[1]


def test_a_good_row_has_no_problem():
  sample, found = lines.read(Row(pair_row(), "f:7", "/data"))
  assert (sample.id, found) == ("p1", [])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"schema": "pref/2"}, "schema 'pref/2'; known is 'pref/1'"),
    ({"schema": None}, "'schema' is missing; the row has ['candidates', 'confid"),
    ({"rater": None}, "'rater' is missing; the row has ['candidates', 'confidence"),
    ({"task_id": 7}, "'task_id' is 7, not a non-empty string"),
    ({"overal": 1}, "unknown keys ['overal']; the choices are ['candidates', "),
    ({"overall": 4}, f"overall: 4 is {LABEL}"),
    ({"overall": 0.5}, "'overall' is 0.5, not a whole number"),
    ({"dims": {"coherence": -4}}, f"dims.coherence: -4 is {LABEL}"),
    ({"dims": []}, "'dims' is [], not an object"),
    ({"scores": {"x": {"a": 6}}}, "scores.x.a: 6 is not a number from 1 to 5"),
    ({"scores": {"z": {"a": 1}}}, "scores: unknown keys ['z']; the choices are ['x', "),
    ({"scores": {"x": 3}}, "scores.x is 3, not an object"),
    ({"context": []}, "messages must be a non-empty list, not []"),
    ({"context": "hm"}, "'context' is 'hm', not a list"),
    ({"rubric": [{"text": "x", "weight": "1"}]}, "rubric 0: 'weight' is '1'"),
    ({"candidates": [{"cid": "x", "text": "A", "model": "m"}]}, "has 1 candidates"),
    ({"candidates": 3}, "'candidates' is 3, not a list"),
    ({"order_seed": 1.5}, "'order_seed' is 1.5, not a whole number"),
    ({"ts": "soon"}, "'ts' is 'soon', neither seconds nor an ISO 8601 time"),
    ({"dims": {"overall": 1}}, "dims.overall is 1; that choice has a key of its own"),
  ],
)
def test_one_wrong_thing_is_one_problem(changes, message):
  found = problems(**changes)
  assert len(found) == 1, found
  assert found[0].startswith("f:7: ")
  assert message in found[0]
  assert "'p1'" in found[0]


def test_all_that_is_wrong_with_a_row_is_told():
  robot, good = {"role": "robot", "content": "x"}, {"role": "user", "content": "y"}
  found = problems(
    schema="pref/2",
    rater=None,
    task_id=None,
    context=[robot, good, {"role": "assistant", "content": "z"}],
    candidates=[
      {"cid": "x", "text": " ", "model": "m", "modle": 1},
      {"cid": "x", "text": "Slow."},
    ],
    overall=5,
    dims={"a": 9, "b": 1, "c": "2"},
    scores={"x": {"a": 0, "b": 3}},
    rubric=[{"text": "x", "weight": 1}, {"text": "y"}],
    confidence="x",
    wrong=1,
  )
  wanted = [
    "'task_id' is missing",
    "'rater' is missing",
    "unknown keys ['wrong']",
    "schema 'pref/2'",
    "message 0: role 'robot' is not in",
    "ends with the assistant",
    "candidate 0 of 'p1': 'text' is ' ', not",
    "candidate 0 of 'p1': unknown keys ['modle']",
    "candidate 1 of 'p1': 'model' is missing",
    "are called 'x'",
    f"overall: 5 is {LABEL}",
    f"dims.a: 9 is {LABEL}",
    f"dims.c: '2' is {LABEL}",
    "scores.x.a: 0 is not",
    "rubric 1: 'weight' is missing",
    "'confidence' is 'x', not a finite number",
  ]
  for part in wanted:
    assert sum(part in one for one in found) == 1, part
  assert len(found) == len(wanted), found


def test_replies_that_say_the_same_are_no_comparison():
  same = [{"cid": cid, "text": "Yes.", "model": "m"} for cid in "xy"]
  assert "both candidates say 'Yes.'" in problems(candidates=same, scores=None)[0]
  other = [same[0], same[1] | {"think": "Hm."}]
  assert problems(candidates=other, scores=None) == []


@pytest.mark.parametrize(
  ("time", "wanted"),
  [
    (12, 12.0),
    ("1970-01-01T00:01:00Z", 60.0),
    ("1970-01-01T01:00:00+01:00", 0.0),
    ("1970-01-02", 86400.0),
    ("yesterday", None),
  ],
)
def test_times(time, wanted):
  assert lines.seconds(time) == wanted


def test_problems_across_rows_and_files(tmp_path, capsys):
  write_tone(tmp_path / "here.wav", 1600)

  def heard(name):
    return [{"role": "user", "content": [{"type": "audio", "path": name}]}]

  first = write_rows(
    tmp_path / "a.jsonl",
    [
      pair("p1", dims={"mood": 1, "wit": 1}, context=heard("here.wav")),
      pair("p1", rater="r2", context=heard("here.wav")),
      pair("p1", rater="r1", context=heard("here.wav")),
      pair("p2", context=heard("gone.wav"), task="t2"),
      pair("p3", context=heard("gone.wav"), task="t2", rater="r2"),
    ],
  )
  with first.open("a") as file:
    file.write("[1]\n{oops\n")
  second = write_rows(
    tmp_path / "b.jsonl",
    [
      pair("p1", task="t9", dims={"mood": 1}),
      pair("q2", context=heard("here.wav"), dims={"mod": 1}, overall=7),
      pair("q3", dims={"mod": 1}),
    ],
  )
  assert call("validate", first, second) == 1
  told = capsys.readouterr().out.partition("\n\n")[0].splitlines()
  assert told == [
    f"{first}:2: id 'p1' is already that of {first}:1, by another rater",
    f"{first}:3: id 'p1' is already that of {first}:1, by the same rater 'r1'",
    f"{first}:6: a list where an object is wanted",
    f"{first}:7: not JSON (Expecting property name enclosed in double quotes: line 1 "
    "column 2 (char 1)): b'{oops'",
    f"{second}:2: 'q2': overall: 7 is not a whole number from -3 to 3",
    f"{second}:3: 'q3': its context is not that of {first}:1, which is of the same "
    "task 't1'",
    f"{first}:1: 'p1': unknown dimension 'wit', which not all files name (--dims may "
    "allow it); the choices are ['mood']",
    f"{second}:3: 'q3': unknown dimension 'mod', which not all files name (--dims may "
    "allow it); the choices are ['mood']",
    f"{first}:4: 'p2': there is no audio file {tmp_path}/gone.wav (rows that need it: "
    "2)",
    "9 problems in 10 rows",
  ]


def test_dimensions_may_be_named(tmp_path, capsys):
  path = write_rows(tmp_path / "a.jsonl", [pair("p1", dims={"mood": 1, "wit": 0})])
  plain = write_rows(tmp_path / "b.jsonl", [pair("p1")])  # names none
  assert call("validate", path, plain) == 0
  assert call("validate", path, "--dims", "mood", "wit") == 0
  capsys.readouterr()
  assert call("validate", path, "--dims", "mood") == 1
  told = capsys.readouterr().out
  assert f"{path}:1: 'p1': unknown dimension 'wit'" in told
  assert "the choices are ['mood']" in told


def test_counts_by_hand(tmp_path, capsys):
  long = ("0123456789", "01234")  # exceeds by half; the other pair by 1 of 5
  write_rows(
    tmp_path / "a.jsonl",
    [
      pair("p1", dims={"mood": 1}, replies=long, gold={"simulated": True}),
      pair("p2", dims={"mood": 0}, replies=long[::-1], rater="r2", overall=0),
      pair("p3", dims={"mood": None}, task="t1#2", rater="r2", overall=3,
           replies=("Fast.", "Fair")),
      pair("p4", task="t1#2", rater="r2", overall=0, replies=("Fast.", "Fair"),
           scores={"x": {"mood": 2}, "y": {"mood": 3, "wit": 1}}),
    ],
  )  # fmt: skip
  out = tmp_path / "out.json"
  assert call("validate", tmp_path / "a.jsonl", "--json", out) == 0
  found = json.loads(out.read_text())
  assert found["problems"] == []
  counts = found["counts"]
  dimensions = counts.pop("dimensions")
  length = counts.pop("length")
  assert counts == {
    "rows": 4,
    "comparisons": 2,
    "dialogues": 1,
    "raters": 2,
    "repeated": 1,
    "simulated": 1,
    "ids_in_several_files": 0,
  }
  assert length["median"] == pytest.approx((0.5 + 0.2) / 2)
  assert dimensions == {
    "overall": {"labels": 4, "missing": 0, "ties": 0.5, "first": 0.25, "scores": 0},
    "mood": {"labels": 2, "missing": 0.5, "ties": 0.5, "first": 0, "scores": 2},
    "wit": {"labels": 0, "missing": 1, "ties": None, "first": None, "scores": 1},
  }
  assert "| wit       |      0 |      100.0 |" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
  assert call("validate", tmp_path / "no.jsonl") == 2
  told = capsys.readouterr().err
  assert told == f"preferences: there is no file {tmp_path}/no.jsonl\n"


def test_all_rows_may_be_wrong(tmp_path, capsys):
  path = write_rows(tmp_path / "a.jsonl", [{"id": "x"}])
  assert call("validate", path) == 1
  assert "9 problems in 1 rows" in capsys.readouterr().out
