"""The report's choice of dialogues, and the shapes of its charts."""

import re

import numpy as np
import pytest

from experiments import report_charts, report_dialogues
from tests.experiments.quickstarts import human, items, metrics

# ─── Dialogues ────────────────────────────────────────────────────────────────────────


def picked(rows):
  return [heard["id"] for heard, _ in report_dialogues.picked(rows, "items")]


def test_picking_without_wrong_replies_shows_three_tasks():
  rows = [row for row in items() if row["id"].endswith("right")]
  assert picked(rows) == ["memory-right", "pitch-right", "speakers-right"]


def test_picking_prefers_a_wrong_reply_to_an_unreadable_one():
  rows = [row for row in items() if row["id"] != "pitch-wrong"]
  assert picked(rows)[1] == "memory-wrong"
  rows = [row for row in rows if row["id"] != "memory-wrong"]
  assert picked(rows)[1] == "pitch-unread"
  heard, silent = report_dialogues.picked(rows, "items")[1]
  shown = report_dialogues.shown(heard | {"messages": [human("Hm?")]}, silent, [])
  assert shown["reply"]["verdict"] == "Wrong: no answer could be read"


def test_picking_takes_a_wrong_memory_where_none_is_right():
  names = ("memory-wrong", "pitch-wrong", "pitch-right", "speakers-right")
  rows = [row for row in items() if row["id"] in names]
  assert picked(rows) == ["memory-wrong", "pitch-right", "speakers-right"]


def test_failed_items_are_not_picked():
  rows = items()
  for row in rows:
    if row["id"] == "memory-right":
      row |= {"raw": None, "think": None, "reply": None, "scores": {}}
  assert picked(rows)[0] == "memory-wrong"


def test_too_few_dialogues_or_no_silence_is_an_error():
  with pytest.raises(ValueError, match="items: 1 dialogues with sound"):
    picked([row for row in items() if row["id"] == "pitch-right"])
  rows = [row for row in items() if row["condition"] == "audio"]
  with pytest.raises(ValueError, match="'memory-right' has no reply of condition 'si"):
    picked(rows)


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


@pytest.mark.parametrize(
  ("top", "ticks"),
  [(6.9, [0, 2, 4, 6, 8]), (1.0, [0, 0.25, 0.5, 0.75, 1.0]), (0.0, [0, 0.25, 0.5])],
)
def test_ticks_are_round_and_reach_the_top(top, ticks):
  assert report_charts.nice_ticks(top) == pytest.approx(ticks)


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
