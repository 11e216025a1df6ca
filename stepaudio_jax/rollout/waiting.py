"""Replies that wait for the next step while a run is saved: one file a checkpoint.

They lie in `workdir/waiting`: sampled and scored groups that a later step may use, and,
where replies are begun ahead, all that is known of those of the next step. The
checkpoint's own record holds the file's name and checksum.
"""

import dataclasses
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import files, processes
from stepaudio_jax.core.types import Experience, Rollout
from stepaudio_jax.rollout import drawn as drawn_lib
from stepaudio_jax.rollout.actor import Played
from stepaudio_jax.rollout.collector import Collected, Collector
from stepaudio_jax.rollout.drawn import Drawn

FOLDER = "waiting"
_SUFFIX = ".npz"

Arrays = dict[str, np.ndarray]


def save(
  collector: Collector, workdir: epath.Path, step: int, keep: int
) -> dict[str, Any] | None:
  """Writes what waits after `step`; all processes must ask.

  Args:
    keep: files that stay, as many as checkpoints at least.

  Returns:
    What `load` needs to know, for the checkpoint's record; None if nothing waits.
  """
  arrays: Arrays = {}
  if collector.left:
    arrays |= _told("left", drawn_lib.joined(collector.left))
  if collector.ready:
    played = collector.actor.whole(collector.ready.played, collector.ready.asked)
    arrays |= _told("ready", played.drawn)
    arrays |= _told_of(played, collector.ready.counts)
  if not arrays:
    return None
  folder, name = workdir / FOLDER, f"{step}{_SUFFIX}"
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  content = buffer.getvalue()
  if processes.first():
    with files.aside(folder / name) as path:
      path.write_bytes(content)
    _tidy(folder, step, keep)
  processes.barrier("what waits is written")
  return {"file": name, "crc32": zlib.crc32(content)}


def load(
  collector: Collector, workdir: epath.Path, record: dict[str, Any] | None
) -> None:
  """Gives `collector` what waited when the checkpoint with this record was written.

  Raises:
    ValueError: the file is missing or has changed.
  """
  if record is None:
    return
  path = workdir / FOLDER / record["file"]
  content = path.read_bytes() if path.exists() else b""
  if zlib.crc32(content) != record["crc32"]:
    what = "has changed since it was written" if content else "is missing"
    raise ValueError(
      f"{path}, the replies that wait beside the newest checkpoint, {what}; move that "
      "checkpoint away to go on from the one before it"
    )
  with np.load(io.BytesIO(content), allow_pickle=False) as found:
    arrays = dict(found)
  if "left/ids" in arrays:
    left = _drawn("left", arrays, collector)
    collector.left = [drawn_lib.chosen(left, [k]) for k in range(len(left.asked))]
  if "ready/ids" in arrays:
    collector.ready = _collected(arrays, collector)


def _told(name: str, drawn: Drawn) -> Arrays:
  scores = drawn.scores
  arrays = {
    "ids": np.asarray([row["id"] for row in drawn.asked]),
    "version_B": drawn.version_B,
    "reward_BC": scores.reward_BC,
    "weight_BC": scores.weight_BC,
    "names": np.asarray(scores.names),
  }
  arrays |= _fields("rollout", drawn.rollout)
  return {f"{name}/{key}": value for key, value in arrays.items()}


def _told_of(played: Played, counts: dict[str, float]) -> Arrays:
  return {
    **_fields("ready/experience", played.experience),
    "ready/entropy_BT": np.asarray(played.entropy_BT),
    "ready/version": np.asarray(played.version),
    "ready/counts": np.asarray(json.dumps(counts)),
  }


def _fields(name: str, arrays: Any) -> Arrays:
  fields = dataclasses.fields(arrays)
  return {f"{name}/{f.name}": np.asarray(getattr(arrays, f.name)) for f in fields}


def _of(kind: type, name: str, arrays: Arrays) -> Any:
  return kind(**{f.name: arrays[f"{name}/{f.name}"] for f in dataclasses.fields(kind)})


def _drawn(name: str, arrays: Arrays, collector: Collector) -> Drawn:
  rollout = _of(Rollout, f"{name}/rollout", arrays)
  return collector.recalled(
    arrays[f"{name}/ids"].tolist(),
    rollout,
    tuple(arrays[f"{name}/names"].tolist()),
    *(arrays[f"{name}/{key}"] for key in ("reward_BC", "weight_BC", "version_B")),
  )


def _collected(arrays: Arrays, collector: Collector) -> Collected:
  drawn = _drawn("ready", arrays, collector)
  return collector.recollected(
    drawn,
    _of(Experience, "ready/experience", arrays),
    arrays["ready/entropy_BT"],
    int(arrays["ready/version"]),
    json.loads(str(arrays["ready/counts"])),
  )


def _tidy(folder: epath.Path, step: int, keep: int) -> None:
  """Deletes the files of the oldest checkpoints; those after `step` are of no run."""
  steps = _steps(path.name for path in folder.iterdir())
  old = [s for s in steps if s > step] + [s for s in steps if s <= step][:-keep]
  for number in old:
    (folder / f"{number}{_SUFFIX}").unlink()


def _steps(names: Sequence[str]) -> list[int]:
  stems = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
  return sorted(int(stem) for stem in stems if stem.isdigit())
