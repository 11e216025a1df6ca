"""Writes a synthetic world: speech, dialogues about it and the truth, from one seed.

Nothing here is a recording of a person; truth files are for gold listeners and
evaluation and are never read by training.
"""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence

from stepaudio_jax.audio import speech
from stepaudio_jax.core.files import aside
from stepaudio_jax.data.world import captions, plan, tasks, text_only

SHARD_SIZE = 250
SMALLEST_TRAIN, SMALLEST_HELDOUT = 20, 4
SPEECH = "speech"
_SPLITS = ("train", "heldout")


def build(
  folder: str | os.PathLike,
  *,
  train_clips: int,
  heldout_per_task: int,
  seed: int,
  processes: int,
  text_rows: int = 1000,
  progress: bool = False,
) -> dict[str, pathlib.Path]:
  """Writes the world and returns its files: "clips-train", "truth-heldout", ….

  Audio paths in the rows are relative to the folder. The same arguments give the
  same bytes; a killed build continues; a folder with other speech is an error.

  Args:
    train_clips: training clips of all kinds (plan.train_counts).
    heldout_per_task: held-out dialogues of each task; their clips come on top.
    processes: speech children at a time.
    text_rows: rows of text-only questions (text-train.jsonl).
  """
  for name, value, least in (
    ("train_clips", train_clips, SMALLEST_TRAIN),
    ("heldout_per_task", heldout_per_task, SMALLEST_HELDOUT),
  ):
    if value < least:
      raise ValueError(f"{name}={value} is too few for six tasks; at least {least}")
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  takes = {
    "train": plan.takes("train", plan.train_counts(train_clips), seed),
    "heldout": plan.takes("heldout", plan.heldout_counts(heldout_per_task), seed),
  }
  clips = [take.clip for split in _SPLITS for take in takes[split]]
  speech.speak_shards(
    clips,
    folder / SPEECH,
    shard_size=SHARD_SIZE,
    processes=processes,
    progress=progress,
  )
  paths = {
    clip.id: f"{SPEECH}/{place // SHARD_SIZE:05d}/{clip.id}.flac"
    for place, clip in enumerate(clips)
  }
  files = {}
  for split, per_task in zip(_SPLITS, (None, heldout_per_task), strict=True):
    rows, truths = tasks.dialogues(split, takes[split], paths, seed, per_task)
    files |= {
      f"clips-{split}": [clip_row(take, paths) for take in takes[split]],
      f"dialogues-{split}": rows,
      f"truth-{split}": truths,
    }
  files["captions-train"] = captions.rows(takes["train"], paths)
  files["text-train"] = text_only.rows(text_rows, seed)
  return {
    name: write_jsonl(folder / f"{name}.jsonl", rows) for name, rows in files.items()
  }


def clip_row(take: plan.Take, paths: dict[str, str]) -> dict:
  """A row of clips-*.jsonl; an attribute that is not labelled has no key."""
  attributes = dict(take.labels)
  if len(take.voices) == 1:
    attributes["voice"] = take.voices[0]
  return {
    "id": take.id,
    "audio": {"path": paths[take.id]},
    "transcript": take.transcript,
    "attributes": attributes,
  }


def write_jsonl(path: pathlib.Path, rows: Iterable[dict]) -> pathlib.Path:
  """One row a line; whole or not there."""
  with aside(path) as partial, partial.open("w", encoding="utf-8") as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + "\n")
  return path


def read_jsonl(path: str | os.PathLike) -> Sequence[dict]:
  """The rows of a JSON Lines file."""
  with open(path, encoding="utf-8") as file:
    return [json.loads(line) for line in file]
