"""The whole recipe at tiny size, on one machine, in minutes.

  python -m experiments.quickstart --workdir runs/quickstart [--smoke]

Speech is synthesised, a tiny audio model learns to hear (pre-alignment), to speak
about what it hears and to converse (SFT); it is evaluated on held-out dialogues beside
silence of equal length, exported to Hugging Face format, and DIR/report.html tells the
story. Killed anywhere, the same command goes on where it stopped.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from configs import prealign, sft
from experiments import report
from stepaudio_jax import checkpoint, evaluate, logs, train
from stepaudio_jax.data.world import build
from stepaudio_jax.hf import export


def run(workdir: Path, *, smoke: bool = False, seed: int = 0) -> Path:
  """Runs every stage that is not done yet and returns the path of the report."""
  d = workdir
  stages = Stages(d, smoke)
  hear, speak, talk = recipes(d, smoke, seed)
  stages.run("speech", "Synthesise speech", lambda: speech(d / "world", smoke, seed))
  stages.run("hear", "Pre-alignment: hear", lambda: train.run(hear, d / "hear"))
  stages.run("speak", "Pre-alignment: speak", lambda: train.run(speak, d / "speak"))
  stages.run("sft", "Cold-start SFT", lambda: train.run(talk, d / "sft"))
  stages.run("evaluation", "Evaluate beside silence", lambda: evaluation(d, smoke))
  stages.run("export", "Export to Hugging Face", lambda: hugging_face(d))
  page = report.write(d)
  print(stages.budget())
  print(f"report: {page}")
  return page


def speech(folder: Path, smoke: bool, seed: int) -> None:
  build.build(
    folder,
    train_clips=96 if smoke else 2600,
    heldout_per_task=12 if smoke else 204,
    seed=seed,
    processes=2,
    text_rows=50 if smoke else 1000,
    progress=True,
  )


def recipes(d: Path, smoke: bool, seed: int) -> tuple[ConfigDict, ...]:
  """(hear, speak, sft), each starting from the one before."""
  flag = ",smoke" if smoke else ""
  hear = prealign.get_config(f"phase=hear{flag}")
  hear.data.options.speech.path = str(d / "world" / "clips-train.jsonl")
  speak = prealign.get_config(f"phase=speak{flag}")
  speak.init = str(d / "hear")
  speak.data.options.dialogue.path = str(d / "world" / "captions-train.jsonl")
  talk = sft.get_config("smoke" if smoke else "")
  talk.init = str(d / "speak")
  talk.data.options.dialogue.path = str(d / "world" / "dialogues-train.jsonl")
  for c in (hear, speak, talk):
    c.data.cache = str(d / "cache")
    c.seed = seed
  return hear, speak, talk


def evaluation(d: Path, smoke: bool) -> None:
  evaluate.run(
    checkpoint=d / "sft",
    benchmarks=["world"],
    data=d / "world",
    out=d / "evaluation",
    batch_size=16 if smoke else 64,
  )


def hugging_face(d: Path) -> None:
  model = checkpoint.load_model(d / "sft")
  tasks = json.loads((d / "evaluation" / "world.json").read_text())["tasks"]
  scores = {
    f"{task}, accuracy on {row['n']} held-out dialogues": round(row["accuracy"], 3)
    for task, row in tasks.items()
  }
  if (d / "export").exists():  # whole, since an export is renamed when it is whole
    shutil.rmtree(d / "export")
  export.export(
    model.params,
    model.size,
    d / "export",
    tokenizer=model.tokenizer,
    card={
      "name": "stepaudio_jax quick start",
      "license": "apache-2.0",
      "languages": ["en"],
      "summary": "A tiny audio reasoning model that learned from synthetic speech in "
      "minutes, to show the recipe. It is no assistant.",
      "data": "Speech by espeak-ng about a synthetic world (stepaudio_jax/data/world); "
      "no recording of a person. Replies were scored by a simulated listener.",
      "scores": scores,
      "command": json.loads((d / "stages.json").read_text())["command"],
    },
  )


class Stages:
  """DIR/stages.json: which stages are done, and what each cost."""

  def __init__(self, workdir: Path, smoke: bool):
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / "stages.json"
    self._state = {
      "stages": [],
      "total_seconds": 0.0,
      "smoke": smoke,
      "command": " ".join(["python -m experiments.quickstart", *sys.argv[1:]]),
    }
    if self._path.exists():
      self._state = json.loads(self._path.read_text())
    if self._state["smoke"] != smoke:
      raise SystemExit(f"{workdir} holds a run with smoke={not smoke}")

  def run(self, name: str, title: str, work: Callable[[], object]) -> None:
    """Does the work, unless it was done; a stage that was begun is resumed."""
    rows = self._state["stages"]
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
      row = {"name": name, "title": title, "seconds": 0.0, "done": False}
      row |= {"resumed": False, "note": ""}
      rows.append(row)
    elif row["done"]:
      logs.say(f"── {title}: done before")
      return
    else:
      row["resumed"], row["note"] = True, "killed and resumed; time since the resume"
    self._write()
    logs.say(f"── {title}")
    start = time.perf_counter()
    work()
    row["seconds"], row["done"] = time.perf_counter() - start, True
    self._state["total_seconds"] = sum(row["seconds"] for row in rows)
    self._write()

  def budget(self) -> str:
    lines = [
      f"{row['seconds']:7.1f} s  {row['title']}" for row in self._state["stages"]
    ]
    return "\n".join([*lines, f"{self._state['total_seconds']:7.1f} s  in all"])

  def _write(self) -> None:
    aside = self._path.with_suffix(".partial")
    aside.write_text(json.dumps(self._state, indent=1))
    aside.replace(self._path)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--smoke", action="store_true", help="a minute, for tests")
  args = parser.parse_args()
  run(args.workdir, smoke=args.smoke, seed=args.seed)


if __name__ == "__main__":
  main()
