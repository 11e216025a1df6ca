"""The report's choice of dialogues, the shapes of its charts, and its words."""

import re

import numpy as np
import pytest

from experiments import report_charts, report_dialogues, report_words
from stepaudio_jax.pages import charts
from tests.experiments.quickstarts import POLICIES, human, items, metrics

# ─── Dialogues ────────────────────────────────────────────────────────────────────────


def by_policy():
  return {
    policy: {row["id"]: row for row in items(policy) if row["condition"] == "audio"}
    for policy in POLICIES
  }


def test_the_first_dialogue_with_sound_of_every_task_is_picked():
  chosen = report_dialogues.picked(by_policy(), "items")
  names = [{row["id"] for row in rows.values()} for rows in chosen]
  assert names == [{"memory-long"}, {"pitch-first"}, {"speakers-first"}]
  assert [*chosen[0]] == [*POLICIES]
  assert chosen[0]["rlhf"]["reply"] == "rlhf says memory-long"


def test_the_choice_reads_no_reply():
  before, after = by_policy(), by_policy()
  for rows in after.values():
    for row in rows.values():
      row |= {"correct": None, "scores": {}, "raw": None, "think": None, "reply": None}
  names = [
    [rows["sft"]["id"] for rows in report_dialogues.picked(all_rows, "items")]
    for all_rows in (before, after)
  ]
  assert names[0] == names[1]


def test_no_dialogue_with_sound_is_an_error():
  only = {p: {"pitch-text": rows["pitch-text"]} for p, rows in by_policy().items()}
  with pytest.raises(ValueError, match="items: no dialogue has sound"):
    report_dialogues.picked(only, "items")


def test_shown_names_what_came_of_a_reply():
  row = items()[0] | {"messages": [human("Hm?")]}
  unread = row | {"correct": None, "scores": {"naturalness": 1.0}}
  failed = row | {"correct": None, "raw": None, "scores": {}}
  rows = {"a": row | {"scores": {"naturalness": 2.0}}, "b": unread, "c": failed}
  shown = report_dialogues.shown(rows, [])
  verdicts = [reply["verdict"] for reply in shown["replies"].values()]
  assert verdicts == ["Right", "No answer could be read", "Could not be asked"]
  assert shown["best"] == {"naturalness": 2.0}
  assert report_dialogues.clips(shown) == []


def test_nothing_is_best_where_all_are_equal():
  row = items()[0] | {"messages": [human("Hm?")], "scores": {"naturalness": 3.0}}
  shown = report_dialogues.shown({"a": row, "b": row}, [])
  assert shown["best"] == {"naturalness": None}


# ─── Charts ───────────────────────────────────────────────────────────────────────────


def test_path_is_lifted_at_holes():
  assert (
    report_charts.path([0, 1, 2, 3], [5, 6, None, 7]) == "M0.0 5.0 L1.0 6.0 M3.0 7.0"
  )


def test_smoothing_keeps_holes_and_shrinks_at_the_ends():
  # Windows of nine: the first sees values 0..4, the sixth all of 1..9 but the hole.
  values = [0.0, 1.0, 2.0, None, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
  smooth = report_charts.smoothed(values)
  assert smooth[0] == pytest.approx((0 + 1 + 2 + 4) / 4)
  assert smooth[3] is None
  assert smooth[5] == pytest.approx((1 + 2 + 4 + 5 + 6 + 7 + 8 + 9) / 8)
  assert report_charts.smoothed([1.0, 2.0, 6.0], 3) == [1.5, 3.0, 4.0]


@pytest.mark.parametrize(
  ("top", "bottom", "ticks"),
  [
    (6.9, 0.0, [0, 2, 4, 6, 8]),
    (1.0, 0.0, [0, 0.25, 0.5, 0.75, 1.0]),
    (0.0, 0.0, [0, 0.25, 0.5]),
    (3.9, 3.2, [3.2, 3.4, 3.6, 3.8, 4.0]),
    (-0.5, -1.5, [-1.5, -1.25, -1.0, -0.75, -0.5]),
    (3.2, 3.2, [3.0, 3.25, 3.5]),
  ],
)
def test_ticks_are_round_and_reach_both_ends(top, bottom, ticks):
  assert charts.nice_ticks(top, bottom) == pytest.approx(ticks)


def test_panel_fits_its_ticks_and_leaves_out_empty_lines():
  series = {"a": [2.0, 3.0], "b": [None, None]}
  panel = report_charts.panel("P", series, [1, 2], ticks=[2, 4], colours={"a": 5})
  (line,) = panel["lines"]
  # 2 is at the bottom (400), 3 half way up; steps 1 and 2 of 2 are at 500 and 1000.
  assert line["raw"] == "M500.0 400.0 L1000.0 200.0"
  assert (line["label"], line["colour"], line["last"]) == ("a", 5, "2.50")
  assert [tick["up"] for tick in panel["ticks"]] == [0, 100]
  assert report_charts.panel("P", {"b": [None]}, [1])["lines"] == []


def test_panels_of_a_stage():
  loss, right = report_charts.panels(metrics("speak"))
  # The single source's loss repeats the loss and is left out; losses 8, 4, 2 on 0..8.
  (line,) = loss["lines"]
  assert line["raw"] == "M250.0 0.0 L500.0 200.0 L1000.0 300.0"
  assert (line["label"], line["last"]) == ("nats per token", "4.67")
  assert right["lines"][0]["last"] == "50\u00a0%"
  loss, right = report_charts.panels(metrics("hear"))
  assert [line["label"] for line in loss["lines"]] == ["CTC", "all"]
  assert right["lines"][0]["raw"] == "M1000.0 100.0"


def test_wave_is_highest_where_it_is_loudest():
  samples_N = np.concatenate([np.zeros(100), np.full(100, -0.2), np.full(100, 0.1)])
  strokes = report_charts.wave(samples_N, 3).split(" M")
  heights = [
    float(np.diff([float(v) for v in re.findall(r"[ V]([\d.]+)", s)])[0])
    for s in strokes
  ]
  assert heights == [8, 380, 190]


# ─── Words ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(2.14, "2.1 s"), (9.97, "10 s"), (59.7, "1 min 00 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds, text):
  assert report_words.duration(seconds).replace("\u00a0", " ") == text


def test_signs():
  values = (0.214, -0.04, -0.001, 0.0, None)
  texts = ["+0.21", "−0.04", "0.00", "0.00", "–"]
  assert [report_words.signed(value) for value in values] == texts
  assert report_words.points(-0.0214) == "−2.1"
  assert report_words.number(-0.001) == "0.00"
  part = {"low": -0.02, "high": 0.11}
  assert report_words.span(part) == "−0.02 to +0.11"
  assert report_words.point_span(part) == "−2.0 to +11.0"


def test_lists_and_sizes():
  assert report_words.listed(["a_b", "c", "d"]) == "a b, c and d"
  assert report_words.listed(["a"]) == "a"
  assert report_words.size(1_234_000) == "1.2\u00a0MB"
  assert report_words.percent(None) == "–"
