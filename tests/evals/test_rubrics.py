"""A judge in the place of gold: what it is asked, what its replies are worth."""

import json
import re

import pytest

from stepaudio_jax.data.world import talks
from stepaudio_jax.evals import interaction
from stepaudio_jax.evals.interaction import Options
from stepaudio_jax.evals.parts import rubrics
from tests.evals import worlds
from tests.evals.talkers import forgetful, talked, write_talks

OPTIONS = Options(batch_size=4, max_new_tokens=64, temperature=0.0, silence=False)


class Reader:
  """A judge who rates 5 where the reply holds the word that the criterion names.

  Of the dialogue talk-00003's instruction it says nothing that can be read, and
  nothing at all in turn 3.
  """

  def __init__(self):
    self.questions = []

  def describe(self):
    return {"kind": "scripted", "model": "reader"}

  def answers(self, questions):
    self.questions += questions
    return [self._answer(question.text) for question in questions]

  def _answer(self, text):
    reply = re.search(r"that you rate:\n\n(.*)\n\nCriterion", text, re.S)[1]
    word, hint = re.search(r"holds (\S+) in (\S+)\.", text).groups()
    if hint == "riddles":
      return "I would say five."
    if hint == "silence":
      return None
    score = 5 if re.search(rf"\b{word}\b", reply) else 1
    return f'```json\n{{"explanation": "read", "score": {score}}}\n```'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("rubrics") / "data"


@pytest.fixture(scope="module")
def truths(folder):
  truths = write_talks(folder)
  rows = []
  for place, truth in truths.items():
    name, turn = place.split("#")
    place = {"id": name, "turn": int(turn) + 1}
    if truth["task"] == "memory":
      text = f"The reply holds {truth['answer']} in words."
      rows.append({**place, "dimension": "memory", "text": text})
    if truth["instruction"] == "sure":
      hint = {("talk-00003", "0"): "riddles", ("talk-00003", "2"): "silence"}
      text = f"The reply holds Sure in {hint.get((name, turn), 'words')}."
      rows.append({**place, "dimension": "instruction_retention", "text": text})
  # Another dialogue's rows do no harm.
  rows.append({"id": "else", "turn": 99, "dimension": "memory", "text": "x"})
  worlds.write_jsonl(folder / interaction.RUBRICS, rows)
  return truths


@pytest.fixture(scope="module")
def judged(folder, truths):
  judge = Reader()
  return *talked(folder, truths, forgetful, OPTIONS, judge=judge), judge


def means(curve):
  return {one["turn"]: one["mean"] for one in curve["turns"]}


def test_the_judge_finds_what_gold_finds(judged, folder, truths):
  by_gold, _, _ = talked(folder, truths, forgetful, OPTIONS)
  found = judged[0]["dimensions"]
  assert set(found) == {"memory", "instruction_retention"}
  assert means(found["memory"]) == means(by_gold["dimensions"]["memory"])
  assert found["memory"]["slope"] == by_gold["dimensions"]["memory"]["slope"]
  assert min(means(found["memory"]).values()) < 5


def test_what_cannot_be_read_counts_least_and_is_counted(judged, truths):
  sure = {p.split("#")[0] for p, t in truths.items() if t["instruction"] == "sure"}
  assert "talk-00003" in sure
  entries = judged[0]["dimensions"]["instruction_retention"]["turns"]
  share = (5 * (len(sure) - 1) + 1) / len(sure)
  assert [one["mean"] for one in entries] == [share, 5, share, 5]
  assert [one["n_unparsed"] for one in entries] == [1, 0, 1, 0]
  raw = {
    item["turn"]: item["verdicts"]["instruction_retention"]
    for item in judged[1]
    if item["id"] == "talk-00003"
  }
  assert (raw[1], raw[3]) == ("I would say five.", None)
  assert json.loads(raw[2].strip("`json\n")) == {"explanation": "read", "score": 5}


