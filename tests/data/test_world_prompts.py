"""Prompts chosen from a planned world; nothing is spoken."""

import collections

import pytest

from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.world import build, plan, prompts, tasks


def split_rows(split, counts, per_task):
  takes = plan.takes(split, counts, seed=0)
  paths = {take.id: f"speech/{take.id}.flac" for take in takes}
  return tasks.dialogues(split, takes, paths, 0, per_task)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A folder with the dialogues of both splits."""
  folder = tmp_path_factory.mktemp("world")
  train = split_rows("train", plan.train_counts(120), None)
  heldout = split_rows("heldout", plan.heldout_counts(12), 12)
  build.write_jsonl(folder / "dialogues-train.jsonl", train)
  build.write_jsonl(folder / "dialogues-heldout.jsonl", heldout)
  return folder


def heard(rows):
  blocks = [b for row in rows for m in row["messages"] for b in m["content"]]
  return {block["path"] for block in blocks if block["type"] == "audio"}


def by_task(rows):
  return collections.Counter(row["meta"]["task"] for row in rows)


def test_prompts_are_dialogues_of_the_tasks_in_turn(world):
  path = prompts.write_prompts(world, "train", ("pitch", "digits", "memory"), 20, 0)
  assert path == world / "prompts-train.jsonl"
  rows = build.read_jsonl(path)
  originals = {
    row["id"]: row for row in build.read_jsonl(world / "dialogues-train.jsonl")
  }
  assert all(row == originals[row["id"]] for row in rows)
  assert len({row["id"] for row in rows}) == 20
  assert by_task(rows) == {"pitch": 7, "digits": 7, "memory": 6}
  assert by_task(rows[:9]) == {"pitch": 3, "digits": 3, "memory": 3}
  checked = jsonl.Rows(path)
  for place, row in enumerate(rows):
    dialogue = schema.dialogue(checked[place])
    assert dialogue.row["answer"] == row["answer"]
    assert all(clip.source.startswith(str(world / "speech")) for clip in dialogue.audio)


def test_training_prompts_never_hear_heldout_speech(world):
  train = prompts.write_prompts(world, "train", ("pitch", "memory"), None, 0)
  heldout = prompts.write_prompts(world, "heldout", ("pitch", "memory"), None, 0)
  assert heldout.name == "prompts-heldout.jsonl"
  ours, theirs = (heard(build.read_jsonl(path)) for path in (train, heldout))
  assert ours
  assert theirs
  assert not ours & theirs
  assert not ours & heard(build.read_jsonl(world / "dialogues-heldout.jsonl"))


def test_without_a_limit_the_rarest_task_decides(world):
  rows = build.read_jsonl(world / "dialogues-train.jsonl")
  there = by_task(rows)
  assert there["pitch"] != there["digits"]
  fewest = min(there["pitch"], there["digits"])
  found = by_task(prompts.chosen(rows, ("pitch", "digits"), None, 0))
  assert found == {"pitch": fewest, "digits": fewest}


def test_the_seed_decides_what_is_drawn(world):
  rows = build.read_jsonl(world / "dialogues-train.jsonl")
  first, again, other = (
    [row["id"] for row in prompts.chosen(rows, ("pitch",), 10, seed)]
    for seed in (0, 0, 1)
  )
  assert first == again != other
  assert set(first) != set(other)
  in_file = [row["id"] for row in rows if row["id"] in first]
  assert first != in_file


@pytest.mark.parametrize(
  ("names", "limit", "message"),
  [
    (("pitch", "loudness"), 4, r"tasks \['pitch', 'loudness'\] must be .*'digits'"),
    ((), 4, r"tasks \[\] must be different ones"),
    (("pitch", "pitch"), 4, "must be different ones"),
    (("pitch",), 0, "limit=0 dialogues in equal shares"),
    (("pitch", "digits"), 10_000, r"limit=10000 .* there are {'pitch': \d+, 'digits'"),
  ],
)
def test_what_cannot_be_chosen_is_refused(world, names, limit, message):
  rows = build.read_jsonl(world / "dialogues-train.jsonl")
  with pytest.raises(ValueError, match=message):
    prompts.chosen(rows, names, limit, 0)


def test_a_task_without_dialogues_is_refused(world):
  rows = [
    row
    for row in build.read_jsonl(world / "dialogues-train.jsonl")
    if row["meta"]["task"] != "rate"
  ]
  for limit in (4, None):
    with pytest.raises(ValueError, match="'rate': 0"):
      prompts.chosen(rows, ("pitch", "rate"), limit, 0)
