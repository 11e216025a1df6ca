"""Simulated raters and the preference files they fill."""

import collections
import json

import numpy as np
import pytest

from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.world import build, gold, plan, preferences, raters, tasks

NEUTRAL = dict.fromkeys(gold.DIMENSIONS, 3.0)
EXACT = {"noise": 0, "bias": 0, "carelessness": 0, "skips": 0}


@pytest.fixture(scope="module")
def world():
  """Dialogue and truth rows; nothing is spoken."""
  takes = plan.takes("heldout", plan.heldout_counts(40), seed=0)
  paths = {take.id: f"{take.id}.flac" for take in takes}
  return tasks.dialogues("heldout", takes, paths, 0, per_task=40)


def one(**options):
  return raters.raters(1, seed=0, **{**EXACT, **options})[0]


def random_scores(count, seed=0):
  rng = np.random.default_rng(seed)
  draw = rng.uniform(1, 5, (count, 2, len(gold.DIMENSIONS)))
  return [
    tuple(dict(zip(gold.DIMENSIONS, map(float, row), strict=True)) for row in pair)
    for pair in draw
  ]


def agreement(rater, pairs):
  """Share of decided pairs in which the rater follows the weighted gold."""
  signs = [
    np.sign(rater.judge(str(k), a, b)["overall"])
    * np.sign(sum(raters.WEIGHTS[d] * (b[d] - a[d]) for d in gold.DIMENSIONS))
    for k, (a, b) in enumerate(pairs)
  ]
  decided = [sign for sign in signs if sign]
  assert len(decided) > len(pairs) / 3
  return np.mean([sign > 0 for sign in decided])


@pytest.mark.parametrize(
  ("gap", "expected"),
  [(0.2, 0), (0.25, 1), (0.8, 2), (1.75, 3), (4, 3), (-0.2, 0), (-0.5, -1), (-3, -3)],
)
def test_level(gap, expected):
  assert raters.level(gap) == expected


def test_negative_means_the_first_is_better():
  better = NEUTRAL | {"correctness": 5.0}
  for first, second, sign in ((better, NEUTRAL, -1), (NEUTRAL, better, 1)):
    labels = one().judge("x", first, second)
    assert np.sign(labels["overall"]) == sign
    assert labels["dims"] == {
      **dict.fromkeys(gold.DIMENSIONS, 0),
      "correctness": 3 * sign,
    }
  labels = one().judge("x", better, NEUTRAL)
  assert labels["scores"] == [
    {k: round(v) for k, v in s.items()} for s in (better, NEUTRAL)
  ]


def test_an_exact_rater_follows_gold_and_noise_lowers_agreement():
  pairs = random_scores(600)
  shares = [agreement(one(noise=noise), pairs) for noise in (0, 1.5, 6)]
  assert shares[0] == 1
  assert shares[0] > shares[1] + 0.05 > shares[2] + 0.1 > 0.6


def test_careless_raters_are_at_chance():
  assert abs(agreement(one(carelessness=1), random_scores(600)) - 0.5) < 0.08


def test_bias_leans_to_a_place_and_shifts_the_scale():
  panel = raters.raters(60, seed=1, **{**EXACT, "bias": 0.6})
  leans = [rater.judge("x", NEUTRAL, NEUTRAL)["overall"] for rater in panel]
  for rater, lean in zip(panel, leans, strict=True):
    assert lean == -raters.level(rater.first_lean)
  assert {-1, 1} <= set(leans)
  for rater in panel:
    first = rater.judge("x", NEUTRAL, NEUTRAL)["scores"][0]
    expected = {d: round(3 + rater.leniency[d]) for d in gold.DIMENSIONS}
    assert first == {d: min(5, max(1, value)) for d, value in expected.items()}
  assert len({tuple(rater.weights.values()) for rater in panel}) == 60


def test_skipped_dimensions_have_no_label():
  labels = [one(skips=0.5).judge(str(k), NEUTRAL, NEUTRAL) for k in range(200)]
  blank = [d for one in labels for d, value in one["dims"].items() if value is None]
  assert 0.4 < len(blank) / (200 * len(gold.DIMENSIONS)) < 0.6
  for one_item in labels:
    marked = {d for d, value in one_item["dims"].items() if value is not None}
    assert [set(scores) for scores in one_item["scores"]] == [marked, marked]


