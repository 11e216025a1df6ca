"""DIR/report.html: what a quick start did, on one page that needs nothing else.

  python -m experiments.report --workdir DIR

Reads only files that the stages left in DIR, so the page can be made again in a
second. No scripts, no requests, no fonts to fetch: it opens from a mail attachment.
"""

import argparse
import json
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from etils import epath

from experiments import report_charts, report_dialogues
from stepaudio_jax.core import files
from stepaudio_jax.data import jsonl

HERE = pathlib.Path(__file__).parent
TEMPLATE = "report_template.html"

# Stages that train: folder → (title, what it teaches).
TRAINED = {
  "hear": (
    "Learning to hear",
    "The encoder writes transcripts (CTC) and names pitch, pace, speakers and mood.",
  ),
  "speak": (
    "Learning to speak",
    "The encoder is frozen; adaptor and decoder learn to say what it hears.",
  ),
  "sft": (
    "Learning to converse",
    "Supervised fine-tuning on dialogues: think, then reply.",
  ),
}
TASKS = {
  "pitch": "low, middle or high voice?",
  "rate": "slow, normal or fast speech?",
  "speakers": "one voice or two?",
  "emotion": "calm, excited, sad or angry?",
  "digits": "which digits, all of them, in order?",
  "memory": "what was said two turns ago?",
}
DIMENSIONS = {
  "correctness": "the answer is right",
  "acoustic_grounding": "the thought names what can be heard",
  "instruction": "does as it was asked",
  "naturalness": "talks as people talk",
  "emotional_continuity": "its tone fits the speaker's mood",
  "coherence": "of one mind, invents nothing",
}

_STAGES_KEYS = ("stages", "total_seconds", "smoke", "command")
_STAGE_KEYS = ("name", "title", "seconds", "resumed", "note")
_MANIFEST_KEYS = ("command", "python", "packages", "commit", "seeds", "devices")
_MANIFEST_KEYS += ("device_count", "visible_cores")
_WORLD_KEYS = ("benchmark", "checkpoint", "settings", "simulated", "tasks")
_WORLD_KEYS += ("dimensions",)
_COUNTS = ("n", "n_failed", "n_unparsed", "correct", "accuracy", "low", "high")
_COUNTS += ("accuracy_answered",)
_MEAN = ("mean", "low", "high", "n")
_ITEM_KEYS = ("id", "task", "condition", "messages", "answer", "think", "reply", "raw")
_ITEM_KEYS += ("correct", "scores", "truncated")
CONDITIONS = ("audio", "silence")
_HEAD_BARS = 130  # strokes of the waveforms at the top


def write(workdir: epath.PathLike) -> epath.Path:
  """Makes `workdir`/report.html and returns its path.

  Raises:
    ValueError: a file is missing, incomplete or malformed; it is named.
  """
  folder = epath.Path(workdir)
  page = _template().render(**contents(folder)).strip() + "\n"
  path = folder / "report.html"
  with files.aside(path) as partial:
    partial.write_text(page, encoding="utf-8")
  return path


def contents(folder: epath.Path) -> dict[str, Any]:
  """Everything the page shows."""
  run = _document(folder / "stages.json", _STAGES_KEYS)
  for k, stage in enumerate(run["stages"]):
    _check(stage, _STAGE_KEYS, f"{folder / 'stages.json'}: stage {k}")
  world = _world(folder / "evaluation" / "world.json")
  dialogues = _dialogues(folder)
  sounds = [
    block
    for dialogue in dialogues
    for turn in dialogue["turns"]
    for block in turn["blocks"]
    if block["type"] == "audio"
  ]
  return {
    "run": run,
    "world": world,
    "verdict": verdict(world["tasks"]),
    "totals": {name: total(world["tasks"], name) for name in CONDITIONS},
    "guessing": guessing(world["tasks"]),
    "dialogues": dialogues,
    "rule": report_dialogues.RULE,
    "waves": _waves(sounds),
    "curves": _curves(folder),
    "box": f"0 0 {report_charts.WIDTH} {report_charts.HEIGHT}",
    "smoothed_rows": report_charts.SMOOTHED_ROWS,
    "manifest": _document(folder / "sft" / "manifest.json", _MANIFEST_KEYS),
    "config": _document(folder / "sft" / "config.json", ("hash", "config")),
    "export": {"folder": str(folder / "export"), "files": _files(folder / "export")},
    "example_clip": _under(folder, sounds[0]["path"]),
    "folder": str(folder),
    "task_hints": TASKS,
    "dimension_hints": DIMENSIONS,
  }


# ─── What happened, in words ──────────────────────────────────────────────────────────


def verdict(tasks: dict[str, Any]) -> dict[str, Any]:
  """The headline and the sentences under it; they claim no more than beats_silence."""
  heard = [name for name, task in tasks.items() if task["beats_silence"]]
  deaf = [name for name in tasks if name not in heard]
  if not heard:
    title = "The model does not hear: on no task does the sound help."
  elif deaf:
    title = f"On {len(heard)} of {len(tasks)} tasks the model hears."
  else:
    title = f"The model hears: on all {len(tasks)} tasks the sound helps."
  lines = []
  if heard:
    lines.append(
      f"On {listed(heard)} it is right more often with the sound than on silence of "
      "equal length."
    )
  if deaf:
    lines.append(
      f"On {listed(deaf)} it is not clearly better with the sound than on silence of "
      "equal length."
    )
  return {"title": title, "lines": lines, "heard": heard, "deaf": deaf}


def listed(names: Sequence[str]) -> str:
  """a, b and c"""
  *most, last = [name.replace("_", " ") for name in names]
  return f"{', '.join(most)} and {last}" if most else last


