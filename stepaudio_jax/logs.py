"""What a run leaves for people: config, manifest, metrics."""

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from stepaudio_jax.core import added, files, processes, progress, recipe

# Changing these between two starts of one run changes no number that it computes, but
# for the rounding of sums that are taken in another order.
_FREE = ("log.", "checkpoint.", "mesh.", "sampling_mesh.")
# Free only where the rate is constant: a cosine or line is cut to its length.
_STEPS, _SCHEDULE = "total_steps", "optim.schedule"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# The same program gives other bits where one of these is another.
_OF_THE_BITS = ("packages", "devices", "device_count", "process_count", "visible_cores")
_OF_THE_BITS += ("mesh", "sampling_mesh")


# In a bucket a journal is written anew, whole.
_REWRITE_S = 30.0


class Metrics:
  """metrics.jsonl and TensorBoard events, one object a step; the first process's.

  In a bucket there are no events: they are files that grow.

  Args:
    workdir: the run's folder.
    start_step: see `Journal`.
    total_steps: for the progress bar's estimate of the time left.
  """

  def __init__(self, workdir: epath.PathLike, *, start_step: int, total_steps: int):
    # Here, for it imports torch where there is one: two seconds of every command.
    from tensorboardX import SummaryWriter

    path = epath.Path(workdir) / "metrics.jsonl"
    self._journal = Journal(path, start_step=start_step)
    self._board = None
    if processes.first() and not files.is_remote(workdir):  # its events are appended
      folder = epath.Path(workdir) / "tensorboard"
      self._board = SummaryWriter(str(folder), purge_step=start_step + 1)
    options = {"total": total_steps, "initial": start_step, "delay": 0, "leave": True}
    options["disable"] = not processes.first()
    self._bar = progress.bar(None, None, "step", **options)

  def write(self, step: int, values: dict[str, float | None]) -> None:
    """Appends one row; None and what is not finite is null there."""
    row = {"step": step} | {key: _json_number(values[key]) for key in sorted(values)}
    self._journal.write([row])
    for key, value in row.items():
      if self._board is not None and key != "step" and value is not None:
        self._board.add_scalar(key, value, step)
    self._bar.update(step - self._bar.n)
    if "train/loss" in values:
      self._bar.set_postfix(loss=f"{values['train/loss']:.3f}", refresh=False)

  def flush(self) -> None:
    """See `Journal`."""
    self._journal.flush()

  def close(self) -> None:
    self._journal.close()
    self._bar.close()
    if self._board is not None:
      self._board.close()


class Journal:
  """Rows with a "step" in a JSON Lines file; the first process alone writes.

  A bucket's files cannot be appended to: there it is written anew by `flush`, which a
  loop calls before a checkpoint, and at most every half minute between.

  Args:
    start_step: rows after it come from a run that was killed; they are dropped, and
      the resumed run writes them again.

  Attributes:
    kept: the rows of earlier starts that stay.
  """

  def __init__(self, path: epath.PathLike, *, start_step: int):
    self._path, self._file = epath.Path(path), None
    self.kept = [row for row in read_metrics(path) if row["step"] <= start_step]
    processes.barrier(f"{self._path.name} is read")
    self._text, self._flushed = _lines(self.kept), time.monotonic()
    if processes.first():
      _write(self._path, self._text)
      if not files.is_remote(path):
        self._file, self._text = self._path.open("a"), ""

  def write(self, rows: Iterable[dict[str, Any]]) -> None:
    if not processes.first():
      return
    self._text += _lines(rows)
    if self._file is not None or time.monotonic() - self._flushed > _REWRITE_S:
      self.flush()

  def flush(self) -> None:
    """Returns when every row is in the file."""
    if not processes.first():
      return
    if self._file is None:
      _write(self._path, self._text)
      self._flushed = time.monotonic()
    else:
      self._file.write(self._text)
      self._file.flush()
      self._text = ""

  def close(self) -> None:
    self.flush()
    if self._file is not None:
      self._file.close()


def _lines(rows: Iterable[dict[str, Any]]) -> str:
  return "".join(json.dumps(row) + "\n" for row in rows)


def write_json(path: epath.PathLike, value: Any) -> None:
  """Writes an object whole or not at all."""
  _write(path, json.dumps(value, indent=1))