def test_raters_repeat_themselves_and_differ_from_each_other():
  panel = raters.raters(4, seed=2)
  again = raters.raters(4, seed=2)
  pairs = random_scores(20)
  labels = [[r.judge(str(k), *p) for k, p in enumerate(pairs)] for r in panel]
  assert labels == [[r.judge(str(k), *p) for k, p in enumerate(pairs)] for r in again]
  assert labels[0] != labels[1]
  assert [rater.id for rater in panel] == ["sim-00", "sim-01", "sim-02", "sim-03"]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"carelessness": 2}, "carelessness=2"),
    ({"skips": -1}, "skips=-1"),
    ({"noise": -0.5}, "noise=-0.5"),
    ({"bias": -1}, "bias=-1"),
  ],
)
def test_impossible_raters_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    one(**options)


def make(world, **options):
  panel = raters.raters(5, seed=0)
  return preferences.rows(*world, panel, **{"seed": 0, "pairs": 300, **options})


def test_rows_have_the_schema_and_say_they_are_simulated(world):
  rows = make(world)
  assert len(rows) == 300
  assert len({row["id"] for row in rows}) == 300
  by_id = {row["id"]: row for row in world[0]}
  for row in rows:
    dialogue = by_id[row["task_id"]]
    assert row["schema"] == "pref/1"
    assert row["rater"].startswith("sim-")
    assert row["gold"]["simulated"]
    assert row["context"] == dialogue["messages"][:-1]
    assert [c["cid"] for c in row["candidates"]] == ["a", "b"]
    assert row["candidates"][0]["text"] != row["candidates"][1]["text"]
    assert row["overall"] in range(-3, 4)
    assert set(row["dims"]) == set(gold.DIMENSIONS)
    assert set(row["scores"]) == {"a", "b"}
    assert row.get("rubric") == dialogue.get("rubric")
  assert len({row["rater"] for row in rows}) == 5
  assert any("rubric" in row for row in rows)


def test_lengths_match_and_both_places_win_alike(world):
  rows = make(world, pairs=600)
  for row in rows:
    short, long = sorted(len(c["text"].split()) for c in row["candidates"])
    assert short >= 0.8 * long
  lean = np.mean([np.sign(row["overall"]) for row in rows])
  assert abs(lean) < 0.15


def test_labels_follow_gold_and_every_dimension_varies(world):
  rows = make(world, pairs=600)
  for name in gold.DIMENSIONS:
    gaps = [
      (row["dims"][name], row["gold"]["b"][name] - row["gold"]["a"][name])
      for row in rows
      if row["dims"][name] is not None
    ]
    told = [(label, gap) for label, gap in gaps if label and gap]
    assert len(told) > 0.03 * len(rows), name
    assert np.mean([label * gap > 0 for label, gap in told]) > 0.8, name


def test_same_seed_same_rows(world):
  assert make(world) == make(world) != make(world, seed=1)


def sampled_by_all(world, *texts):
  """The same sampled replies to every dialogue."""
  said = [{"text": text, "think": None, "model": "sft"} for text in texts]
  return {row["id"]: said for row in world[0]}


REPEATED = "It is low. That is my answer. Shall we go on?"


def places(rows):
  """Share of the sampled among the candidates, and the set of counts in pairs."""
  counts = [sum(c["model"] == "sft" for c in row["candidates"]) for row in rows]
  return sum(counts) / (2 * len(counts)), set(counts)


def test_sampled_replies_take_half_the_places(world):
  sampled = sampled_by_all(world, *(f"It is {word} for me." for word in ("a", "b")))
  share, counts = places(make(world, sampled=sampled))
  assert abs(share - 0.5) < 0.02
  assert counts == {0, 1, 2}


def test_a_model_that_repeats_itself_takes_half_the_places_too(world):
  # No pair of two sampled replies: they are all the same.
  share, counts = places(make(world, sampled=sampled_by_all(world, REPEATED)))
  assert abs(share - 0.5) < 0.02
  assert counts == {0, 1}


def test_dialogues_without_samples_compare_scripted_replies(world):
  sampled = sampled_by_all(world, REPEATED, "", " ")
  some = dict(list(sampled.items())[::2])
  rows = make(world, sampled=some)
  share, _ = places([row for row in rows if row["task_id"] in some])
  assert abs(share - 0.5) < 0.02
  assert places([row for row in rows if row["task_id"] not in some]) == (0, {0})
  assert {c["text"] for r in rows for c in r["candidates"]} >= {REPEATED}
  assert all(c["text"].strip() for r in rows for c in r["candidates"])


