"""The command: α by hand, whichever reply is shown first, in tables and JSON."""

import json

import pytest

from tests.data.rows import write_rows
from tests.preferences.told import call, pair

REPLIES = ("Fast.", "Slow.")


def rows(first, second):
  """Two raters' choices of comparisons of a dialogue each; the second's are turned."""
  out = []
  for k, (one, other) in enumerate(zip(first, second, strict=True)):
    shared = {"task": f"t{k}", "context": [{"role": "user", "content": f"{k}?"}]}
    replies = (f"Fast {k}.", f"Slow {k}.")
    scored = {"scores": {"x": {"wit": 1 + k % 5}, "y": {"wit": 5 - k % 5}}}
    turned = {"scores": {"y": {"wit": 1 + k % 5}, "x": {"wit": 5 - k % 5}}}
    out.append(pair(f"a{k}", overall=one, replies=replies, **shared, **scored))
    out.append(
      pair(f"b{k}", overall=-other, replies=replies[::-1], rater="r2", **shared)
      | turned
    )
  return out


def measured(tmp_path, data):
  path = write_rows(tmp_path / "a.jsonl", data)
  assert call("agreement", path, "--json", tmp_path / "out.json") == 0
  return json.loads((tmp_path / "out.json").read_text())


def test_full_agreement_in_turned_rows(tmp_path, capsys):
  choices = [-3, -2, 1, 0, 2, 3, -1, 1] * 3
  found = measured(tmp_path, rows(choices, choices))
  overall = found["labels"]["overall"]
  assert overall["alpha"] == overall["low"] == overall["high"] == 1
  assert (overall["units"], overall["values"], overall["alone"]) == (24, 48, 0)
  assert overall["same"] == overall["side"] == 1
  wit = found["scores"]["wit"]
  assert (wit["units"], wit["alpha"]) == (48, 1)
  assert "side" not in wit
  told = capsys.readouterr().out
  assert "24 comparisons of 24 dialogues, 2 raters" in told
  assert "| overall |    24 |     48 |          0 | 1.00 [1.00, 1.00] |" in told


def test_a_fine_scale_has_no_interval_and_spoils_no_other(tmp_path, capsys):
  data = rows([1, -1] * 20, [1, -1] * 20)
  for k, row in enumerate(data):
    fine = 1 + k // 2 / 10
    said, other = "xy" if k % 2 == 0 else "yx"  # the second rater's are turned
    row["scores"] = {said: {"wit": fine}, other: {"wit": 1}}
  found = measured(tmp_path, data)
  wit = found["scores"]["wit"]
  assert (wit["alpha"], wit["low"], wit["different"]) == (1, None, 40)
  assert found["labels"]["overall"]["low"] == 1
  told = capsys.readouterr().out
  assert "No interval for wit: 40 different scores are more than 32." in told


def test_alpha_by_hand(tmp_path):
  """Nominal α needs no order of the replies where choices are ±1 or 0 by rater.

  Eight comparisons: in six both choose the same side, in two the second is tied.
  """
  first, second = [1] * 8, [1] * 6 + [0] * 2
  found = measured(tmp_path, rows(first, second))["labels"]["overall"]
  assert found["same"] == pytest.approx(6 / 8)
  assert found["side"] == 1
  # Signs fall as the replies' hashes say: p ones of 8 comparisons, 8 − p minus ones.
  possible = set()
  for ones in range(9):  # comparisons in which the first rater's label is +1
    for tied in range(max(0, ones - 6), min(2, ones) + 1):  # ties among these
      counts = (2 * ones - tied, 2 * (8 - ones) - (2 - tied), 2)
      expected = 16**2 - sum(n**2 for n in counts)
      possible.add(round(1 - 15 * 4 / expected, 9))
  assert round(found["nominal"], 9) in possible


def test_the_order_of_the_file_does_not_matter(tmp_path):
  data = rows([1, -2, 3, 0, 2, -1] * 4, [2, -1, 3, -1, -2, -1] * 4)
  first = measured(tmp_path, data)
  swapped = [
    row | {"candidates": row["candidates"][::-1], "overall": -row["overall"]}
    for row in data
  ]
  second = measured(tmp_path, swapped)
  assert first["labels"] == second["labels"]
  assert 0 < first["labels"]["overall"]["alpha"] < 1


def test_one_rater_agrees_with_nobody(tmp_path, capsys):
  found = measured(tmp_path, rows([1, 2], [1, 2])[::2])
  assert found["labels"]["overall"]["alpha"] is None
  assert found["labels"]["overall"]["alone"] == 2
  assert "nothing can be said of agreement" in capsys.readouterr().out


def test_wrong_rows_are_one_line(tmp_path, capsys):
  path = write_rows(
    tmp_path / "a.jsonl", [pair("p1", overall=9), pair("p2") | {"x": 1}]
  )
  assert call("agreement", path) == 2
  told = capsys.readouterr().err
  assert told.startswith(f"preferences: {path}:1: 'p1': overall: 9 is not a whole")
  assert (
    f"(2 problems in all; `python -m stepaudio_jax.preferences validate {path}`"
    in (told)
  )
  assert told.count("\n") == 1
