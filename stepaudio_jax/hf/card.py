"""What a model card says, from the files that a run leaves."""

import json
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from etils import epath


def of_run(
  workdir: epath.PathLike,
  step: str,
  *,
  name: str,
  license_: str,
  languages: Sequence[str],
) -> dict[str, Any]:
  """`files.CARD_KEYS` of a workdir; what is not written there is said to be unknown.

  Args:
    step: whose evaluation counts.
  """
  workdir = epath.Path(workdir)
  manifest = _read(workdir / "manifest.json")
  config = _read(workdir / "config.json").get("config", {})
  return {
    "name": name,
    "license": license_,
    "languages": [*languages],
    "summary": _summary(manifest, config),
    "data": _data(manifest, config),
    "scores": _scores(workdir / "evaluation" / step),
    "command": _command(manifest),
  }


def _read(path: epath.Path) -> dict[str, Any]:
  return json.loads(path.read_text()) if path.exists() else {}


def _summary(manifest: dict[str, Any], config: dict[str, Any]) -> str:
  about = "An audio reasoning model in Step-Audio-2's shape, by stepaudio_jax"
  if "import" in manifest:
    sources = ", ".join(map(_source, manifest["import"]["sources"]))
    anew = manifest["import"]["fresh"]
    note = f"; initialised anew, untrained: {', '.join(anew)}" if anew else ""
    return f"{about}: the weights of {sources}{note}."
  if "stage" not in config:
    return f"{about}."
  init = f", from {_here(config['init'])}" if config.get("init") else ""
  steps = f"{config['total_steps']:,} steps of {config['stage']}"
  code = f" Code at commit {manifest['commit']}." if "commit" in manifest else ""
  return f"{about}: {steps}{init}.{code}"


def _here(value: Any) -> Any:
  """What a path on this machine is called; anything else as it is."""
  absolute = isinstance(value, str) and pathlib.PurePath(value).is_absolute()
  return pathlib.PurePath(value).name if absolute else value


def _source(row: dict[str, str]) -> str:
  """A name of the Hub; of a folder here only what it is and is called."""
  name = row["name"]
  public = name.startswith("hf://")
  return name if public else f"{pathlib.PurePath(name).name} ({row['kind']})"


def _data(manifest: dict[str, Any], config: dict[str, Any]) -> str:
  if "import" in manifest:
    return "None of ours: see the models that the weights come from."
  prefix = "data.mix."
  mix = {k.removeprefix(prefix): w for k, w in config.items() if k.startswith(prefix)}
  if not mix:
    return "Not recorded."
  rows = []
  for data, weight in mix.items():
    begin = f"data.options.{data}."
    options = {
      k.removeprefix(begin): v for k, v in config.items() if k.startswith(begin)
    }
    said = ", ".join(f"{key} `{_here(value)}`" for key, value in options.items())
    rows.append(f"* `{data}`, weight {weight}" + (f": {said}" if said else ""))
  return "\n".join(rows)


def _scores(folder: epath.Path) -> dict[str, float]:
  """Accuracies of the benchmarks that were run on this step."""
  found = {}
  paths = sorted(folder.glob("*.json")) if folder.exists() else []
  for path in paths:
    result = _read(path)
    note = " (simulated)" if result.get("simulated") else ""
    rows = {**result.get("tasks", {}), **result.get("dimensions", {})}
    for name, row in rows.items():
      if isinstance(row, dict) and isinstance(row.get("accuracy"), int | float):
        found[f"{path.stem}: {name}, accuracy{note}"] = round(row["accuracy"], 3)
  return found


def _command(manifest: dict[str, Any]) -> str:
  """As a person types it; where the program lies is nobody else's business."""
  if not manifest.get("command"):
    return "not recorded"
  program, *arguments = manifest["command"]
  path = pathlib.PurePath(program)
  module = f"python -m {path.parent.name}.{path.stem}"
  return shlex.join([*module.split(), *arguments])
