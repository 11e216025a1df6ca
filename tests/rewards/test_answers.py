"""Answers read out of replies, against readings by hand and of real scorers' forms."""

import json
import pathlib

import pytest

from stepaudio_jax.rewards.parts import answers, numerals, options

SCORING = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "scoring"
PITCHES = ["low", "middle", "high"]
CHORDS = ["C major", "D minor", "A minor", "C# minor"]


def rows(name):
  path = SCORING / name
  if not path.exists():
    pytest.skip(f"official scorers' data are not at {path}")
  text = path.read_text(encoding="utf-8")
  if name.endswith(".json"):
    return json.loads(text)
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
  ("reply", "expected"),
  [
    ("deep\n</think>\nLow.", "Low."),
    ("deep\n</think>\nLow.<|EOT|>High.", "Low."),
    ("deep\n</think>\nLow.<|im_end|>\n<|endoftext|>", "Low."),
    ("a</think>high</think>low", "low"),
    ("deep\n</think>\n", ""),
    ("The voice is low.", None),
    ("<think>\nlow", None),
  ],
)
def test_answer_text(reply, expected):
  assert answers.answer_text(reply) == expected


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    ("<RESPONSE>\nlow\n</RESPONSE>", "low"),
    ("Not high. <answer>low</answer>", "low"),
    ("So \\boxed{low}.", "low"),
    ("\\boxed{\\text{low}}", "low"),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ('Here:\n```json\n{"answer": "low", "not": "high"}\n```', "low"),
    ('```\n{"answer": 342}\n```', "342"),
    ('```json\n{"reply": "low"}\n```', ""),
    ("```json\n{answer: low}\n```", ""),
    ('```json\n{"answer": null}\n```', ""),
    ("**low**", "low"),
    ("“low”", "low"),
    ("Ｌｏｗ", "Low"),
    ("<answer>low</answer> <answer>low</answer>", "low"),
    ("<answer>low</answer> <answer>high</answer>", "low\nhigh"),
    ("The voice is low.", "The voice is low."),
  ],
)
def test_unwrapped(answer, expected):
  assert answers.unwrapped(answer) == expected


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    ("LOW.", "low"),
    ("The voice is low.", "low"),
    ("It is slowly spoken.", None),
    ("", None),
    ("Pleasant.", None),
    ("It is low or high.", None),
    ("I cannot tell whether it is low.", None),
    ("I’m not sure, low.", None),
    ("无法判断", None),
    ("A", "low"),
    ("b", "middle"),
    ("A.", "low"),
    ("(A)", "low"),
    ("**C**", "high"),
    ("C\n", "high"),
    ("Ｃ", "high"),
    ("（Ｃ）", "high"),
    ("(C) high", "high"),
    ("C) high", "high"),
    ("C: high", "high"),
    ("C - high", "high"),
    ("C\nhigh", "high"),
    ("C, because of the thin voice.", "high"),
    ("Option C: high", "high"),
    ("The answer is C.", "high"),
    ("Answer: C", "high"),
    ("I choose B!", "middle"),
    ("Both are plausible, I go with A.", "low"),
    ("答案是A", "low"),
    ("答案是A。", "low"),
    ("答案：C", "high"),
    ("答案是high。", "high"),
    ("<answer>C</answer>", "high"),
    ("<answer>A</answer><answer>C</answer>", None),
    ("\\boxed{C}", "high"),
    ('```json\n{"answer": "C"}\n```', "high"),
    ("(C) low", None),  # the letter and the text disagree
    ("The answer is C: low", None),
    ("A or B", None),
    ("(A), (B)", None),
    ("It is A, not C.", None),
    ("A. Not B.", "low"),
    ("It is not B.", None),
    ("The answer is not option (C)", None),
    ("It isn't low.", None),
    ("It is not the low one.", None),
    ("A. low\nB. middle\nC. high", None),  # the options told over again
    ("(A) low (B) middle (C) high", None),
    ("A. low, B. middle, C. high. The answer is C.", "high"),
    ("The options: A. low B. middle C. high\nB", "middle"),
    ("A. low\nA. low", "low"),
    ("D", None),  # there are three
    ("A deep voice.", None),  # an article
    ("I hear a voice.", None),
  ],
)
def test_choice_of_a_pitch(answer, expected):
  assert options.choice(answer, PITCHES) == expected