def total(tasks: dict[str, Any], condition: str) -> dict[str, Any]:
  """Answers over all tasks: counts are added, not means averaged."""
  parts = [t if condition == "audio" else t["silence"] for t in tasks.values()]
  added = ("n", "correct", "n_unparsed", "n_failed")
  sums = {key: sum(part[key] for part in parts) for key in added}
  return sums | {"accuracy": sums["correct"] / sums["n"]}


def guessing(tasks: dict[str, Any]) -> float | None:
  """Expected accuracy of guessing, over all questions; None if one is not known."""
  if any(task["chance"] is None for task in tasks.values()):
    return None
  n = sum(task["n"] for task in tasks.values())
  return sum(task["n"] * task["chance"] for task in tasks.values()) / n


# ─── Files ────────────────────────────────────────────────────────────────────────────


def _document(path: epath.Path, keys: Sequence[str]) -> dict[str, Any]:
  if not path.exists():
    raise ValueError(
      f"there is no {path}, which the report shows; the quick start writes it: "
      "python -m experiments.quickstart --workdir DIR"
    )
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: not JSON ({error})") from error
  return _check(value, keys, str(path))


def _check(value: Any, keys: Sequence[str], at: str) -> dict[str, Any]:
  """value, or an error that names the keys it lacks."""
  if not isinstance(value, dict):
    raise ValueError(f"{at}: {value!r:.60} where an object is wanted")
  lacking = [key for key in keys if key not in value]
  if lacking:
    raise ValueError(f"{at}: lacks {lacking}; its keys are {sorted(value)}")
  return value


def _world(path: epath.Path) -> dict[str, Any]:
  world = _document(path, _WORLD_KEYS)
  if not world["tasks"]:
    raise ValueError(f"{path}: no tasks, so nothing was evaluated")
  if world["simulated"] is not True:  # the page says in three places that it is
    raise ValueError(f"{path}: simulated is {world['simulated']!r}; gold scores are")
  for name, task in world["tasks"].items():
    at = f"{path}: task {name!r}"
    _check(task, (*_COUNTS, "chance", "silence", "beats_silence"), at)
    _check(task["silence"], _COUNTS, f"{at}, silence")
  for name, dimension in world["dimensions"].items():
    at = f"{path}: dimension {name!r}"
    _check(dimension, (*_MEAN, "silence"), at)
    _check(dimension["silence"], _MEAN, f"{at}, silence")
  return world


def _dialogues(folder: epath.Path) -> list[dict[str, Any]]:
  path = folder / "evaluation" / "world.items.jsonl"
  items = [_check(row.value, _ITEM_KEYS, row.at) for row in jsonl.Rows(path)]
  for item in items:
    if item["condition"] not in CONDITIONS:
      raise ValueError(
        f"{path}: {item['id']!r} has condition {item['condition']!r}; the choices "
        f"are {CONDITIONS}"
      )
  folders = [path.parent, folder, *(p for p in folder.iterdir() if p.is_dir())]
  pairs = report_dialogues.picked(items, str(path))
  return [report_dialogues.shown(row, silent, folders) for row, silent in pairs]


def _waves(sounds: Sequence[dict[str, Any]]) -> dict[str, str]:
  """The dialogues' clips one after another, and silence of equal length."""
  samples_N = np.concatenate([sound["samples_N"] for sound in sounds])
  return {
    "audio": report_charts.wave(samples_N, _HEAD_BARS),
    "silence": report_charts.wave(np.zeros_like(samples_N), _HEAD_BARS),
  }


def _under(folder: epath.Path, path: str | None) -> str:
  """A clip's path for the commands, short where it lies in the workdir."""
  if path is None:  # its bytes lie in the row
    return "clip.wav"
  full, root = epath.Path(path).resolve(), folder.resolve()
  return str(folder / full.relative_to(root)) if root in full.parents else path


def _curves(folder: epath.Path) -> list[dict[str, Any]]:
  out = []
  for name, (title, about) in TRAINED.items():
    rows = [row.value for row in jsonl.Rows(folder / name / "metrics.jsonl")]
    panels = report_charts.panels(rows)
    out.append({"name": name, "title": title, "about": about, "panels": panels})
  return out


def _files(folder: epath.Path) -> list[dict[str, Any]]:
  """Names and sizes, the largest first."""
  if not folder.exists():
    raise ValueError(f"there is no {folder}: the model was not exported")
  found = [
    {"name": path.name, "bytes": path.stat().length}
    for path in folder.iterdir()
    if not path.is_dir()
  ]
  return sorted(found, key=lambda file: (-file["bytes"], file["name"]))


# ─── Page ─────────────────────────────────────────────────────────────────────────────


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "percent": percent,
    "duration": duration,
    "size": size,
    "plain": lambda name: name.replace("_", " "),
    "shell": shlex.quote,
    "literal": json.dumps,  # of a string: as Python writes it
  }
  return environment.get_template(TEMPLATE)


def percent(share: float | None) -> str:
  return "–" if share is None else f"{100 * share:.0f}\u00a0%"


def duration(seconds: float) -> str:
  """2.1 s; 38 s; 7 min 38 s; 1 h 02 min"""
  if seconds < 9.95:
    return f"{seconds:.1f}\u00a0s"
  whole = round(seconds)
  if whole < 60:
    return f"{whole}\u00a0s"
  minutes, rest = divmod(whole, 60)
  if minutes < 60:
    return f"{minutes}\u00a0min {rest:02d}\u00a0s"
  return f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min"


def size(count: int) -> str:
  """Bytes in decimal units."""
  for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
    if count >= scale:
      return f"{count / scale:.1f}\u00a0{unit}"
  return f"{count}\u00a0B"


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--workdir", required=True, help="Folder of a quick start.")
  print(write(parser.parse_args(argv).workdir))


if __name__ == "__main__":
  main()
