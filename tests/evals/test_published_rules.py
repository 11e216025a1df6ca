"""Published rules, against what the published code gave on the same replies."""

import collections

import pytest

from stepaudio_jax.core import replies
from stepaudio_jax.evals import mmar, mmau, mmsu, spoken_mqa
from stepaudio_jax.evals.parts import letters, numbers, words
from stepaudio_jax.rewards.parts import answers
from tests.evals import scorers

MMAU_FIELDS = {
  "Task": "task",
  "Difficulty": "difficulty",
  "Sub-category": "sub-category",
}
MMAR_FIELDS = {
  "Modality": "modality",
  "Category": "category",
  "Sub-category": "sub-category",
}


def printed(items, values, fields):
  """The published printout: percentages with two decimals, and counts."""
  by = collections.defaultdict(list)
  for item, value in zip(items, values, strict=True):
    by["Total"].append(value)
    for shown, group in fields.items():
      by[f"{shown}/{item.groups[group]}"].append(value)
  return {
    key: [round(100 * sum(one) / len(one), 2), len(one)] for key, one in by.items()
  }


@pytest.fixture(scope="module")
def mmau_set(tmp_path_factory):
  return scorers.mmau_items(tmp_path_factory.mktemp("mmau"))


def test_mmau_item_by_item_on_raw_replies(mmau_set):
  items, said, expected = mmau_set
  found = mmau.official(items, said)
  assert len(found) == 718
  assert found == [row["official_match"] for row in expected]
  total = scorers.totals("mmau_testmini_constructed")["official_stdout_raw"]
  assert total.pop("no_prediction") == 0
  assert printed(items, found, MMAU_FIELDS) == total


def test_mmau_item_by_item_behind_the_thought(mmau_set):
  items, said, expected = mmau_set
  behind = [replies.split_reply(text, thinking=False)[1] for text in said]
  found = mmau.official(items, behind)
  assert found == [row["official_match_after_think_strip"] for row in expected]
  total = scorers.totals("mmau_testmini_constructed")
  total = total["official_stdout_after_think_strip"]
  assert total.pop("no_prediction") == 0
  assert printed(items, found, MMAU_FIELDS) == total


def test_no_answer_is_a_wrong_one(mmau_set):
  items, _, _ = mmau_set
  assert mmau.official(items[:2], [None, ""]) == [0, 0]


def test_mmau_words_of_real_predictions():
  by_model = collections.defaultdict(lambda: [0, 0, 0])
  real = scorers.rows("mmau_real_predictions.jsonl")
  for row in real:
    reference, choices, said = (
      row[key] for key in ("reference", "choices", "model_prediction")
    )
    bare = [words.bare(one) for one in choices]
    stripped = words.match(words.bare(reference), said, bare)
    kept = words.match(reference, said, choices)
    assert stripped == row["expected_prefix_stripped"], said
    assert stripped == row["audiobench"].get("string_match", stripped), said
    assert kept == row["expected_prefix_kept"], said
    counted = by_model[row["model"]]
    by_model[row["model"]] = [
      a + b for a, b in zip(counted, (1, stripped, kept), strict=True)
    ]
  assert len(real) == 223
  assert by_model == {
    model: [row["n"], row["correct_prefix_stripped"], row["correct_prefix_kept"]]
    for model, row in scorers.totals("mmau_real_predictions").items()
  }


def test_mmar_item_by_item(tmp_path):
  items, said, expected = scorers.mmar_items(tmp_path)
  found = mmar.official(items, said)
  assert len(found) == 211
  assert found == [row["official_match"] for row in expected]
  total = scorers.totals("mmar_constructed")
  assert total.pop("no_prediction") == 0
  assert printed(items, found, MMAR_FIELDS) == total


def test_mmsu_item_by_item(tmp_path):
  items, said, expected = scorers.mmsu_items(tmp_path, "mmsu_constructed.jsonl")
  found = mmsu.official(items, said)
  assert len(found) == 232
  assert [
    {"counted": int(one is not None), "correct": int(one or 0)} for one in found
  ] == [row["official"] for row in expected]
  total = scorers.totals("mmsu_constructed")
  counted = [one for one in found if one is not None]
  assert len(counted) == total["official_total_count"]
  assert sum(counted) / len(counted) == total["official_overall"]
  by = collections.defaultdict(list)
  for item, one in zip(items, found, strict=True):
    if one is not None:
      by[item.groups["category"]].append(one)
      by[item.groups["sub-category"]].append(one)
  for name, row in total["official_by_category"].items():
    assert (sum(by[name]), len(by[name])) == (row["correct"], row["count"])
    for inner, share in total["official_by_subcategory"][name].items():
      ours = by[f"{name}: {inner}"]
      assert sum(ours) / len(ours) == share


