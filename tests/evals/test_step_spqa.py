"""Step-SPQA: exact answers without a judge, each task's rule, folders as shipped."""

import pytest

from stepaudio_jax.evals import step_spqa
from stepaudio_jax.evals.parts.items import Item, Score, talk
from tests.evals import rows as rows_lib

ROW = {
  "id": "age:x",
  "audio_path": "audio/age/x_input.wav",
  "task_type": "age",
  "task_name": "识别说话人年龄",
  "label": " 20-30岁",
  "reference_answer": "我觉得大概在20到30岁之间。",
  "question": "",
  "audio_only_input": True,
}


def item_of(row: dict) -> Item:
  message = {"role": "human", "content": [{"type": "audio", "bytes": b"x"}]}
  return Item(
    talk("x", [message], "here", ""), None, (), {"task": row["task_type"]}, row
  )


def test_exact_answers_of_the_release():
  given = rows_lib.shared("step_spqa_examples.json")
  assert len(given["rows"]) == 16
  assert set(given["task_types"]) == {*step_spqa.RULES}
  assert len(given["exact_match_cases"]) == 6
  for case in given["exact_match_cases"]:
    item, answer = item_of(given["rows"][case["row"]]), case["answer"]
    wanted = bool(case["exact"])  # true, or "true after trimming …"
    assert step_spqa.exact(item, answer) is wanted
    assert len(step_spqa.questions(item, answer)) == (not wanted)
    assert step_spqa.score(item, answer, []).value == (1.0 if wanted else None)
  for row in given["rows"]:
    item = item_of(row)
    assert step_spqa.exact(item, row["reference_answer"])
    assert step_spqa.exact(item, f"**{row['label'].upper()}**！")
    assert not step_spqa.exact(item, f"不是{row['label']}")


def test_each_task_is_judged_by_its_own_rule():
  hashes = set()
  for task, rule in step_spqa.RULES.items():
    (question,) = step_spqa.questions(item_of({**ROW, "task_type": task}), "大概{三}十")
    for words in (rule, "20-30岁", ROW["reference_answer"], "大概{三}十", "YES"):
      assert words in question.text
    others = [other for other in step_spqa.RULES.values() if other != rule]
    assert not [other for other in others if other in question.text]
    assert question.template == step_spqa.TEMPLATES[task].hash
    hashes.add(question.template)
  assert len(hashes) == 11


@pytest.mark.parametrize(
  ("verdict", "value"),
  [("YES", 1.0), ("NO", 0.0), ("no.", 0.0), ("Maybe", None), (None, None)],
)
def test_the_judges_word(verdict, value):
  found = step_spqa.score(item_of(ROW), "二十来岁", [verdict])
  assert (found.value, found.extracted) == (value, "二十来岁")
  assert found.detail == {"exact": False}


def test_no_answer_is_not_judged():
  assert step_spqa.questions(item_of(ROW), "\n") == []
  for answer in (None, "\n"):
    assert step_spqa.score(item_of(ROW), answer, None) == Score(None)


def test_the_question_is_in_the_sound_unless_the_row_says_otherwise(tmp_path):
  asked = {**ROW, "id": "b", "audio_only_input": False, "question": "多大？"}
  folder = rows_lib.folder(tmp_path, [ROW, asked], [ROW["audio_path"]])
  alone, with_text = step_spqa.read(folder)
  assert rows_lib.texts(alone) == [("human", ["<audio>"])]
  assert rows_lib.texts(with_text) == [("human", ["多大？", "<audio>"])]
  assert alone.groups == {"task": "age"}
  assert alone.gold == "20-30岁 (我觉得大概在20到30岁之间。)"
  assert alone.talk.audio[0].source == str(tmp_path / ROW["audio_path"])


def test_every_fault_of_a_folder_is_told_at_once(tmp_path):
  rows = [
    {**ROW, "task_type": "colour"},
    {**ROW, "id": "b", "label": " "},
    {**ROW, "id": "c", "audio_only_input": "yes"},
    {**ROW, "id": "d", "audio_only_input": False},
    {**ROW, "id": "e", "audio_path": None},
  ]
  with pytest.raises(ValueError, match="faults: 5, in 5 readable rows") as error:
    step_spqa.read(rows_lib.folder(tmp_path, rows, [ROW["audio_path"]]))
  for words in (
    ":1 ('age:x'): 'task_type' is 'colour'",
    ":2 ('b'): 'label'",
    ":3 ('c'): 'audio_only_input' is 'yes'",
    ":4 ('d'): 'question'",
    ":5 ('e'): 'audio_path'",
  ):
    assert words in str(error.value)
