"""Careless, lazy and contrary raters among good ones."""

import json

import numpy as np
import pytest

from tests.data.rows import write_rows
from tests.preferences.told import call, pair

PANEL = ("ann", "bob", "eve", "contrary", "careless", "first", "longer", "few", "tied")
MOODS = ("mood", "wit")


def label(gap, rng):
  return int(np.clip(round(gap + rng.normal(0, 0.7)), -3, 3))


def said(name, gaps, rng, longer):
  """One rater's labels of a comparison: the choice and the dimensions."""
  labels = [label(gap, rng) for gap in gaps]
  if name == "contrary":
    return [-one for one in labels]
  if name == "careless":
    return rng.integers(-3, 4, size=3).tolist()
  if name == "first":  # sees a little, and leans on what came first
    return [int(np.clip(one - 2, -3, 3)) for one in labels]
  if name == "longer":
    return [int(np.clip(one + longer * 2, -3, 3)) for one in labels]
  return [0, *labels[1:]] if name == "tied" else labels


def crowd(count=80):
  rng, rows = np.random.default_rng(0), []
  for k in range(count):
    gaps = rng.normal(0, 1.5, size=3)
    first, second = "x" * int(rng.integers(5, 20)), "y" * int(rng.integers(20, 40))
    replies = (f"{first}{k}.", f"{second}{k}.")
    turned = rng.random() < 0.5
    replies = replies[::-1] if turned else replies
    for place, name in enumerate(PANEL):
      if name == "few" and k >= 10:
        continue
      overall, *dims = said(name, gaps, rng, -1 if turned else 1)
      rows.append(
        pair(
          f"p{k}-{name}",
          task=f"t{k}",
          rater=name,
          context=[{"role": "user", "content": f"{k}?"}],
          replies=replies,
          overall=overall,
          dims=dict(zip(MOODS, dims, strict=True)),
          ts=f"2026-01-01T{place:02d}:{k // 60:02d}:{k % 60:02d}Z",
        )
      )
  return rows


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  folder = tmp_path_factory.mktemp("raters")
  path = write_rows(folder / "a.jsonl", crowd())
  out, rest = folder / "out.json", folder / "rest.jsonl"
  flags = ("--json", out, "--drop-flagged", "--out", rest)
  assert call("raters", path, *flags) == 0
  found = json.loads(out.read_text())
  return found, [json.loads(line) for line in rest.read_text().splitlines()]


def test_who_is_flagged(measured):
  found, _ = measured
  flags = {name: one["flag"] for name, one in found.items()}
  assert flags == dict.fromkeys(PANEL) | {
    "contrary": "against",
    "careless": "chance",
    "few": "few",
  }


def test_the_rows_of_the_others_are_written(measured):
  _, rest = measured
  wanted = [r for r in crowd() if r["rater"] not in ("contrary", "careless")]
  assert rest == wanted


def test_habits_show(measured):
  found, _ = measured
  assert found["first"]["first"]["low"] > 0.6
  assert found["longer"]["longer"]["low"] > 0.6
  for name in ("ann", "bob", "eve"):
    one = found[name]
    assert one["first"]["low"] < 0.5 < one["first"]["high"]
    assert one["longer"]["low"] < 0.5 < one["longer"]["high"]
    assert one["agreement"]["low"] > 0.7
  assert found["tied"]["ties"] == 1
  assert found["tied"]["choice"] is None
  assert found["tied"]["first"] is None
  assert found["tied"]["agreement"]["n"] > 0


def test_counts_of_a_rater_by_hand(measured):
  found, _ = measured
  own = [row for row in crowd() if row["rater"] == "ann"]
  labels = [label for row in own for label in (row["overall"], *row["dims"].values())]
  one = found["ann"]
  assert one["n"] == len(own) == 80
  assert one["ties"] == sum(row["overall"] == 0 for row in own) / 80
  assert one["extremes"] == pytest.approx(sum(abs(x) == 3 for x in labels) / 240)
  chosen = [row["overall"] < 0 for row in own if row["overall"]]
  assert one["first"]["n"] == len(chosen)
  assert one["first"]["mean"] == pytest.approx(np.mean(chosen))
  assert one["seconds"] == 1.0
  assert found["few"]["shared"] <= 10


def test_alpha_rises_without_the_contrary_one(measured):
  found, _ = measured
  without = {name: one["alpha_without"] for name, one in found.items()}
  assert without["contrary"] == max(without.values())
  assert without["contrary"] > without["ann"] + 0.1


def test_a_rater_alone_is_not_flagged_and_time_may_be_unknown(tmp_path, capsys):
  path = write_rows(tmp_path / "a.jsonl", [pair("p1"), pair("p2", task="t2")])
  assert call("raters", path, "--json", tmp_path / "out.json") == 0
  one = json.loads((tmp_path / "out.json").read_text())["r1"]
  assert (one["flag"], one["agreement"], one["shared"]) == ("alone", None, 0)
  assert one["seconds"] is None
  assert "alone: shares no comparison" in capsys.readouterr().out


def test_a_share_of_all_has_an_interval_too(tmp_path):
  """Three dialogues of four choices, all of the first: Wilson's bound of 3 of 3."""
  rows = [
    pair(f"{k}-{n}", task=f"t{k}#{n}", overall=-1, replies=(f"A{n}", f"B{n}"))
    for k in range(3)
    for n in range(4)
  ]
  path = write_rows(tmp_path / "a.jsonl", rows)
  call("raters", path, "--json", tmp_path / "out.json")
  one = json.loads((tmp_path / "out.json").read_text())["r1"]
  low = 3 / (3 + 1.959964**2)
  assert one["first"] == {"mean": 1, "low": pytest.approx(low), "high": 1, "n": 12}
  assert one["longer"] is None


@pytest.mark.parametrize("flags", [("--drop-flagged",), ("--out", "x.jsonl")])
def test_dropping_needs_both_flags(tmp_path, capsys, monkeypatch, flags):
  monkeypatch.chdir(tmp_path)
  path = write_rows(tmp_path / "a.jsonl", [pair("p1")])
  assert call("raters", path, *flags) == 2
  assert "--drop-flagged and --out go together" in capsys.readouterr().err


def test_not_everybody_can_go(tmp_path, capsys):
  rows = [row for row in crowd(40) if row["rater"] in ("ann", "contrary")]
  path = write_rows(tmp_path / "a.jsonl", rows)
  flags = ("--drop-flagged", "--out", tmp_path / "rest.jsonl")
  assert call("raters", path, *flags) == 2
  assert "every rater is flagged, ['ann', 'contrary']" in capsys.readouterr().err
