"""Step-Caption: judged cases with their scores, labels left out, shipped folders."""

import copy
import json

import pytest

from stepaudio_jax.evals import step_caption
from stepaudio_jax.evals.parts.items import Item, talk
from tests.evals import rows as rows_lib

LABELS = dict.fromkeys(step_caption.FIELDS, "清晰")
ROW = {
  "test_id": "t1",
  "audio": "t1.mp3",
  "is_multi_speakers": True,
  "speakers": [
    {**LABELS, "gender": "无法判断", "emotion": "平静"},
    {**LABELS, "pitch": " 无法识别 "},
  ],
}


def item_of(row: dict) -> Item:
  message = {"role": "human", "content": [{"type": "audio", "bytes": b"x"}]}
  return Item(talk(row["test_id"], [message], "here", ""), None, row=row)


def verdict(first: float, second: float) -> dict:
  """A judge's object for ROW: every field of a speaker alike."""
  return {
    "multi_speaker_judgment_correct": True,
    "speakers": [
      {"speaker_index": n, "field_scores": dict.fromkeys(step_caption.FIELDS, value)}
      for n, value in ((1, first), (2, second))
    ],
  }


def test_judged_cases_of_the_release():
  given = rows_lib.shared("step_caption_examples.json")
  assert [*step_caption.FIELDS] == given["fields"]
  assert {*step_caption.UNDECIDED} == {*given["skip_values"]}
  rows = {row["test_id"]: row for row in given["rows"]}
  assert (len(rows), len(given["judge_cases"])) == (5, 7)
  for row in rows.values():
    found = [step_caption.decided(speaker) for speaker in row["speakers"]]
    assert found == row["expected_scored_fields"]
    (question,) = step_caption.questions(item_of(row), "一段描述")
    kind, count = row["expected_ground_truth_word"], row["expected_num_speakers"]
    assert f"录音里是{kind}（{count} 位说话人）" in question.text
  for case in given["judge_cases"]:
    raw = json.dumps(case["judge"], ensure_ascii=False)
    item = item_of(rows[case["test_id"]])
    found = step_caption.score(item, "一段描述", [f"```json\n{raw}\n```"])
    assert found.value == pytest.approx(case["expected_overall"], abs=1e-6)
    wanted = case["expected_speaker_averages"]
    assert found.detail["speakers"] == pytest.approx(wanted, abs=1e-6)
    counted = case["judge"]["multi_speaker_judgment_correct"]
    assert step_caption.METRICS["speaker_count"](found) == float(counted)


def test_the_mean_is_over_fields_then_over_speakers():
  value = verdict(0.5, 1.0)
  value["speakers"][0]["field_scores"]["emotion"] = {"score": 1, "reason": "相符"}
  value["speakers"][1]["field_scores"]["pitch"] = "left out, so nobody reads it"
  value["speakers"].reverse()
  found = step_caption.score(item_of(ROW), "描述", [json.dumps(value)])
  # Of the first 14 fields are decided: 13 halves and a one.
  assert found.detail["speakers"] == [pytest.approx(7.5 / 14), 1.0]
  assert found.value == pytest.approx((7.5 / 14 + 1) / 2)
  assert step_caption.METRICS["score"](found) == found.value


def test_a_wrong_number_of_speakers_is_0_whatever_the_fields_say():
  value = {**verdict(1.0, 1.0), "multi_speaker_judgment_correct": False}
  assert step_caption.score(item_of(ROW), "描述", [json.dumps(value)]).value == 0.0
  empty = '{"multi_speaker_judgment_correct": false, "speakers": []}'
  assert step_caption.score(item_of(ROW), "描述", [empty]).value == 0.0


def broken() -> dict[str, dict]:
  """Judges' objects that leave something open."""
  found = {name: copy.deepcopy(verdict(1.0, 1.0)) for name in "abcdef"}
  found["a"]["multi_speaker_judgment_correct"] = "true"
  del found["b"]["speakers"][1]
  del found["c"]["speakers"][0]["field_scores"]["timbre"]
  found["d"]["speakers"][0]["field_scores"]["timbre"] = 1.5
  found["e"]["speakers"][1]["speaker_index"] = 1
  del found["f"]["multi_speaker_judgment_correct"]
  return found


@pytest.mark.parametrize("name", [*broken()])
def test_a_judgement_that_is_not_whole_is_unparsed(name):
  raw = json.dumps(broken()[name])
  assert step_caption.score(item_of(ROW), "描述", [raw]).value is None


def test_no_answer_and_no_judgement_are_unparsed():
  assert step_caption.questions(item_of(ROW), "") == []
  for answer, raw in ((None, None), ("", None), ("描述", [None]), ("描述", ["好"])):
    assert step_caption.score(item_of(ROW), answer, raw).value is None


def test_the_judge_sees_what_was_decided_and_no_more():
  (question,) = step_caption.questions(item_of(ROW), "有{一}段描述")
  first, second = question.text.split("说话人 1：")[1].split("说话人 2：")
  assert "- emotion（情绪）：平静" in first
  assert "gender" not in first
  assert "gender" in second
  assert "pitch" not in second
  assert "有{一}段描述" in question.text
  assert question.template == step_caption.JUDGE.hash
  assert "无法" not in question.text


def test_a_folder_as_released(tmp_path):
  folder = rows_lib.folder(tmp_path, [ROW], ["audio/t1.mp3"])
  (item,) = step_caption.read(folder)
  assert (item.id, item.gold, item.groups) == ("t1", None, {"speakers": "several"})
  assert rows_lib.texts(item) == [("human", [step_caption.PROMPT.text, "<audio>"])]
  assert item.talk.audio[0].source == str(tmp_path / "audio/t1.mp3")
  assert len(step_caption.FIELDS) + len(["one or several"]) == 16


def test_every_fault_of_a_folder_is_told_at_once(tmp_path):
  undecided = dict.fromkeys(step_caption.FIELDS, "无法判断")
  lacking = {key: value for key, value in LABELS.items() if key != "timbre"}
  rows = [
    {**ROW, "test_id": "a", "is_multi_speakers": 1},
    {**ROW, "test_id": "b", "speakers": []},
    {**ROW, "test_id": "c", "speakers": [LABELS, lacking]},
    {**ROW, "test_id": "d", "speakers": [undecided]},
    {**ROW, "test_id": "e", "speakers": ["one"], "audio": "gone.mp3"},
    {"id": "f"},
  ]
  with pytest.raises(ValueError, match="faults: 10, in 6 readable rows") as error:
    step_caption.read(rows_lib.folder(tmp_path, rows, ["audio/t1.mp3"]))
  for words in (
    ":1 ('a'): 'is_multi_speakers' is 1",
    ":2 ('b'): 'speakers' is []",
    ":3 ('c'): speaker 2 has no label ['timbre']",
    ":4 ('d'): no speaker has a label that was decided",
    ":5 ('e'): speaker 1 is 'one'",
    ":5 ('e'): no audio file 'gone.mp3'",
    ":6: 'test_id' is missing",
  ):
    assert words in str(error.value)
