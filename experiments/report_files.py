"""What the stages left in a quick start's folder, read and checked for the report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.data import jsonl

CONDITIONS = ("audio", "silence")

_STAGES = ("stages", "total_seconds", "smoke", "command")
_STAGE = ("name", "title", "seconds", "resumed", "note")
_MANIFEST = ("command", "python", "packages", "commit", "seeds", "devices")
_MANIFEST += ("device_count", "visible_cores")
_WORLD = ("benchmark", "checkpoint", "settings", "simulated", "tasks", "dimensions")
_COUNTS = ("n", "n_failed", "n_unparsed", "correct", "accuracy", "low", "high")
_COUNTS += ("accuracy_answered",)
_MEAN = ("mean", "low", "high", "n")
_ITEM = ("id", "task", "condition", "messages", "answer", "think", "reply", "raw")
_ITEM += ("correct", "scores", "truncated")
_SAMPLE = ("step", "prompt_id", "dialogue_id", "text", "reward", "objective")
_JUDGED = ("accuracy", "low", "high", "n", "n_ties", "silence", "length")
_JUDGED += ("over_silence", "over_length", "ceiling")
_EXAM = ("steps", "prompts", "objective", "tokens", "kl", "entropy")
_GAIN = ("start", "end", "gain", "low", "high", "missing")


def document(path: epath.Path, keys: Sequence[str]) -> dict[str, Any]:
  """A JSON object that has these keys, or a ValueError that says what is wrong."""
  if not path.exists():
    raise ValueError(
      f"there is no {path}, which the report shows; the quick start writes it: "
      "python -m experiments.quickstart --workdir DIR"
    )
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: not JSON ({error})") from error
  return check(value, keys, str(path))


def check(value: Any, keys: Sequence[str], at: str) -> dict[str, Any]:
  """value, or an error that names the keys it lacks."""
  if not isinstance(value, dict):
    raise ValueError(f"{at}: {value!r:.60} where an object is wanted")
  lacking = [key for key in keys if key not in value]
  if lacking:
    raise ValueError(f"{at}: lacks {lacking}; its keys are {sorted(value)}")
  return value


def stages(folder: epath.Path) -> dict[str, Any]:
  path = folder / "stages.json"
  run = document(path, _STAGES)
  for k, stage in enumerate(run["stages"]):
    check(stage, _STAGE, f"{path}: stage {k}")
  return run


def manifest(folder: epath.Path) -> dict[str, Any]:
  return document(folder / "manifest.json", _MANIFEST)


def config(folder: epath.Path) -> dict[str, Any]:
  """{"hash", "config": flat values} of a stage."""
  return document(folder / "config.json", ("hash", "config"))


def world(path: epath.Path) -> dict[str, Any]:
  """A policy's evaluation; `silence` is None where it was not asked on silence."""
  found = document(path, _WORLD)
  if not found["tasks"]:
    raise ValueError(f"{path}: no tasks, so nothing was evaluated")
  _simulated(found, path)
  for name, task in found["tasks"].items():
    at = f"{path}: task {name!r}"
    check(task, (*_COUNTS, "chance", "silence", "beats_silence"), at)
    if task["silence"] is not None:
      check(task["silence"], _COUNTS, f"{at}, silence")
  for name, dimension in found["dimensions"].items():
    check(dimension, (*_MEAN, "silence"), f"{path}: dimension {name!r}")
  return found


def items(path: epath.Path) -> list[dict[str, Any]]:
  """Every reply that was evaluated."""
  found = _rows(path, _ITEM)
  for item in found:
    if item["condition"] not in CONDITIONS:
      raise ValueError(
        f"{path}: {item['id']!r} has condition {item['condition']!r}; the choices "
        f"are {CONDITIONS}"
      )
  return found


def reward_model(path: epath.Path) -> dict[str, Any]:
  found = document(path, ("simulated", "comparisons", "dialogues", "dimensions"))
  _simulated(found, path)
  for name, dimension in found["dimensions"].items():
    check(dimension, _JUDGED, f"{path}: dimension {name!r}")
  return found


def exam(path: epath.Path) -> dict[str, Any]:
  """heldout.json: an arm's own objective, end against start."""
  found = document(path, _EXAM)
  for name in _EXAM[2:]:
    check(found[name], _GAIN, f"{path}: {name!r}")
  return found


def samples(path: epath.Path) -> list[dict[str, Any]]:
  """Sampled replies with their rewards."""
  return _rows(path, _SAMPLE)


def metrics(folder: epath.Path) -> list[dict[str, Any]]:
  return _rows(folder / "metrics.jsonl", ("step",))


def truths(path: epath.Path) -> dict[str, dict[str, Any]]:
  """Dialogue id → the truth behind it."""
  return {row["id"]: row for row in _rows(path, ("id", "task", "answer"))}


def truth(truths_: Mapping[str, dict[str, Any]], name: str, at: str) -> dict[str, Any]:
  if name not in truths_:
    raise ValueError(f"{at}: dialogue {name!r} is none of {len(truths_)} with truths")
  return truths_[name]


def exports(folder: epath.Path) -> list[dict[str, Any]]:
  """Names and sizes, the largest first."""
  if not folder.exists():
    raise ValueError(f"there is no {folder}: the model was not exported")
  found = [
    {"name": path.name, "bytes": path.stat().length}
    for path in folder.iterdir()
    if not path.is_dir()
  ]
  return sorted(found, key=lambda file: (-file["bytes"], file["name"]))


def _rows(path: epath.Path, keys: Sequence[str]) -> list[dict[str, Any]]:
  return [check(row.value, keys, row.at) for row in jsonl.Rows(path)]


def _simulated(value: dict[str, Any], path: epath.Path) -> None:
  if value["simulated"] is not True:  # the page says everywhere that it is
    raise ValueError(f"{path}: simulated is {value['simulated']!r}; gold scores are")
