"""The report of two made-up checkpoints, read back."""

import json
import re

import pytest

from stepaudio_jax.evals.parts import standings
from stepaudio_jax.report import __main__ as entry
from stepaudio_jax.report import command
from tests.experiments.pages import read
from tests.report import folders
from tests.report.folders import item

NASTY = "<script>alert(1)</script>|x"


def _mmau(scores, **given):
  """Ten items with sound and in silence, where only "0" is right."""
  heard = [item(str(k), score) for k, score in enumerate(scores)]
  silent = [
    row | {"condition": "silence", "score": float(row["id"] == "0")} for row in heard
  ]
  return heard + [row | given for row in silent]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """Of ten items two gains 8 and loses 1 against one, which lacks a benchmark."""
  place = tmp_path_factory.mktemp("report")
  share = {"mean": 0.25, "low": 0.125, "high": 0.375}
  budgets = [
    {"budget": b, "think_tokens": {"mean": 0.75 * b}, "metrics": {"accuracy": share}}
    for b in (64, 1024)
  ]
  drawn = {
    "k": 2,
    "pass": {"1": share, "2": share | {"mean": 0.375}},
    "majority": share,
  }
  extra = {"column": "MMAU", "budgets": budgets, "samples": drawn}
  first = [1, *[0] * 8, None]
  second = [0, *[1] * 8, None]
  folders.write(place / "one", "mmau", _mmau(first), **extra)
  folders.write(place / "two", "mmau", _mmau(second), checkpoint=NASTY, column="MMAU")
  ards = [item(name, 1, groups={NASTY: "x"}) for name in "abc"]
  apr = {"APR": folders.mean([1, 0, 0])}
  judged = {
    "settings": {"judge": {"kind": "local", "model": NASTY, "templates": ["t"]}}
  }
  folders.write(
    place / "two", "audio_mc", ards, metrics=apr, column="Audio MC", **judged
  )
  folders.write_published(place / "published.json")
  return place


@pytest.fixture(scope="module")
def report(place):
  page = command.run(
    [place / "one", place / "two"],
    place / "out",
    names=["One", NASTY],
    published=place / "published.json",
  )
  assert str(page) == str(place / "out" / "report.html")
  return json.loads((place / "out" / "report.json").read_text())


@pytest.fixture(scope="module")
def page(report, place):
  return read(place / "out" / "report.html")


def test_pairs_are_those_worked_by_hand(report):
  (pair,) = report["pairs"]
  assert (pair["benchmark"], pair["first"], pair["second"]) == ("mmau", "One", NASTY)
  assert (pair["n"], pair["better"], pair["worse"], pair["equal"]) == (10, 8, 1, 1)
  assert pair["p"] == pytest.approx(2 * (1 + 9) / 2**9)
  assert pair["difference"]["mean"] == pytest.approx(0.7)
  assert pair["of_the_table"] is True


def test_the_table_stands_beside_the_published_rows(report, place):
  one, two = report["standings"]
  assert one["cells"]["MMAU"]["mean"] == pytest.approx(0.1)
  assert (two["cells"]["MMAU"]["mean"], two["average"]) == (pytest.approx(0.8), None)
  text = (place / "out" / "report.md").read_text()
  assert "| Big One (published) | 79.67 | 66.37 |" in text
  assert "| **One** | – | – | – | – | 10.00 ≠ | – |" in text
  # The official scorer leaves out the item that it cannot read: 8 of 9.
  assert "official rule | – | 100.00 ≠ | – | – | 88.89 ≠ |" in text
  assert "10 items instead of 1000: MMAU (One, " in text
  assert "| mmau | One | accuracy | 10 | 0 | 1 | 10.0 [" in text
  tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
  assert len(tables) == 6
  for lines in tables:  # no name ends a cell
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
  assert "<" not in re.sub(r"`[^`]*`", "", text)


