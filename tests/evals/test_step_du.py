"""Step-DU: all references of the release, half points, folders as shipped."""

import pytest

from stepaudio_jax.evals import step_du
from tests.evals import rows as rows_lib

ROW = {
  "id": 1,
  "primary_dimension": "理解",
  "secondary_dimension": "性别理解, 年龄理解",
  "input_question_text": "请你分析音频中人物的年龄和性别分别是什么？",
  "recording_requirement_or_qa_category": "青年/年轻人；男：变声之后",
  "audio_path": "audio/01.wav",
}


@pytest.fixture(name="item")
def _item(tmp_path):
  (item,) = step_du.read(rows_lib.folder(tmp_path, [ROW], [ROW["audio_path"]]))
  return item


def test_all_references_of_the_release():
  rows = rows_lib.shared("step_du_references.json")["rows"]
  assert len(rows) == 87
  for row in rows:
    assert step_du.points(row[step_du.REFERENCE]) == row["expected_points"], row["id"]


@pytest.mark.parametrize(
  ("reference", "wanted"),
  [
    ("a; b；c", [["a"], ["b"], ["c"]]),
    ("a / b／c", [["a", "b", "c"]]),
    ("a/b;c: d; e/f", [["a", "b"], ["c"]]),
    (" a ；；", [["a"]]),
    ("：a", []),
  ],
)
def test_points_and_equivalents(reference, wanted):
  assert step_du.points(reference) == wanted


def test_the_released_folder_is_read_whole(tmp_path):
  rows = rows_lib.shared("step_du_references.json")["rows"]
  kept = [{key: row[key] for key in ROW} for row in rows]
  paths = [row["audio_path"] for row in rows]
  items = step_du.read(rows_lib.folder(tmp_path, kept, paths))
  assert [item.id for item in items] == [str(n) for n in range(1, 88)]
  assert {item.groups["primary_dimension"] for item in items} == {"理解"}
  assert len({item.groups["secondary_dimension"] for item in items}) == 8
  assert sum("；" in item.gold for item in items) == 10
  for item, row in zip(items, rows, strict=True):
    (question,) = step_du.questions(item, "回答")
    listed = [" 或 ".join(equal) for equal in row["expected_points"]]
    numbered = "\n".join(f"{n}. {one}" for n, one in enumerate(listed, 1))
    assert f"任意一个即可）：\n{numbered}\n\n" in question.text


def test_what_the_model_and_the_judge_are_asked(item, tmp_path):
  assert item.id == "1"
  assert item.gold == ROW[step_du.REFERENCE]
  assert rows_lib.texts(item) == [("human", [ROW["input_question_text"], "<audio>"])]
  assert item.talk.audio[0].source == str(tmp_path / "audio/01.wav")
  (question,) = step_du.questions(item, "一位{年轻}男士")
  for words in (
    "性别理解, 年龄理解",
    ROW["input_question_text"],
    "1. 青年 或 年轻人\n2. 男\n",
    "一位{年轻}男士",
    '{"score": 0 或 0.5 或 1,',
  ):
    assert words in question.text
  assert "变声" not in question.text
  assert question.template == step_du.JUDGE.hash


@pytest.mark.parametrize(
  ("verdict", "value"),
  [
    ('{"score": 1, "reason": "都对"}', 1.0),
    ('```json\n{"score": 0.5}\n```', 0.5),
    ('{"score": 0}', 0.0),
    ('{"score": 0.8}', None),
    ("1", None),
    (None, None),
  ],
)
def test_half_points_count_and_nothing_else(item, verdict, value):
  found = step_du.score(item, "青年男性", [verdict])
  assert found.value == value
  assert found.extracted == "青年男性"


def test_no_answer_is_not_judged(item):
  assert step_du.questions(item, " ") == []
  for answer in (None, " "):
    assert step_du.score(item, answer, None).value is None


def test_two_judgements_of_one_question_are_an_error(item):
  with pytest.raises(ValueError, match="unpack"):
    step_du.score(item, "青年", ['{"score": 1}'] * 2)


def test_every_fault_of_a_folder_is_told_at_once(tmp_path):
  rows = [
    {**ROW, "audio_path": "audio/gone.wav"},
    {**ROW, "id": 2, "input_question_text": ""},
    {**ROW, "id": 3, step_du.REFERENCE: "：只有说明"},
    {key: value for key, value in ROW.items() if key != "secondary_dimension"},
  ]
  with pytest.raises(ValueError, match="faults: 5, in 4 readable rows") as error:
    step_du.read(rows_lib.folder(tmp_path, rows, ["audio/01.wav"]))
  for words in (
    ":1 ('1'): no audio file 'audio/gone.wav'",
    ":2 ('2'): 'input_question_text'",
    ":3 ('3'): 'recording_requirement_or_qa_category' is '：只有说明'",
    ":4 ('1'): its id '1' is that of",
    ":4 ('1'): 'secondary_dimension'",
  ):
    assert words in str(error.value)