def test_several_raters_see_the_same_pair(world):
  alone = make(world, pairs=40)
  rows = make(world, pairs=40, raters_per_item=3)
  assert len(rows) == 120
  assert len({row["id"] for row in rows}) == 120
  for k, first in enumerate(alone):
    item = rows[3 * k : 3 * k + 3]
    assert [row["id"] for row in item] == [f"{first['id']}-r{j}" for j in range(3)]
    assert len({row["rater"] for row in item}) == 3
    own = ("id", "rater", "overall", "dims", "scores")
    shared = [{key: v for key, v in r.items() if key not in own} for r in item]
    assert shared[0] == shared[1] == shared[2]
    # The first rater is the one that would have been asked alone, and says the same.
    assert {**item[0], "id": first["id"]} == first
  assert any(len({r["overall"] for r in rows[k : k + 3]}) > 1 for k in range(0, 120, 3))
  marks = collections.Counter(row["rater"] for row in rows)
  assert set(marks.values()) == {24}  # 120 rows, five raters
  together = {frozenset(r["rater"] for r in rows[k : k + 3]) for k in range(0, 120, 3)}
  assert len(together) == 5


@pytest.mark.parametrize("count", [0, 6])
def test_more_raters_than_the_panel_has_are_refused(world, count):
  with pytest.raises(ValueError, match=rf"raters_per_item={count} is not within 1..5"):
    make(world, raters_per_item=count)


def test_no_dialogues_are_refused(world):
  with pytest.raises(ValueError, match="no dialogues"):
    make(([], []))


def test_length_is_measured_as_asked(world):
  rows = make(world, length=len, pairs=100)
  for row in rows:
    short, long = sorted(len(c["text"]) for c in row["candidates"])
    assert short >= 0.8 * long


def test_mismatched_truth_is_refused(world):
  with pytest.raises(ValueError, match=r"dialogue 'heldout-.*' meets truth"):
    make((world[0], world[1][::-1]))


@pytest.fixture
def folder(world, tmp_path):
  for name, rows in zip(("dialogues", "truth"), world, strict=True):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"{name}-heldout.jsonl").write_text(lines)
  return tmp_path


def test_write_puts_the_file_beside_the_world(world, folder):
  panel = raters.raters(5, seed=0)
  path = preferences.write(folder, "heldout", panel, seed=0, pairs=30)
  assert path.name == "preferences-heldout.jsonl"
  assert build.read_jsonl(path) == make(world, pairs=30)


def test_written_rows_pass_the_schema_and_are_of_the_tasks_asked_for(folder):
  panel = raters.raters(5, seed=0)
  asked = {"seed": 0, "pairs": 30, "raters_per_item": 2, "tasks": ("pitch", "memory")}
  path = preferences.write(folder, "heldout", panel, **asked)
  rows = build.read_jsonl(path)
  assert len(rows) == 60
  assert {row["gold"]["task"] for row in rows} == {"pitch", "memory"}
  assert all(row["task_id"].split("-")[1] == row["gold"]["task"] for row in rows)
  checked = jsonl.Rows(path)
  assert [schema.preference(checked[k]).id for k in range(60)] == [
    row["id"] for row in rows
  ]
  with pytest.raises(ValueError, match=r"tasks \['pich'\] must be .*'pitch'"):
    preferences.write(folder, "heldout", panel, seed=0, pairs=3, tasks=["pich"])


def test_pairs_differ_in_something_worth_rating(world):
  """Scripted replies always offer a contrast; and each dimension gets its share."""
  panel = raters.raters(1, seed=0, **EXACT)
  made = preferences.rows(*world, panel, seed=0, pairs=200)
  apart = collections.Counter()
  for row in made:
    first, second = (row["gold"][cid] for cid in "ab")
    differing = [d for d in gold.DIMENSIONS if abs(first[d] - second[d]) >= 1]
    assert differing, row["id"]
    apart.update(differing)
  # Rarer faults too: without the draw, one pair in twelve differs in coherence.
  assert min(apart[d] for d in gold.DIMENSIONS) > len(made) / 10, apart
