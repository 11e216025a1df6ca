r"""Real recordings, end to end: a half trains a tiny model, the other half tests it.

  python -m experiments.recordings --audio ../shared/data/audio \
    --init runs/quickstart/sft --workdir runs/recordings

AUDIO/manifest.json asks about spoken digits, sound events and more. The digit and sound
rows are cut into two halves that share no speaker and no recordist. SFT goes on from
INIT with one half; the other is asked before and after, with sound and in silence of
equal length. The manifest's other questions, which nothing was trained on, are asked
once. DIR/recordings.md says what came out. Killed anywhere, the same command goes on.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import sft
from experiments import recordings_page, recordings_sound
from experiments import recordings_rows as rows_lib
from experiments.stages import Stages
from stepaudio_jax import evaluate, train
from stepaudio_jax.core import errors, files, storage
from stepaudio_jax.data.world.build import write_jsonl
from stepaudio_jax.evals import recordings

TAKES = {"digit": 12, "digit_string": 2, "sound_event": 16}
STRINGS = 60  # joined for each training speaker
STEPS = 240
_SMOKE_ROWS = 12


_SILENCE = ("silence",)


def run(
  audio: Path, init: Path, workdir: Path, *, seed: int = 0, smoke: bool = False
) -> Path:
  """Runs every stage that is not done yet and returns the path of the page."""
  storage.step_folder(init)  # an error here, not after minutes
  d = workdir
  settings = {"audio": str(audio), "init": str(init), "seed": seed, "smoke": smoke}
  stages = Stages(d, experiment="recordings", **settings)
  c = recipe(init, d, seed, smoke)
  stages.run("rows", "Two halves", lambda: write_rows(audio, d, seed, smoke))
  stages.run("before", "Ask the start", lambda: ask(init, d, "before", "heldout"))
  stages.run("sft", "SFT", lambda: train.run(c, d / "sft"))
  stages.run("after", "Ask it again", lambda: ask(d / "sft", d, "after", "heldout"))
  stages.run("rest", "Ask the rest", lambda: ask(d / "sft", d, "after", "rest", ()))
  page = recordings_page.write(d, c)
  print(stages.budget())
  print(page.read_text())
  return page


def write_rows(audio: Path, d: Path, seed: int, smoke: bool = False) -> None:
  """DIR/{train,heldout,rest}/manifest.json and DIR/dialogues-train.jsonl."""
  found = rows_lib.halves(json.loads((audio / "manifest.json").read_text()))
  train_rows = [*found.train, *rows_lib.strings(found.train, STRINGS, seed)]
  train_rows = rows_lib.variants(train_rows, TAKES, seed)
  rows = {"train": train_rows, "heldout": found.heldout, "rest": found.rest}
  for name, some in rows.items():
    some = some[:: max(1, len(some) // _SMOKE_ROWS)] if smoke else some
    there = recordings_sound.written(some, audio, d / "clips", seed)
    with files.aside(d / name / "manifest.json") as partial:
      partial.write_text(json.dumps(there, indent=1, ensure_ascii=False))
  items = recordings.read(d / "train")
  write_jsonl(d / "dialogues-train.jsonl", map(rows_lib.dialogue, items))
  counts = {name: len(getattr(found, name)) for name in found._fields}
  counts |= {"dialogues": len(items)}
  with files.aside(d / "counts.json") as partial:
    partial.write_text(json.dumps(counts))


def recipe(init: Path, d: Path, seed: int, smoke: bool) -> ConfigDict:
  """SFT as in the quick start, with room for sounds of 6 s."""
  c = sft.get_config(f"size=tiny{',smoke' if smoke else ''}")
  c.seed = seed
  c.init, c.size = str(init), "init"
  c.total_steps = 4 if smoke else STEPS
  c.data.options.dialogue.path = str(d / "dialogues-train.jsonl")
  c.data.cache = str(d / "cache")
  c.data.max_clip_s = 6.4
  return c


def ask(
  checkpoint: Path,
  d: Path,
  when: str,
  rows: str,
  controls: Sequence[str] = _SILENCE,
) -> None:
  """DIR/evaluation/<when>-<rows>: replies to a manifest, the likeliest ones."""
  evaluate.run(
    checkpoint=checkpoint,
    benchmarks=["recordings"],
    data=d / rows,
    out=d / "evaluation" / f"{when}-{rows}",
    cache=d / "cache",
    batch_size=32,
    max_new_tokens=48,
    temperature=0.0,
    controls=controls,
  )


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.recordings", description=__doc__.split("\n")[0]
  )
  add = parser.add_argument
  add("--audio", type=Path, required=True, help="the folder of manifest.json")
  add("--init", type=Path, required=True, help="a quick start's sft")
  add("--workdir", type=Path, required=True)
  add("--seed", type=int, default=0)
  add("--smoke", action="store_true", help="a minute, for tests")
  args = parser.parse_args(argv)
  with errors.readable("recordings"):
    run(args.audio, args.init, args.workdir, seed=args.seed, smoke=args.smoke)


if __name__ == "__main__":
  main()