@pytest.mark.parametrize(
  ("answer", "choices", "expected"),
  [
    ("It is in D minor.", CHORDS, "D minor"),
    ("B. D minor", CHORDS, "D minor"),
    ("A. D minor", CHORDS, None),
    ("C#  minor", CHORDS, "C# minor"),
    ("red", ["red", "dark red"], "red"),
    ("It is dark red.", ["red", "dark red"], "dark red"),
    ("Red or dark red.", ["red", "dark red"], None),
    ("I hear 2 speakers.", ["one", "two"], "two"),
    ("I hear 12 speakers.", ["one", "two"], None),
    ("2.5", ["2", "5"], None),
    ("12.5 or so", ["12", "5"], None),
    ("It lasts 12.", ["12", "12.5"], "12"),
    ("two", ["1", "2"], "2"),
    ("B", ["(A) low", "(B) high"], "(B) high"),
    ("High.", ["(A) low", "(B) high"], "(B) high"),
    ("(b) HIGH", ["(A) low", "(B) high"], "(B) high"),
    ("**C. Em**", ["G", "F#m", "Em", "C"], "Em"),
    ("A", ["B", "A"], "A"),  # choices that are letters stand for themselves
    ("It is a pity: B", ["B", "A"], "B"),
    ("I hear a man singing.", ["A man", "A woman"], "A man"),
    ("A man.", ["Woman", "Man"], "Man"),
    ("The answer is A Man.", ["Woman", "Man"], "Man"),
    ("(B)", ["Walks", "The dog cannot swim"], "The dog cannot swim"),
    ("The dog cannot swim", ["Walks", "The dog cannot swim"], "The dog cannot swim"),
    (
      "B. The dog cannot swim.",
      ["A cat", "The dog cannot swim"],
      "The dog cannot swim",
    ),
    ("这是男声", ["男声", "女声"], "男声"),
    ("You said Anna, and so did I.", [*PITCHES, *"uvwxy", "Anna"], "Anna"),
  ],
)
def test_choice(answer, choices, expected):
  assert options.choice(answer, choices) == expected


@pytest.mark.parametrize(
  ("answer", "expected", "same"),
  [
    ("three four two", "three four two", True),
    ("You said 3 4 2.", "three four two", True),
    ("342", "three four two", True),
    ("Three-four-two!", "342", True),
    ("3, 4 and 2", "3 4 2", True),
    ("３４２", "342", True),
    ("three two four", "three four two", False),
    ("three four", "three four two", False),
    ("three four two two", "three four two", False),
    ("three four two or three four five", "three four two", False),
    ("I can't hear three four two.", "three four two", False),
    ("three or four", "three four", False),
    ("", "three four two", False),
    ("3.0", "3", True),
    ("It is 3.", "3.00", True),
    ("The answer is 1,200.", "1200", True),
    ("-5", "-5", True),
    ("−5", "-5", True),
    ("5", "-5", False),
    ("-5", "5", False),
    ("4 + 2", "42", False),
    ("4.2", "42", False),
    ("3 + 39 = 42", "42", False),
    ("3 + 39 = \\boxed{42}", "42", True),
    ("Paris", "paris.", True),
    ("The answer is: Paris.", "Paris", True),
    ("My answer is “New  York”", "New York", True),
    ("Not Paris", "Paris", False),
    ("2020-01-05", "2020-01-05", True),
  ],
)
def test_agrees(answer, expected, same):
  assert answers.agrees(answer, expected) is same


def test_numbers_below_ten_are_words():
  assert numerals.spelt("2 of 12, 0.5 and 7.") == "two of 12, 0.5 and seven."
  assert numerals.digits("Four-2, 30 tens") == ["four", "two", "three", "zero"]


@pytest.mark.parametrize(
  "text",
  ["```json\n" + '{"a":' * 20_000 + "}\n```", '```{"answer": ' + "9" * 5_000 + "}```"],
  ids=["deep", "long"],
)
def test_json_that_python_refuses_is_no_answer(text):
  assert answers.unwrapped(text) == ""


# Forms of the constructed MMAU replies that hold no single answer. "partial" is an
# option's first word: sometimes all of it, once the letter A, else nothing.
UNPARSED = {"refusal", "two_options", "not_x_but_y", "empty", "think_only_truncated"}


def test_forms_of_replies_to_mmau():
  asked = {row["id"]: row for row in rows("mmau_testmini_constructed.input.json")}
  wrong, forms = [], set()
  for row in rows("mmau_testmini_constructed.expected.jsonl"):
    reply, choices = asked[row["id"]]["model_output"], asked[row["id"]]["choices"]
    cut = row["form"] == "think_only_truncated"
    answer = answers.answer_text(reply) if "</think>" in reply or cut else reply
    found = None if answer is None else options.choice(answer, choices)
    if row["form"] == "partial" and reply != row["intended"]:
      expected = choices[0] if reply == "A" else None
    else:
      expected = None if row["form"] in UNPARSED else row["intended"]
    forms.add(row["form"])
    if found != expected:
      wrong.append((row["form"], reply, choices, found))
  assert len(forms) == 30
  assert wrong == []


def test_forms_of_replies_to_mmsu():
  wrong = []
  for row in rows("mmsu_constructed.jsonl"):
    choices = [row[f"choice_{letter}"] for letter in "abcd"]
    reply = row["response"]
    answer = answers.answer_text(reply) if "</think>" in reply else reply
    intended = choices["ABCD".index(row["intended_letter"])]
    expected = None if row["form"] == "none_word" else intended
    if options.choice(answer, choices) != expected:
      wrong.append((row["form"], reply, choices, expected))
  assert wrong == []


def test_real_thoughts_are_cut_as_the_scorers_cut_them():
  for row in rows("think_split_real.jsonl"):
    if row["state"] == "none":
      continue
    found = answers.answer_text(row["raw"])
    assert (found or "") == row["expected_answer"].strip(), row["id"]
  for row in rows("stepaudio_r1_real_outputs.jsonl"):
    found = answers.answer_text(row["raw"])
    assert found == row["expected_answer"].strip()
    if row["expected_response_tag"]:
      assert answers.unwrapped(found) == row["expected_response_tag"]
      assert options.choice(found, row["choices"]) == row["gold"]