def test_drops_budgets_and_samples_are_in_all_three(report, place, page):
  text = (place / "out" / "report.md").read_text()
  assert "| mmau | One | silence | all | 10.0 [" in text
  assert "| mmau | One | 64 | 48.0 | 25.0 [12.5, 37.5] |" in text
  assert "| mmau | One | free | 10.0 | 10.0 [" in text
  assert "| mmau | One | majority of 2 | 25.0 [12.5, 37.5] |" in text
  drop = report["benchmarks"]["mmau"]["checkpoints"][NASTY]["conditions"]["silence"]
  assert drop["drop"]["mean"] == pytest.approx(0.7)
  assert "mmau silence" in page.text
  assert "+70.0" in page.text
  assert "mmau pass@2 37.5 [12.5, 37.5]".replace("mmau ", "") in page.text


def test_bars_lie_where_the_numbers_say(page):
  widths = [a["width"] for a in page.of("rect") if a.get("x") == "0"]
  assert [float(w.rstrip("%")) for w in widths] == pytest.approx([100 / 3, 10, 80])
  chances = [a["x1"] for a in page.of("line", **{"class": "chance"}) if "%" in a["x1"]]
  assert chances == ["50.0%", "50.0%"]
  published = [a["cx"] for a in page.of("circle", **{"class": "published"})]
  assert published == ["6", "66.37%", "41.15%", "79.8%", "77.9%"]


def test_long_dialogues_are_shown_turn_by_turn(place, tmp_path):
  score = {"n": 3, "n_failed": 1, "n_unparsed": 2, "mean": 2.0, "low": 1.0, "high": 3}
  curve = {
    "turns": [score | {"turn": 1, "mean": 4.0}, score | {"turn": 5}],
    "all": score,
    "slope": {"per_turn": -0.5},
    "silence": None,
  }
  summary = {"checkpoint": "runs/c", "simulated": True, "turns": 5}
  summary |= {"dimensions": {"naturalness": curve, "mood": curve | {"slope": None}}}
  (tmp_path / "interaction.items.jsonl").write_text("")
  (tmp_path / "interaction.json").write_text(json.dumps(summary))
  published = place / "published.json"
  command.run([tmp_path], tmp_path / "out", names=["C"], published=published)
  text = (tmp_path / "out" / "report.md").read_text()
  row = "| interaction (simulated) | C | naturalness | 3 | 1 | 2 | 2.00 [1.00, 3.00] |"
  assert f"{row} −0.50 | – |" in text
  page = read(tmp_path / "out" / "report.html")
  assert "simulated listeners" in page.text
  assert "1 checkpoint in long dialogues" in page.text
  assert "Simulated: listeners of long dialogues. What" in page.text
  assert "Every benchmark" not in page.text
  places = [(a["cx"], a["cy"]) for a in page.of("circle", **{"class": "f0"})]
  assert places == [("0.0%", "25.0%"), ("100.0%", "75.0%")] * 2
  del summary["dimensions"]["mood"]["all"]["n"]
  summary["dimensions"]["mood"]["turns"][0]["low"] = None
  (tmp_path / "interaction.json").write_text(json.dumps(summary))
  with pytest.raises(
    ValueError, match=r"mood.all: \['n'\] are no counts\n.*turns\[0\]"
  ):
    command.run([tmp_path], tmp_path / "out", published=published)


def test_the_page_needs_nothing_else_and_runs_nothing(page):
  assert page.open == []
  assert not page.of("script")
  assert "default-src 'none'" in page.of("meta")[1]["content"]
  for _, attributes in page.tags:
    for key in ("src", "href", "action"):
      assert (attributes.get(key) or "#").startswith(("#", "data:"))
  assert not re.search(r"https?:|url\(|@import", page.source)
  targets = {a["href"] for a in page.of("a")}
  assert targets == {f"#{section['id']}" for section in page.of("section")}


def test_names_are_text(page):
  assert page.text.count(NASTY) > 10
  assert f"judged by local {NASTY}, prompts t: Audio MC" in page.text
  assert f"{NASTY}: x" in page.text  # a group


def test_scores_that_are_not_the_metric_are_marked(place, tmp_path):
  two = place / "two"
  found = command.contents([two, two], ["a", "b"], place / "published.json")
  marks = {pair["benchmark"]: pair["of_the_table"] for pair in found["pairs"]}
  assert marks == {"audio_mc": False, "mmau": True}
  assert all(pair["p"] == 1.0 for pair in found["pairs"])