def test_questions_show_the_conversation_and_one_reply(judged):
  _, items, _, judge = judged
  asked = [(item, dimension) for item in items for dimension in item["asked"]]
  assert len(judge.questions) == len(asked)
  for (item, dimension), question in zip(asked, judge.questions, strict=True):
    history, _, rest = question.text.partition("The assistant's reply that you rate:")
    assert rest.strip().startswith(item["reply"])
    assert dimension.replace("_", " ") in rest
    assert history.count("human: [audio] ") == item["turn"]
    assert history.count("assistant: ") == item["turn"] - 1
    assert item["think"] not in question.text
    assert question.template == rubrics.TEMPLATE.hash
  own = [item["reply"] for item in items if item["id"] == "talk-00001"]
  last = [
    q.text
    for (i, _), q in zip(asked, judge.questions, strict=True)
    if (i["id"], i["turn"]) == ("talk-00001", 4)
  ]
  assert all(f"assistant: {reply}\n" in last[0] for reply in own[:-1])


def test_the_result_says_who_judged(judged):
  summary = judged[0]
  assert summary["simulated"] is False
  assert summary["listener"] == {
    "kind": "scripted",
    "model": "reader",
    "template": rubrics.TEMPLATE.hash,
  }
  page = interaction.page({**summary, "checkpoint": "x"})
  assert "judged by rubrics" in page
  assert "simulated" not in page
  assert rubrics.TEMPLATE.hash in page
  interaction.plot(summary)


def test_nobody_is_asked_about_an_empty_reply(folder, truths):
  judge = Reader()
  summary, items, _ = talked(
    folder, truths, lambda truth, deal: "No end", OPTIONS, judge=judge
  )
  assert judge.questions == []
  entry = summary["dimensions"]["memory"]["all"]
  assert (entry["n"], entry["n_unparsed"], entry["mean"]) == (6, 6, 1.0)
  assert {score for item in items for score in item["scores"].values()} == {None}


@pytest.mark.parametrize(
  ("raw", "score"),
  [
    ('{"explanation": "x", "score": 4}', 4.0),
    ('Well: {"score": 2.5} so.', 2.5),
    ('<think>{"score": 1}</think>\n{"score": 3}', 3.0),
    ('{"score": "4"}', None),
    ('{"score": true}', None),
    ('{"score": 6}', None),
    ('{"score": 0}', None),
    ('{"score": NaN}', None),
    ('{"rating": 4}', None),
    ("[4]", None),
    ("4", None),
    ("", None),
    (None, None),
  ],
)
def test_a_rating_is_a_number_from_1_to_5_or_none(raw, score):
  assert rubrics.rating(raw) == score


def test_all_that_is_wrong_with_rubrics_is_told_at_once(tmp_path):
  good = {"id": "a", "turn": 1, "dimension": "memory", "text": "x"}
  rows = [good, good, {**good, "turn": 3}, {**good, "text": 7}, {**good, "why": "x"}]
  worlds.write_jsonl(tmp_path / "r.jsonl", rows)
  with pytest.raises(ValueError, match="wrong rubrics") as told:
    rubrics.read(tmp_path / "r.jsonl", {"a": 2, "b": 2})
  for part in (
    "r.jsonl:2: 'memory' of turn 1 of 'a' once more",
    "r.jsonl:3: turn 3 of 'a', which has 2",
    "r.jsonl:4: ",
    "why",
    "has no rubric of 'b'",
  ):
    assert part in str(told.value)


def test_rubrics_must_be_there(tmp_path):
  write_talks(tmp_path / "data", turns=2)
  (tmp_path / "data" / talks.TRUTH).unlink()
  with pytest.raises(ValueError, match=interaction.RUBRICS):
    interaction.evaluate(
      worlds.model(), tmp_path / "data", cache=tmp_path, options=OPTIONS, judge=Reader()
    )
