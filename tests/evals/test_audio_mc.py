"""Audio MultiChallenge: two real runs, what the judge reads, folders as shipped."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from stepaudio_jax.evals import audio_mc
from stepaudio_jax.evals.parts import marks, totals
from stepaudio_jax.evals.parts.journal import Journal
from tests.evals import rows as rows_lib

ROW = {
  "id": "a",
  "axis": "VOICE_EDITING",
  "rubric": json.dumps(["Says so; all of it.", "Does not say no."]),
  "user_turn_1_transcript": " One? ",
  "user_turn_1_audio": {"path": "a/1.wav"},
  "assistant_turn_1_transcript": "It is.\n",
  "user_turn_2_transcript": "Two?",
  "user_turn_2_audio": "a/2.wav",
}
CLIPS = ("a/1.wav", "audio/a/2.wav")


def said(met: bool) -> str:
  return json.dumps({"explanation": "so", "criteria_met": met})


def item_of(row: dict) -> audio_mc.Item:
  """An item of its text alone; what it sounds like is for the readers' tests."""
  message = {"role": "human", "content": [{"type": "audio", "bytes": b"x"}]}
  talk = audio_mc.reading.items_lib.talk(row["id"], [message], "here", "")
  return audio_mc.Item(talk, None, groups={"axis": row["axis"]}, row=row)


@pytest.mark.parametrize("run", ["audiomc_judged_instruct", "audiomc_judged_thinker"])
def test_apr_and_ars_of_real_runs(run):
  expected = rows_lib.shared("expected_totals.json")[run]
  scored = []
  for judged in rows_lib.shared(f"{run}.jsonl"):
    met = judged["criteria_met"]
    row = {**judged, "rubrics": [f"rubric {k}" for k in range(len(met))]}
    item = item_of(row)
    value = audio_mc.score(item, "a reply", [said(one) for one in met])
    scored.append((item.groups["axis"], value))
  assert [len(scored), sum(len(s.detail["rubrics"]) for _, s in scored)] == [452, 1712]
  assert {axis for axis, _ in scored} == set(audio_mc.AXES) == {*expected["by_axis"]}
  for axis, wanted in [(None, expected), *expected["by_axis"].items()]:
    values = [value for one, value in scored if axis in (None, one)]
    assert len(values) == wanted["n"]
    for name in ("APR", "ARS"):
      mean = sum(map(audio_mc.METRICS[name], values)) / len(values)
      assert mean == pytest.approx(wanted[name], abs=1e-12)


class Scripted:
  """A judge that knows what to say to each rubric."""

  def __init__(self, met: dict[str, bool]):
    self._met = met

  def describe(self) -> dict:
    return {"kind": "scripted"}

  def answers(self, questions) -> list[str]:
    asked = [question.text.split("<rubric>")[1] for question in questions]
    return [f"```json\n{said(self._met[rubric])}\n```" for rubric in asked]


def test_the_suite_sums_a_real_run_up_to_the_same_numbers(tmp_path):
  run = "audiomc_judged_thinker"
  expected, met, items = rows_lib.shared("expected_totals.json")[run], {}, []
  for judged in rows_lib.shared(f"{run}.jsonl"):
    names = [f"{judged['id']} {k}" for k in range(len(judged["criteria_met"]))]
    met |= dict(zip(names, judged["criteria_met"], strict=True))
    row = {**ROW, **judged, "rubric": [f"<rubric>{name}<rubric>" for name in names]}
    items.append(item_of(row))
  replies = [
    {
      "condition": "audio",
      "budget": None,
      "id": item.id,
      "sample": 0,
      "reply": "a reply",
      "think_tokens": None,
      "failed": None,
    }
    for item in items
  ]
  journal = Journal(tmp_path / "journal", "settings")
  verdicts = marks.judged(audio_mc, items, replies, Scripted(met), journal)
  rows = marks.scored(audio_mc, items, replies, verdicts, tmp_path / "clips")
  for item, row in zip(items, rows, strict=True):
    found = [one["met"] for one in row["detail"]["rubrics"]]
    assert found == item.row["criteria_met"]
  summary = totals.summary(rows, audio_mc.METRICS, 1)
  assert (summary["n"], summary["n_unparsed"]) == (452, 0)
  assert marks.described(Scripted(met), verdicts)["templates"] == [audio_mc.JUDGE.hash]
  for found, wanted in [
    (summary, expected),
    *(
      (summary["groups"]["axis"][axis], one)
      for axis, one in expected["by_axis"].items()
    ),
  ]:
    for name in ("APR", "ARS"):
      mean = found["metrics"][name]["mean"]
      assert mean == pytest.approx(wanted[name], abs=1e-12)
    assert found["metrics"]["unreadable"]["mean"] == 0


def test_conversations_that_the_judge_must_get():
  examples = rows_lib.shared("audiomc_history_examples.jsonl")
  assert len(examples) == 5
  for one in examples:
    row, wanted = one["record"], one["expected_conversation_history"]
    assert audio_mc.history(row, one["model_response"]) == wanted
    assert audio_mc.last_turn(row) == row["last_user_turn"]
    asked = audio_mc.questions(item_of(row), one["model_response"])
    assert len(asked) == len(row["rubrics"])
    for question, rubric in zip(asked, row["rubrics"], strict=True):
      assert wanted in question.text
      assert rubric in question.text
      assert question.template == audio_mc.JUDGE.hash


def test_a_reference_of_the_last_turn_and_blank_turns_are_left_out():
  row = {**ROW, "assistant_turn_1_transcript": " ", "assistant_turn_2_transcript": "R"}
  assert audio_mc.history(row, "Yes.") == "User: One?\n\nUser: Two?\n\nAssistant: Yes."