def test_pairs_that_were_not_asked_alike_are_marked(tmp_path):
  scores = [item(name, 1) for name in "ab"]
  cold = {"settings": {"temperature": 0.0, "samples": 4, "step": 9}}
  folders.write(tmp_path / "one", "mmau", scores)
  folders.write(tmp_path / "two", "mmau", scores, **cold)
  command.run([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
  text = (tmp_path / "out" / "report.md").read_text()
  why = "≠ mmau, two − one: temperature 0.7 and 0.0; samples None and 4"
  assert "| mmau ≠ | two − one | 2 |" in text
  assert f"- {why}" in text
  page = read(tmp_path / "out" / "report.html")
  assert why in page.text
  # Replies, not items, are unparsed.
  assert "| mmau | two | accuracy | 2 × 4 | 0 | 0 |" in text
  assert "2 × 4" in page.text
  assert "| mmau | one | accuracy | 2 | 0 | 0 |" in text


def test_failures_of_controls_and_budgets_are_told(tmp_path):
  heard = [item(name, 1) for name in "ab"]
  quiet = [item("a", 1, condition="silence")]
  quiet += [item("b", None, condition="silence", failed="too long")]
  lost = folders.summary("mmau", [*heard, *quiet])["conditions"]["silence"]
  budget = folders.entry(heard) | {"budget": 64, "think_tokens": None, "n_failed": 2}
  folders.write(
    tmp_path / "one",
    "mmau",
    [*heard, *quiet],
    conditions={"silence": lost | {"n_failed": 1, "n_unparsed": 3, "drop": None}},
    budgets=[budget],
  )
  command.run([tmp_path / "one"], tmp_path / "out")
  text = (tmp_path / "out" / "report.md").read_text()
  assert "- mmau, one, silence: 1 failed and 3 unparsed, counted as wrong" in text
  assert "- mmau, one, budget 64: 2 failed, counted as wrong" in text
  assert "| mmau | one | silence | all | 50.0 [" in text
  assert "] | – |\n" in text  # no drop


def test_steps_and_seals_of_one_folder_are_told_apart(tmp_path):
  def made_with(*several):
    for name, settings in zip(("mmau", "mmar", "world_like"), several, strict=False):
      folders.write(tmp_path, name, [item("a", 1)], settings=settings)
    return command.contents([tmp_path], None, standings.PUBLISHED)["checkpoints"][0]

  one = {"step": 1, "seal": "x"}
  assert made_with(one, one)["checkpoints"] == ["runs/one, step 1"]
  assert made_with(one, {"step": 1})["checkpoints"] == ["runs/one, step 1"]
  both = ["runs/one, step 1", "runs/one, step 2"]
  assert sorted(made_with(one, {"step": 2})["checkpoints"]) == both
  sealed = made_with(one, {"step": 1, "seal": "y"})["checkpoints"]
  assert sealed == ["runs/one, step 1, seal x", "runs/one, step 1, seal y"]


def test_names_are_as_long_as_they_must_be(place):
  published = place / "published.json"
  found = command.contents([place / "one", place / "two"], None, published)
  assert [one["name"] for one in found["checkpoints"]] == ["one", "two"]
  for k in "ab":
    folders.write(place / k / "9", "mmau", [item("a", 1)])
  found = command.contents([place / "a" / "9", place / "b" / "9"], None, published)
  assert [one["name"] for one in found["checkpoints"]] == ["a/9", "b/9"]


def test_names_that_do_not_fit_are_refused(place):
  both = [place / "one", place / "two"]
  with pytest.raises(ValueError, match=r"1 names \['x'\] for 2 results folders"):
    command.run(both, place / "no", names=["x"], published=place / "published.json")
  with pytest.raises(ValueError, match=r"names that differ, not \['x', 'x'\]"):
    command.run(both, place / "no", names=["x", "x"])
  assert not (place / "no").exists()


def test_the_command_writes_and_tells_errors_in_one_line(place, tmp_path, capsys):
  own = ["--published", str(place / "published.json"), "--out", str(tmp_path / "out")]
  entry.main(["--results", str(place / "one"), *own])
  assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
  assert "One checkpoint" not in (tmp_path / "out" / "report.html").read_text()
  with pytest.raises(SystemExit) as stop:
    entry.main(["--results", str(tmp_path / "nowhere"), *own])
  assert stop.value.code == 2
  assert capsys.readouterr().err.startswith("report: there is no folder ")
