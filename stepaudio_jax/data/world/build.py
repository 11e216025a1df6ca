"""Writes a synthetic world: speech, dialogues about it and the truth, from one seed.

  python -m stepaudio_jax.data.world.build --out runs/world

Nothing here is a recording of a person; truth files are for gold listeners and
evaluation and are never read by training.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

from stepaudio_jax.audio import speech
from stepaudio_jax.core import errors
from stepaudio_jax.core.files import aside
from stepaudio_jax.data.world import captions, plan, tasks, text_only, words

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


def main(argv: Sequence[str] | None = None) -> None:
  from stepaudio_jax.data.world import prompts  # which are made of build's files

  parser = argparse.ArgumentParser(
    prog="python -m stepaudio_jax.data.world.build",
    description="Writes a synthetic world; a killed build continues.",
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--out", required=True, metavar="DIR", type=pathlib.Path)
  add("--train_clips", type=int, default=2600, metavar="N", help="default 2600")
  add("--heldout_per_task", type=int, default=204, metavar="N", help="default 204")
  add("--text_rows", type=int, default=1000, metavar="N", help="default 1000")
  add("--seed", type=int, default=0, metavar="N", help="default 0")
  add("--processes", type=int, default=2, metavar="N", help="speech children, 2")
  add(
    "--prompt_tasks",
    nargs="+",
    metavar="TASK",
    default=["pitch", "rate", "emotion"],
    help=f"of prompts-*.jsonl: pitch rate emotion, or some of {' '.join(words.TASKS)}",
  )
  options = vars(parser.parse_args(argv))
  folder, chosen = options.pop("out"), options.pop("prompt_tasks")
  with errors.readable("build"):
    prompts.check_tasks(chosen)
    files = build(folder, **options, progress=True)
    for split in _SPLITS:
      path = prompts.write_prompts(folder, split, chosen, None, options["seed"])
      files[path.stem] = path
  for path in files.values():
    print(path)


if __name__ == "__main__":
  main()