def say(text: str) -> None:
  """A line for the person who watches; absl's INFO is full of the libraries' talk."""
  if processes.first():
    tqdm.write(text, file=sys.stderr)


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
  """The rows of a metrics.jsonl; a last line cut short by a kill is left out."""
  path = epath.Path(path)
  if not path.exists():
    return []
  lines = path.read_text().split("\n")
  return [json.loads(line) for line in lines[:-1]]


def _write(path: epath.PathLike, text: str) -> None:
  with files.aside(path) as partial:
    partial.write_text(text)


def _json_number(value: float | None) -> float | None:
  return None if value is None or not math.isfinite(value) else float(value)


def check_workdir(
  workdir: epath.PathLike, config: ConfigDict, free: tuple[str, ...] = ()
) -> epath.Path:
  """The folder, if it is new or belongs to a run of the same config.

  Keys that came to the code since the run began are no other config where they have
  the values of core/added.py, with which it does what it did; they are told.

  Args:
    free: beginnings of keys that may change, too.

  Raises:
    ValueError: the folder holds another config; the changed keys are listed.
  """
  workdir = epath.Path(workdir)
  path = workdir / "config.json"
  now = recipe.flat(config)
  if path.exists():
    before = json.loads(path.read_text())["config"]
    since = sorted(key for key in now.keys() - before.keys() if added.off(key, now))
    changed = [
      f"{key}: {before.get(key, 'absent')!r} → {now.get(key, 'absent')!r}"
      for key in sorted(_fixed(before) | _fixed(now))
      if not key.startswith(free)
      and key not in since
      and (key not in before or key not in now or before[key] != now[key])
    ]
    if changed:
      cut = any(line.startswith(f"{_STEPS}:") for line in changed)
      note = f" {_STEPS} may change only with {_SCHEDULE} 'constant'." if cut else ""
      raise ValueError(
        f"{workdir} holds a run of another config: {'; '.join(changed)}. "
        f"Use another workdir, or the config it was started with.{note}"
      )
    if since:
      values = ", ".join(f"{key}={now[key]!r}" for key in since)
      say(
        f"{workdir} began before these keys were there, and goes on as then: {values}"
      )
  return workdir


def _fixed(flat_config: dict[str, Any]) -> dict[str, Any]:
  """What may not change between two starts of one run."""
  endless = _SCHEDULE not in flat_config or flat_config[_SCHEDULE] == "constant"
  free = (*_FREE, _STEPS) if endless else _FREE
  return {k: v for k, v in flat_config.items() if not k.startswith(free)}


def record(workdir: epath.Path, config: ConfigDict) -> None:
  """Writes config.json and manifest.json: from now on the folder is this run's.

  The manifest is that of the first start, and "starts" lists those of all. A start on
  other devices, cores or versions than the one before is warned of.
  """
  if not processes.first():
    return
  now = recipe.flat(config)
  path, start = workdir / "manifest.json", manifest(now)
  first = json.loads(path.read_text()) if path.exists() else start | {"starts": []}
  if first["starts"]:
    _warn_of_other_bits(first["starts"][-1], start)
  first["starts"].append({"time": datetime.now(UTC).isoformat("T", "seconds")} | start)
  write_json(workdir / "config.json", {"hash": config_hash(now), "config": now})
  write_json(path, first)


def _warn_of_other_bits(before: dict[str, Any], now: dict[str, Any]) -> None:
  changed = [
    f"{name}: {before.get(name)} → {now[name]}"
    for name in _OF_THE_BITS
    if before.get(name) != now[name]
  ]
  if changed:
    logging.warning(
      "this start goes on under other conditions, so its numbers will not be bit for "
      "bit those of a run that was left alone: %s",
      "; ".join(changed),
    )


def config_hash(flat_config: dict[str, Any]) -> str:
  text = json.dumps(_fixed(flat_config), sort_keys=True)
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
    **{name: _under(name, flat_config) for name in ("mesh", "sampling_mesh")},
  }


def _under(name: str, flat_config: dict[str, Any]) -> dict[str, Any]:
  """{key: value} of a part of the config."""
  start = f"{name}."
  keys = [key for key in flat_config if key.startswith(start)]
  return {key.removeprefix(start): flat_config[key] for key in keys}


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
