"""What a run leaves for people: config, manifest, metrics, progress."""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

from stepaudio_jax.core import recipe

# Changing these between two starts of one run changes no number that it computes.
FREE_KEYS = ("total_steps", "log.", "checkpoint.")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class Metrics:
  """metrics.jsonl and TensorBoard events, one object a step.

  Args:
    workdir: the run's folder.
    start_step: rows after it come from a run that was killed; they are dropped, and
      the resumed run writes them again.
    total_steps: for the progress bar's estimate of the time left.
  """

  def __init__(self, workdir: epath.PathLike, *, start_step: int, total_steps: int):
    self._path = epath.Path(workdir) / "metrics.jsonl"
    kept = [row for row in read_metrics(self._path) if row["step"] <= start_step]
    _write_aside(self._path, "".join(json.dumps(row) + "\n" for row in kept))
    self._file = self._path.open("a")
    self._board = SummaryWriter(str(epath.Path(workdir) / "tensorboard"))
    self._bar = progress(total=total_steps, initial=start_step, unit="step")

  def write(self, step: int, values: dict[str, float]) -> None:
    """Appends one row; values must be finite or None."""
    row = {"step": step} | {key: _json_number(values[key]) for key in sorted(values)}
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()
    for key, value in row.items():
      if key != "step" and value is not None:
        self._board.add_scalar(key, value, step)
    self._bar.update(step - self._bar.n)
    if "train/loss" in values:
      self._bar.set_postfix(loss=f"{values['train/loss']:.3f}", refresh=False)

  def close(self) -> None:
    self._file.close()
    self._board.close()
    self._bar.close()


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
  """A progress bar with an ETA; without a terminal it prints a line every 30 s."""
  quiet = not sys.stderr.isatty()
  return tqdm(
    iterable,
    mininterval=30 if quiet else 0.2,
    dynamic_ncols=True,
    **options,
  )


def say(text: str) -> None:
  """A line for the person who watches; absl's INFO is full of the libraries' talk."""
  if jax.process_index() == 0:
    tqdm.write(text, file=sys.stderr)


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
  """The rows of a metrics.jsonl; a last line cut short by a kill is left out."""
  path = epath.Path(path)
  if not path.exists():
    return []
  lines = path.read_text().split("\n")
  return [json.loads(line) for line in lines[:-1]]


def _json_number(value: float) -> float | None:
  value = float(value)
  return value if math.isfinite(value) else None


def _write_aside(path: epath.Path, text: str) -> None:
  aside = path.with_name(path.name + ".partial")
  aside.write_text(text)
  aside.replace(path)


def check_workdir(workdir: epath.PathLike, config: ConfigDict) -> epath.Path:
  """The folder, if it is new or belongs to a run of the same config.

  Raises:
    ValueError: the folder holds another config; the changed keys are listed.
  """
  workdir = epath.Path(workdir)
  path = workdir / "config.json"
  now = recipe.flat(config)
  if path.exists():
    before = json.loads(path.read_text())["config"]
    changed = [
      f"{key}: {before.get(key, 'absent')!r} → {now.get(key, 'absent')!r}"
      for key in sorted(before | now)
      if not key.startswith(FREE_KEYS)
      and (key not in before or key not in now or before[key] != now[key])
    ]
    if changed:
      raise ValueError(
        f"{workdir} holds a run of another config: {'; '.join(changed)}. "
        "Use another workdir, or the config it was started with."
      )
  return workdir


def record(workdir: epath.Path, config: ConfigDict) -> None:
  """Writes config.json and manifest.json: from now on the folder is this run's."""
  now = recipe.flat(config)
  workdir.mkdir(parents=True, exist_ok=True)
  text = json.dumps({"hash": config_hash(now), "config": now}, indent=1)
  _write_aside(workdir / "config.json", text)
  _write_aside(workdir / "manifest.json", json.dumps(manifest(now), indent=1))


def config_hash(flat_config: dict[str, Any]) -> str:
  fixed = {k: v for k, v in flat_config.items() if not k.startswith(FREE_KEYS)}
  text = json.dumps(fixed, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def manifest(flat_config: dict[str, Any]) -> dict[str, Any]:
  """Versions, commit, seeds, devices and command: what a number depends on."""
  return {
    "command": sys.argv,
    "python": platform.python_version(),
    "packages": {name: metadata.version(name) for name in _PACKAGES},
    "commit": _commit(),
    "seeds": {k: v for k, v in flat_config.items() if k.split(".")[-1] == "seed"},
    "devices": sorted({device.device_kind for device in jax.devices()}),
    "device_count": jax.device_count(),
    "process_count": jax.process_count(),
    # The same program gives other bits on another number of visible cores.
    "visible_cores": len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count(),
  }


def _commit() -> str:
  """The commit of the code, "+" where it was changed since, or why it is unknown."""
  here = os.path.dirname(os.path.abspath(__file__))
  ask = ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty=+"]
  try:
    return subprocess.run(
      ask, capture_output=True, text=True, check=True
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError) as error:
    logging.info("the commit of the code is unknown: %s", error)
    return "unknown (not a git checkout)"
