"""Our readings of replies: by hand, and beside the published rules form by form."""

import pathlib
from fractions import Fraction

import pytest

from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.evals import big_bench_audio, recordings, spoken_mqa
from stepaudio_jax.evals.parts import numbers
from stepaudio_jax.evals.parts.items import Item, Score
from tests.evals import scorers

TABLE = pathlib.Path(__file__).resolve().parents[2] / "experiments/scores/README.md"
# Items; right by the published rule, by ours; unparsed by ours; right by one only.
SUMS = {
  "MMAU": (718, 280, 380, 132, 0, 100),
  "MMAR": (211, 90, 110, 36, 1, 21),
  "MMSU": (232, 82, 136, 15, 3, 57),
  "Spoken MQA": (206, 133, 133, 26, 4, 4),
}


def listed():
  """The table as {(benchmark, form): counts}; every row gives a reason."""
  found = {}
  for line in TABLE.read_text(encoding="utf-8").splitlines():
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    if cells[0] in SUMS and len(cells) == 9:
      name, form, *counts, why = cells
      assert why, line
      found[name, form.strip("`").replace("\\n", "\n")] = tuple(map(int, counts))
  return found


def test_deviations_by_form_are_those_of_the_table(tmp_path):
  found = scorers.compared(tmp_path)
  differing = {key: cell for key, cell in found.items() if cell[4] or cell[5]}
  assert listed() == differing
  sums = {
    name: tuple(
      sum(cell[k] for (one, _), cell in found.items() if one == name) for k in range(6)
    )
    for name in SUMS
  }
  assert sums == SUMS


def item(gold, choices=(), **groups):
  return Item(Dialogue("one", {}, ()), gold, choices, groups)


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    ("7", 7),
    ("3 + 4 = 7.", 7),
    ("The answer is 7 because 3 + 4 was counted", 7),
    ("the final result is -7.50 dollars", Fraction(-15, 2)),
    ("\\boxed{1,234}", 1234),
    ("The answer is \\frac{1}{2}.", Fraction(1, 2)),
    ("\\boxed{-\\dfrac{ 36 }{4}}", -9),
    ("**$-12**", -12),
    ("-$12", -12),
    ("−12", -12),
    ("Half: 65/2", Fraction(65, 2)),
    ("1/0", None),
    ("#### 16.0", 16),
    ("答案是：42。", 42),
    ("１２", 12),
    ("Seven.", 7),
    ("The answer is one hundred and twenty-three", 123),
    ("two thousand five hundred", 2500),
    ("three four two", None),
    ("one million two thousand and one", 1_002_001),
    ("two hundred hundred", None),
    ("one thousand two million", None),
    ("hundred " * 9000, None),
    ("1," + "111," * 9000, None),
    ("With 3 + 4 the answer is seven, as 5 + 2 = 7 shows.", 7),
    ("The answer is 3, 4 of them red.", 3),
    ("The answer is 7, the answer is unknown.", 7),
    ("The answer is 3 or 4.", None),
    ("The answer is 3. The answer is 4.", None),
    ("The answer is 3. So the answer is 3.0.", 3),
    ("The answer is (unknown)", None),
    ("73.30.00", None),
    ("the 5th", None),
    ("I am not sure, 5 or so.", None),
    ("", None),
    ("9" * 5000, None),
    ("She cannot pay; the answer is 5.", 5),
    ("10-5", 5),
    ("<RESPONSE>\n12\n</RESPONSE> not 13", 12),
  ],
)
def test_numbers_are_read(answer, expected):
  assert numbers.read(answer) == expected


def test_a_published_number_never_stops_the_run():
  assert numbers.gsm8k("9" * 400 + "/2") == "9" * 400 + "/2"
  assert numbers.gsm8k("5/0") == "5/0"
  assert numbers.gsm8k("9" * 400) == "9" * 400


