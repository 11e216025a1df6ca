"""Judges' replies: what decides, and what must not."""

import json
import pathlib

import pytest

from stepaudio_jax.judges import parsing

SCORING = pathlib.Path(__file__).resolve().parents[2] / "../shared/data/scoring"


@pytest.mark.parametrize(
  ("raw", "wanted"),
  [
    ("YES", True),
    (" no. ", False),
    ("**Yes**", True),
    ("Verdict: NO", False),
    ("The final answer: “YES”", True),
    ("They name one sound each.\n\nYES", True),
    ("NO\nThe first speaks of rain.", False),
    ("<think>NO, or rather</think>\nYES", True),
    ("YES\nbut then again\nNO", None),
    ("YES or NO", None),
    ("NOT SURE", None),
    ("I would say yes to that", None),
    ("<think>YES", None),
    ("<think>\nhm\nYES", None),
    ("", None),
    (None, None),
    ("1", None),
    ("是", None),
  ],
)
def test_a_verdict_is_one_of_two_words_or_nothing(raw, wanted):
  assert parsing.verdict(raw) is wanted


@pytest.mark.parametrize(
  ("raw", "wanted"),
  [
    ("CORRECT", True),
    ("INCORRECT", False),
    ("Incorrect.", False),
    ("NOT CORRECT", None),
  ],
)
def test_correct_is_not_found_inside_incorrect(raw, wanted):
  assert parsing.correct(raw) is wanted


@pytest.mark.parametrize(
  "raw",
  [
    '{"explanation": "it does", "criteria_met": true}',
    'So:\n```json\n{"explanation": "it does", "criteria_met": true}\n```\nThat is it.',
    '```\n{"criteria_met": true, "explanation": "it does"}```',
    'I find {"explanation": "it does", "criteria_met": true} here',
    'In {braces}:\n```json\n{"explanation": "it does", "criteria_met": true}\n```\n}',
    '<think>{"criteria_met":0}</think>{"explanation": "it does", "criteria_met": true}',
  ],
)
def test_a_criterion_in_a_fence_or_between_braces(raw):
  assert parsing.criterion(raw) == parsing.Criterion(True, "it does")


@pytest.mark.parametrize(
  "raw",
  [
    None,
    "",
    "true",
    '{"criteria_met": "true"}',
    '{"criteria_met": 1}',
    '{"criteria_met": null}',
    '{"explanation": "it does"}',
    '{"explanation": 3, "criteria_met": true}',
    '{"criteria_met": true',
    '{"criteria_met": true, "criteria_met": false}',
    '```{"criteria_met": true}```\n```{"criteria_met": false}```',
    '{"criteria_met": true} no: {"criteria_met": false}',
    '<think>{"criteria_met": true}',
    '{"a":' * 100_000 + "}",
  ],
)
def test_no_criterion_is_guessed(raw):
  assert parsing.criterion(raw) is None


def test_an_explanation_may_hold_braces_and_fences():
  text = "it prints ```{}``` and } too"
  raw = json.dumps({"explanation": text, "criteria_met": False})
  assert parsing.criterion(raw) == parsing.Criterion(False, text)
  assert parsing.criterion(f"```json\n{raw}\n```") == parsing.Criterion(False, text)


@pytest.mark.parametrize(
  ("raw", "wanted"),
  [
    ('{"score": 0}', 0.0),
    ('{"score": 0.5, "reason": "half"}', 0.5),
    ('```json\n{"score": 1.0}\n```', 1.0),
    ('{"score": 0.7}', None),
    ('{"score": true}', None),
    ('{"score": "1"}', None),
    ('{"score": NaN}', None),
    ('{"score": 2}', None),
    ("1.0", None),
  ],
)
def test_half_points(raw, wanted):
  assert parsing.half_points(raw) == wanted
  assert not isinstance(parsing.half_points(raw), bool)


def test_maps_of_numbers_need_every_name():
  given = {"a": 0.25, "b": {"score": 1, "reason": "so"}, "c": "any"}
  assert parsing.unit_map(given, ["a", "b"]) == {"a": 0.25, "b": 1.0}
  for value in (1.5, -0.1, True, "1", None, {"reason": "none"}, [1]):
    assert parsing.unit_map({**given, "b": value}, ["a", "b"]) is None
  assert parsing.unit_map({"a": 0.25}, ["a", "b"]) is None
  assert parsing.unit_map([0.25], ["a"]) is None


def test_numbered_objects_are_put_in_order_and_must_be_whole():
  first, second = {"n": 1}, {"n": 2}
  assert parsing.numbered([second, first], "n", 2) == [first, second]
  for value in ([first], [first, first], [first, {"n": 3}], [first, 2], "12", None):
    assert parsing.numbered(value, "n", 2) is None
  assert parsing.numbered([{"n": True}, second], "n", 2) is None


def test_real_replies_of_a_judge():
  path = SCORING / "audiomc_judge_raw.jsonl"
  if not path.exists():
    pytest.skip(f"the judge's replies are not at {path}")
  rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  assert len(rows) == 208
  for row in rows:
    wanted = row["expected_criteria_met"], row["expected_explanation"]
    assert parsing.criterion(row["raw"]) == wanted