def test_mmsu_scores_an_empty_reply_with_the_letter_before_it(tmp_path):
  items, said, expected = scorers.mmsu_items(tmp_path, "mmsu_quirk_empty_none.jsonl")
  found = mmsu.official(items, said)
  total = scorers.totals("mmsu_quirk_empty_none")
  counted = [one for one in found if one is not None]
  assert len(found) == total["records"] == 262
  assert len(counted) == total["official_total_count"]
  assert found.count(None) == total["official_wrong_format"]
  assert sum(counted) / len(counted) == total["official_overall"]
  golds = [row["gold_letter"] for row in expected]
  right = golds.index("B")
  wrong = golds.index("A")
  pair = [items[right], items[wrong], items[right], items[right]]
  assert mmsu.official(pair, ["B", None, "**B**", "None"]) == [1, 0, None, 1]
  assert mmsu.official([items[right]], [""]) == [None]


def test_spoken_mqa_item_by_item(tmp_path):
  items, said, expected = scorers.spoken_items(tmp_path)
  found = spoken_mqa.official(items, said)
  assert len(found) == 206
  assert found == [row["expected_correct"] for row in expected]
  cleaned = [
    row.get("expected_cleaned", row.get("cleaned_prediction")) for row in expected
  ]
  assert [numbers.gsm8k(text) for text in said] == cleaned
  for kind, total in scorers.totals("spoken_mqa").items():
    ours = [
      one for one, row in zip(found, expected, strict=True) if row["kind"] == kind
    ]
    assert (len(ours), sum(ours)) == (total["n"], total["correct"])


def test_letters():
  expected = scorers.rows("mcq_letter_extraction.jsonl")
  assert len(expected) == 258
  for row in expected:
    assert letters.voicebench(row["response"]) == row["voicebench_mcq"], row
    assert letters.lmms_eval(row["response"]) == row["lmms_mmau_letter"], row


def test_letters_where_no_published_result_decides():
  """Marks at both ends are dropped; negated truth is no yes."""
  assert letters.lmms_eval("A,") == "A"
  assert letters.lmms_eval("'B'") == "B"
  assert (
    letters.voicebench_yes_no("web_of_lies", "Kira does not tell the truth") == "no"
  )
  assert letters.voicebench_yes_no("navigate", "Kira tells the truth") is None


def test_yes_and_no():
  expected = scorers.rows("voicebench_bbh_yesno.jsonl")
  assert len(expected) == 38
  for row in expected:
    found = letters.voicebench_yes_no(row["task"], row["response"])
    assert found == row["voicebench_bbh"], row
  with pytest.raises(ValueError, match="'hyperbaton' is not in"):
    letters.voicebench_yes_no("hyperbaton", "yes")


def test_real_thoughts_are_split_off():
  expected = scorers.rows("think_split_real.jsonl")
  assert len(expected) == 44
  for row in expected:
    thinking = row["state"] != "none"
    think, answer = replies.split_reply(row["raw"], thinking)
    assert (think, answer or "") == (row["expected_think"], row["expected_answer"])
    assert (answer is None) == (row["state"] == "unclosed")


def test_real_replies_of_step_audio_r1():
  expected = scorers.rows("stepaudio_r1_real_outputs.jsonl")
  scored = []
  for row in expected:
    think, answer = replies.split_reply(row["raw"])
    assert (think, answer) == (row["expected_think"], row["expected_answer"])
    if row["expected_response_tag"]:
      assert answers.unwrapped(answer) == row["expected_response_tag"]
    if "gold" in row:
      inputs = (row["raw"], answer, row["expected_response_tag"])
      match = [words.match(row["gold"], one, row["choices"]) for one in inputs]
      scored.append(match)
      kinds = ("raw", "answer_only", "tag")
      assert match == [row[f"official_mmau_match_{kind}"] for kind in kinds]
  assert len(expected) == 4
  assert scored == [[False, True, True]]
