"""Captions say what the plan says, and nothing of labels that are not there."""

import pytest

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.world import captions, plan


@pytest.fixture(scope="module")
def takes():
  return plan.takes("train", plan.train_counts(40), seed=0)


def test_a_caption_holds_the_transcript_and_exactly_the_labels(takes):
  kinds = {take.kind for take in takes}
  assert kinds == {"plain", "pair", "emotion"}
  for take in takes:
    said, _, sounds = captions.text(take).partition(". ")
    assert said == take.transcript
    parts = sounds.rstrip(".").split(", ")
    assert len(parts) == len(take.labels)
    for part, label in zip(parts, take.labels.values(), strict=True):
      assert part.split()[0] == label


def test_rows_are_dialogues_without_thought_about_one_clip(takes):
  paths = {take.id: f"{take.id}.flac" for take in takes}
  rows = captions.rows(takes, paths)
  assert [row["meta"]["clips"] for row in rows] == [[take.id] for take in takes]
  first = schema.dialogue(Row(rows[0], "captions:1", "."))
  assert [audio.source for audio in first.audio] == [str(paths[takes[0].id])]
  assert "think" not in rows[0]["messages"][-1]
