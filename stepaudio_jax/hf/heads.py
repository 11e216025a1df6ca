"""Heads of a reward model beside its backbone: heads.safetensors and heads.json.

The index does not name the file, so that loaders of the backbone, some of which refuse
tensors that they do not know, never see it. heads.json says how to use it:

  {"format": "stepaudio_jax/reward_heads/1",
   "dimensions": [names, in the order of the rows],
   "dims_on_thought": [those that read the turn with its thought],
   "tensors": {key: what it is}}
"""

import dataclasses
import json
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core.disk import Stored
from stepaudio_jax.hf import blocks, folder, safe, table
from stepaudio_jax.hf.table import Entry, Row

WEIGHTS, DESCRIPTION = "heads.safetensors", "heads.json"
FORMAT = "stepaudio_jax/reward_heads/1"
ROWS = (
  Row("rewards.linear.weight", "rewards/linear/kernel", "DC", "C D"),
  Row("rewards.linear.bias", "rewards/linear/bias", "C", "C"),
  Row("rewards.gate.weight", "rewards/gate/kernel", "DC", "C D"),
  Row("rewards.scale", "rewards/scale", "C", "C"),
)
_MEANING = {
  "rewards.linear.weight": "[dimensions, hidden_size]: of the last token's state",
  "rewards.linear.bias": "[dimensions]",
  "rewards.gate.weight": "[dimensions, hidden_size]: logits of each token's weight in "
  "the mean of the surprise",
  "rewards.scale": "[dimensions]: of that mean, which is added to the linear score",
}


def our_shapes(width: int, dimensions: int) -> dict[str, tuple[int, ...]]:
  """Path → shape of every leaf."""
  length = {"D": width, "C": dimensions}
  return {row.path: tuple(length[axis] for axis in row.ours) for row in ROWS}


def their_shapes(width: int, dimensions: int) -> dict[str, tuple[int, ...]]:
  """Key → torch shape of every tensor."""
  length = {"D": width, "C": dimensions}
  return {row.key: tuple(length[axis] for axis in row.theirs.split()) for row in ROWS}


@dataclasses.dataclass(frozen=True)
class Heads:
  """Heads to write.

  Attributes:
    leaves: path → array, as stored: heads are small, and keep their dtype.
    described: {"dimensions": names, "dims_on_thought": names}.
  """

  leaves: dict[str, np.ndarray]
  described: dict[str, list[str]]


def write(to: epath.Path, made: Heads) -> None:
  """Both files."""
  entries = [Entry(row.key, row, None) for row in ROWS]
  views = {
    entry.key: table.theirs(made.leaves[entry.row.path], entry) for entry in entries
  }
  head, starts, length = safe.layout({k: (v.dtype, v.shape) for k, v in views.items()})
  file = bytearray(length)
  file[: len(head)] = head
  for key, view in views.items():
    file[starts[key] : starts[key] + view.nbytes] = view.tobytes()
  (to / WEIGHTS).write_bytes(file)
  row = {"format": FORMAT, **made.described, "tensors": _MEANING}
  (to / DESCRIPTION).write_text(json.dumps(row, indent=2) + "\n")


def opened(
  path: epath.Path, width: int, problems: list[str]
) -> tuple[dict[str, Stored], dict[str, list[str]]]:
  """(path → tensor, what heads.json says of dimensions), empty where there are none.

  Args:
    problems: is added to.
  """
  if not (path / DESCRIPTION).exists() and not (path / WEIGHTS).exists():
    return {}, {}
  row = folder.json_of(path, DESCRIPTION, problems)
  wrong = _undescribed(row)
  if row and wrong:
    problems.append(f"{DESCRIPTION}: {wrong}")
  refused = folder.refusal(path, WEIGHTS)
  found, new = ({}, [refused]) if refused else safe.header(path / WEIGHTS)
  problems += new
  if not row or wrong or new:
    return {}, {}
  wanted = their_shapes(width, len(row["dimensions"]))
  problems += [f"{WEIGHTS}: missing tensor {key}" for key in wanted if key not in found]
  problems += [f"{WEIGHTS}: unknown tensor {key}" for key in found if key not in wanted]
  tensors = {}
  for head in ROWS:
    tensor, shape = found.get(head.key), wanted[head.key]
    if tensor is not None and tensor.shape != shape:
      problems.append(f"{WEIGHTS}: {head.key} is {tensor.shape}, not {shape}")
    elif tensor is not None:
      tensors[head.path] = tensor
  return tensors, {name: row[name] for name in ("dimensions", "dims_on_thought")}


def _undescribed(row: dict[str, Any]) -> str:
  if row.get("format") != FORMAT:
    return f"format {row.get('format')!r} is not {FORMAT!r}"
  for name in ("dimensions", "dims_on_thought"):
    names = row.get(name)
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
      return f"{name} is no list of names"
  names, thought = row["dimensions"], row["dims_on_thought"]
  if not names or len(set(names)) < len(names) or set(thought) - set(names):
    return f"dimensions {names} and dims_on_thought {thought} do not fit"
  return ""


def leaf(path: str, tensor: Stored) -> np.ndarray:
  """Our array of a head."""
  row = next(row for row in ROWS if row.path == path)
  read = tensor.read()
  out = np.empty(read.shape[::-1], read.dtype)
  blocks.copy(table.theirs(out, Entry(row.key, row, None)), read)
  return out
