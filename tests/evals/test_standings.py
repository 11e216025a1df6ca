"""The table: averages over all columns or none, and what sets a cell apart."""

import json

import pytest

from stepaudio_jax import evaluate
from stepaudio_jax.evals.parts import results, standings
from tests.report import folders
from tests.report.folders import COLUMNS, item

RULE = {"kind": "rule"}


def _folder(tmp_path, columns, **given):
  for k, column in enumerate(columns):
    right = [item("a", 1), item("b", 1), item("c", 0), item("d", int(k % 2 == 0))]
    folders.write(tmp_path, f"b{k}", right, column=column, **given)
  return results.folder(tmp_path)


def test_the_average_is_over_all_eight_columns_or_absent(tmp_path):
  row = standings.standing("one", _folder(tmp_path, COLUMNS), COLUMNS)
  assert row["average"] == pytest.approx((4 * 0.75 + 4 * 0.5) / 8)
  assert row["lacking"] == []
  assert [*row["cells"]] == COLUMNS
  (tmp_path / "b3.json").unlink()
  row = standings.standing("one", results.folder(tmp_path), COLUMNS)
  assert (row["average"], row["lacking"]) == (None, ["MMAU"])
  assert row["cells"]["MMAU"] is None


def test_columns_that_the_table_lacks_are_told(tmp_path):
  row = standings.standing("one", _folder(tmp_path, ["MMAU", "Other", None]), COLUMNS)
  assert row["elsewhere"] == {"b1": "Other"}
  assert [column for column, cell in row["cells"].items() if cell] == ["MMAU"]


def test_two_benchmarks_of_one_column_are_refused(tmp_path):
  folder = _folder(tmp_path, ["MMAU", "MMAU"])
  with pytest.raises(ValueError, match=r"\['b0', 'b1'\] both fill the column 'MMAU'"):
    standings.standing("one", folder, COLUMNS)


@pytest.mark.parametrize(
  ("column", "given", "wanted"),
  [
    ("MMAU", {}, []),
    ("MMAU", {"settings": {}}, []),
    ("MMAU", {"n": 999}, ["999 items instead of 1000"]),
    ("MMAU", {"simulated": True}, ["simulated"]),
    (
      "MMAU",
      {"settings": {"temperature": 0.0, "judge": None}},
      ["temperature 0 instead of 0.7"],
    ),
    (
      "MMAU",
      {"settings": {"prompt": "abc"}},
      ["asked in words of ours, prompt abc"],
    ),
    ("Step-DU", {"n": 87}, ["scored by rule, the published row by a judge"]),
    (
      "Step-DU",
      {
        "n": 87,
        "settings": {"judge": {"kind": "local", "model": "m", "templates": ["1", "2"]}},
      },
      ["judged by local m, prompts 1, 2"],
    ),
    (
      "MMAU",
      {"settings": {"judge": {"kind": "rule", "unanswered": 3}}},
      ["3 questions that the judge left without a reply"],
    ),
    (None, {"n": 3}, []),
  ],
)
def test_what_sets_a_result_apart_from_the_published_one(column, given, wanted):
  summary = {"column": column, "n": 1000, "simulated": False}
  summary |= {"settings": {"temperature": 0.7, "judge": RULE}}
  assert standings.unlike(summary | given) == wanted


JUDGED = {"kind": "endpoint", "url": "https://a", "model": "m", "templates": ["x"]}


@pytest.mark.parametrize(
  ("first", "second", "wanted"),
  [
    ({}, {"seed": 1, "batch_size": 4, "checkpoint": "b", "controls": ["flat"]}, []),
    ({}, {"temperature": 0.0}, ["temperature 0.7 and 0.0"]),
    ({"items": "1"}, {"items": "2"}, ["other questions or answers"]),
    ({"samples": 1}, {"samples": 4}, ["samples 1 and 4"]),
    ({"judge": RULE}, {"judge": None}, []),
    ({"judge": JUDGED}, {"judge": {**JUDGED, "url": "https://b"}}, []),
    ({"judge": JUDGED}, {"judge": {**JUDGED, "templates": ["x", "y"]}}, []),
    (
      {"judge": JUDGED},
      {"judge": {**JUDGED, "templates": ["y"]}},
      ["judged by endpoint m, prompts x and by endpoint m, prompts y"],
    ),
    (
      {"judge": JUDGED},
      {"judge": {**JUDGED, "model": "n"}},
      ["judged by endpoint m, prompts x and by endpoint n, prompts x"],
    ),
  ],
)
def test_results_that_were_not_asked_or_judged_alike_are_told(first, second, wanted):
  one, other = ({"settings": {"temperature": 0.7} | given} for given in (first, second))
  assert standings.differing(one, other) == wanted


def test_published_rows_are_named(tmp_path):
  path = folders.write_published(tmp_path / "p.json")
  found = standings.published(path)
  assert found["columns"] == COLUMNS
  assert found["rows"]["Big One"] == {
    "Avg": 79.67,
    "Audio MC": 66.37,
    "Big Bench Audio": 99.4,
    "MMSU": 83.7,
    "MMAU": 79.8,
    "Spoken MQA": 96.56,
    "Step-Caption": 75.55,
    "Step-DU": 72.41,
    "Step-SPQA": 63.6,
  }
  with_average = folders.PUBLISHED | {"columns": ["Avg", *COLUMNS]}
  assert standings.published(folders.write_published(path, with_average)) == found


def test_wrong_published_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r"there is no file .*p\.json"):
    standings.published(tmp_path / "p.json")
  short = folders.PUBLISHED | {"rows": {"A": [1.0, 2.0]}}
  with pytest.raises(ValueError, match=r"\{'A': 2\} numbers; 9 are wanted"):
    standings.published(folders.write_published(tmp_path / "p.json", short))
  (tmp_path / "p.json").write_text(json.dumps({"rows": {}}))
  with pytest.raises(ValueError, match=r"KeyError\('source'\) where"):
    standings.published(tmp_path / "p.json")


@pytest.mark.parametrize(
  "value",
  [
    {"source": "x", "columns": [], "rows": []},
    {"source": "x", "columns": ["a"], "rows": {"m": None}},
    {"source": "x", "columns": ["a"], "rows": {"m": [1, "z"]}},
    {"source": "x", "columns": None, "rows": {}},
  ],
)
def test_published_files_of_another_form_are_refused(tmp_path, value):
  path = folders.write_published(tmp_path / "p.json", value)
  with pytest.raises(ValueError, match=r"p.json: .*is wanted"):
    standings.published(path)


def test_the_rows_of_the_report_are_those_of_our_benchmarks():
  found = standings.published()
  modules = map(evaluate.load_benchmark, evaluate.benchmark_names())
  columns = [getattr(module, "COLUMN", None) for module in modules]
  assert sorted(filter(None, columns)) == sorted(found["columns"])
  assert {*standings.ITEMS} == {*found["columns"]}
  for model, row in found["rows"].items():
    eight = [row[column] for column in found["columns"]]
    assert sum(eight) / 8 == pytest.approx(row["Avg"], abs=0.006), model