@pytest.mark.parametrize(
  "row",
  [
    {"rubrics": [" a", "b;\n"]},
    {"rubrics": None, "rubric": '["a ", "b;"]'},
    {"rubric": ["a", "b;"]},
  ],
)
def test_rubrics_as_a_list_or_its_json(row):
  assert audio_mc.rubrics(row) == ["a", "b;"]


@pytest.mark.parametrize("value", [None, [], "[]", [" "], '["a", 1]', "a\nb", {"a": 1}])
def test_no_rubric_is_made_up(value):
  with pytest.raises(ValueError, match="'rubric' is"):
    audio_mc.rubrics({"rubric": value})


def test_the_judge_sees_one_rubric_at_a_time():
  first, second = audio_mc.questions(item_of(ROW), "It {is}.")
  assert "Says so; all of it." in first.text
  assert "Does not say no." not in first.text
  assert "Does not say no." in second.text
  assert "User: One?\n\nAssistant: It is.\n\nUser: Two?\n\nAssistant: It {is}." in (
    first.text
  )


def test_an_unreadable_judgement_is_not_met_and_counted():
  value = audio_mc.score(item_of(ROW), "It is.", [said(True), "I think so"])
  assert value.value == 0.0
  shares = {name: metric(value) for name, metric in audio_mc.METRICS.items()}
  assert shares == {"APR": 0.0, "ARS": 0.5, "unreadable": 0.5}
  assert [one["met"] for one in value.detail["rubrics"]] == [True, None]
  assert audio_mc.score(item_of(ROW), "It is.", [None, "?"]).value is None


def test_no_answer_is_not_shown_to_the_judge():
  for answer in (None, "", " \n"):
    assert audio_mc.score(item_of(ROW), answer, None).value is None
  assert audio_mc.questions(item_of(ROW), " \n") == []


def test_a_judgement_that_is_lacking_is_an_error():
  with pytest.raises(ValueError, match="zip"):
    audio_mc.score(item_of(ROW), "It is.", [said(True)])


def test_a_folder_of_json_lines(tmp_path):
  (item,) = audio_mc.read(rows_lib.folder(tmp_path, [ROW], CLIPS))
  assert item.id == "a"
  assert item.groups == {"axis": "VOICE_EDITING", "turns": "2"}
  assert rows_lib.texts(item) == [
    ("human", ["<audio>"]),
    ("assistant", ["It is."]),
    ("human", ["<audio>"]),
  ]
  paths = [str(tmp_path / path) for path in CLIPS]
  assert [audio.source for audio in item.talk.audio] == paths
  assert audio_mc.rubrics(item.row) == ["Says so; all of it.", "Does not say no."]


def test_parquet_files_with_the_sound_in_them(tmp_path):
  turns = range(1, 9)
  columns = {
    "id": ["a", "b"],
    "axis": ["VOICE_EDITING", "SELF_COHERENCE"],
    "rubric": [ROW["rubric"]] * 2,
  }
  silent = {"bytes": None, "path": None}
  for turn in turns:
    sound = {"bytes": rows_lib.clip("MP3"), "path": f"{turn}.wav"}
    columns[f"user_turn_{turn}_audio"] = [
      sound if turn <= 2 else silent,
      sound if turn <= 3 else None,
    ]
    for who in ("user", "assistant"):
      columns[f"{who}_turn_{turn}_transcript"] = [
        f"{who} {turn}" if turn <= last - (who == "assistant") else None
        for last in (2, 3)
      ]
  table = pyarrow.table(columns)
  (tmp_path / "data").mkdir()
  for shard in range(2):
    path = tmp_path / f"data/test-0000{shard}-of-00002.parquet"
    pyarrow.parquet.write_table(table.slice(shard, 1), path)
  first, second = audio_mc.read(tmp_path)
  assert [first.id, second.id] == ["a", "b"]
  assert second.groups == {"axis": "SELF_COHERENCE", "turns": "3"}
  assert [audio.source for audio in first.talk.audio] == [rows_lib.clip("MP3")] * 2
  assert audio_mc.history(first.row, "Yes.") == (
    "User: user 1\n\nAssistant: assistant 1\n\nUser: user 2\n\nAssistant: Yes."
  )
  json.dumps(first.row)  # no bytes


def test_every_fault_of_a_folder_is_told_at_once(tmp_path):
  rows = [
    {**ROW, "axis": "TONE"},
    {**ROW, "id": "b", "rubric": "not JSON"},
    {**ROW, "id": "c", "rubric": [], "user_turn_2_audio": "gone.wav"},
    {**ROW, "id": "d", "assistant_turn_1_transcript": None},
    {**ROW, "id": "e", "user_turn_3_audio": "a/1.wav"},
    {**ROW, "id": "f", "user_turn_1_transcript": ""},
    {"id": "g", "axis": "VOICE_EDITING", "rubric": ["x"]},
    ROW,
  ]
  with pytest.raises(ValueError, match="faults: 9, in 8 readable rows") as error:
    audio_mc.read(rows_lib.folder(tmp_path, rows, CLIPS))
  told = str(error.value)
  for words in (
    "metadata.jsonl:1 ('a'): 'axis' is 'TONE'",
    "metadata.jsonl:2 ('b'): 'rubric' is 'not JSON'",
    "metadata.jsonl:3 ('c'): 'rubric' is []",
    "metadata.jsonl:3 ('c'): no audio file 'gone.wav'",
    "metadata.jsonl:4 ('d'): 'assistant_turn_1_transcript'",
    "metadata.jsonl:5 ('e'): user turn 3 has audio and no transcript",
    "metadata.jsonl:6 ('f'): 'user_turn_1_transcript'",
    "metadata.jsonl:7 ('g'): no user turn has a transcript",
    "metadata.jsonl:8 ('a'): its id 'a' is that of",
  ):
    assert words in told