def test_spoken_numbers_are_compared_as_numbers():
  assert spoken_mqa.score(item("12.0"), "It is 12.") == Score(1.0, "12")
  assert spoken_mqa.score(item("12.0"), "It is 13.") == Score(0.0, "13")
  assert spoken_mqa.score(item("-1.5"), "-3/2") == Score(1.0, "-1.5")
  assert spoken_mqa.score(item("12.0"), "No number.") == Score(None)
  assert spoken_mqa.score(item("12.0"), None) == Score(None)


@pytest.mark.parametrize(
  ("category", "answer", "expected"),
  [
    ("formal_fallacies", "Invalid.", "invalid"),
    ("formal_fallacies", "It looks invalid, yet it is VALID", "valid"),
    ("formal_fallacies", "The argument is not deductively valid.", "invalid"),
    ("formal_fallacies", "It isn’t valid", "invalid"),
    ("formal_fallacies", "It is not invalid.", "valid"),
    ("formal_fallacies", "yes", None),
    ("formal_fallacies", "validity", None),
    ("navigate", "No, wait. **Yes**", "yes"),
    ("navigate", "I do not know.", None),
    ("web_of_lies", "<answer>no</answer> yes", "no"),
    ("web_of_lies", "Unknown", None),
    ("object_counting", "3 apples and 4 pears are 7 fruits.", "7"),
    ("object_counting", "There are twelve.", "12"),
    ("object_counting", "7.0", "7"),
    ("object_counting", "many", None),
  ],
)
def test_big_bench_answers_are_the_last_of_their_kind(category, answer, expected):
  gold = expected or "valid"
  found = big_bench_audio.score(item(gold, category=category), answer)
  assert found == (Score(None) if expected is None else Score(1.0, expected))


def test_big_bench_wrong_and_absent():
  asked = item("valid", category="formal_fallacies")
  assert big_bench_audio.score(asked, "invalid") == Score(0.0, "invalid")
  assert big_bench_audio.score(asked, None) == Score(None)
  assert big_bench_audio.questions(asked, None) == []
  assert big_bench_audio.questions(asked, " ") == []
  assert big_bench_audio.score(asked, "valid", ["INCORRECT"]) == Score(0.0, "valid")
  assert big_bench_audio.score(asked, "valid", []) == Score(None, "valid")


@pytest.mark.parametrize(
  ("verdicts", "value"),
  [
    (["CORRECT"], 1.0),
    (["**Incorrect.**"], 0.0),
    (["CORRECT or INCORRECT?"], None),
    (["The same answer.\nVerdict: CORRECT"], 1.0),
    (["Correctly said."], None),
    ([None], None),
    ([], None),
  ],
)
def test_big_bench_judge(verdicts, value):
  asked = item("valid", category="formal_fallacies")
  (question,) = big_bench_audio.questions(asked, "It {follows}.")
  assert question.template == big_bench_audio.JUDGE.hash
  for part in (
    "Official answer: valid\n",
    "Reply: It {follows}.\n",
    "formal fallacies",
  ):
    assert part in question.text
  found = big_bench_audio.score(asked, "It follows.", verdicts)
  assert (found.value, found.extracted) == (value, None)


@pytest.mark.parametrize(
  ("gold", "answer", "value"),
  [
    ("1 2 5", "one two five", 1.0),
    ("1 2 5", "1 2 6", 0.0),
    ("And so, my fellow Americans, ask.", "and so my fellow americans ask", 1.0),
    ("And so, my fellow Americans, ask.", "And so my fellow Americans", 0.0),
    ("Hello there", "I cannot hear it.", None),
    ("I cannot hear it.", "i cannot hear it", 1.0),
    ("Hello", "", None),
    ("Hello", None, None),
  ],
)
def test_open_answers_about_recordings(gold, answer, value):
  assert recordings.score(item(gold), answer).value == value


def test_choices_about_recordings():
  asked = item("zero", ("six", "zero"))
  assert recordings.score(asked, "B") == Score(1.0, "zero")
  assert recordings.score(asked, "six") == Score(0.0, "six")
  assert recordings.score(asked, "six or zero") == Score(None)
  assert recordings.score(asked, None) == Score(None)
