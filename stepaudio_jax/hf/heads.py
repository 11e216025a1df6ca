"""Heads of a reward model beside its backbone: heads.safetensors and heads.json.

The index does not name the file, so that loaders of the backbone, some of which refuse
tensors that they do not know, never see it. heads.json says how to use it:

  {"format": "stepaudio_jax/reward_heads/1",
   "dimensions": [names, in the order of the rows],
   "dims_on_thought": [those that read the turn with its thought],
   "tensors": {key: what it is}}

With tensors "mixture.…" there is one more score, of all dimensions by a gate that reads
the prompt (models/mixture.py); it is called "mixture" and has no row of its own.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
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
# Only of a reward model with a mixture; M is the width of its gate's hidden layer.
MIXTURE = (
  Row("mixture.hidden.weight", "mixture/hidden/kernel", "DM", "M D"),
  Row("mixture.hidden.bias", "mixture/hidden/bias", "M", "M"),
  Row("mixture.gate.weight", "mixture/gate/kernel", "MC", "C M"),
  Row("mixture.gate.bias", "mixture/gate/bias", "C", "C"),
  Row("mixture.temperature", "mixture/temperature", "1", "1"),
  Row("mixture.verbosity", "mixture/verbosity", "C", "C"),
  Row("mixture.of", "mixture/of", "C", "C"),
)
_OF_PATH = {row.path: row for row in (*ROWS, *MIXTURE)}
_MEANING = {
  "rewards.linear.weight": "[dimensions, hidden_size]: of the last token's state",
  "rewards.linear.bias": "[dimensions]",
  "rewards.gate.weight": "[dimensions, hidden_size]: logits of each token's weight in "
  "the mean of the surprise",
  "rewards.scale": "[dimensions]: of that mean, which is added to the linear score",
  "mixture.hidden.weight": "[width, hidden_size]: of the prompt's last state; tanh",
  "mixture.hidden.bias": "[width]",
  "mixture.gate.weight": "[dimensions, width]: logits, divided by the temperature, of "
  "each dimension's weight in the mixture, a softmax over those that are mixed",
  "mixture.gate.bias": "[dimensions]",
  "mixture.temperature": "[1]",
  "mixture.verbosity": "[dimensions]: times the log of the reply's tokens, taken off",
  "mixture.of": "[dimensions]: 1 for those that are mixed",
}


def rows(paths: Collection[str]) -> tuple[Row, ...]:
  """Those of a reward model with these parameters, with a mixture or without."""
  return (*ROWS, *MIXTURE) if any(row.path in paths for row in MIXTURE) else ROWS


def our_shapes(heads: Mapping[str, Stored]) -> dict[str, tuple[int, ...]]:
  """Path → shape of every leaf of heads that `opened` found."""
  return {path: tensor.shape[::-1] for path, tensor in heads.items()}


def their_shapes(
  width: int, dimensions: int, hidden: int = 0
) -> dict[str, tuple[int, ...]]:
  """Key → torch shape of every tensor.

  Args:
    hidden: width of the mixture's gate; 0 where there is none.
  """
  length = {"D": width, "C": dimensions, "M": hidden, "1": 1}
  return {
    row.key: tuple(length[axis] for axis in row.theirs.split())
    for row in (*ROWS, *(MIXTURE if hidden else ()))
  }


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
  entries = [Entry(row.key, row, None) for row in rows(made.leaves)]
  views = {
    entry.key: table.theirs(made.leaves[entry.row.path], entry) for entry in entries
  }
  head, starts, length = safe.layout({k: (v.dtype, v.shape) for k, v in views.items()})
  file = bytearray(length)
  file[: len(head)] = head
  for key, view in views.items():
    file[starts[key] : starts[key] + view.nbytes] = view.tobytes()
  (to / WEIGHTS).write_bytes(file)
  meaning = {entry.key: _MEANING[entry.key] for entry in entries}
  row = {"format": FORMAT, **made.described, "tensors": meaning}
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
  gate = found.get(MIXTURE[0].key)
  hidden = gate.shape[0] if gate is not None else 0
  wanted = their_shapes(width, len(row["dimensions"]), hidden)
  problems += [f"{WEIGHTS}: missing tensor {key}" for key in wanted if key not in found]
  problems += [f"{WEIGHTS}: unknown tensor {key}" for key in found if key not in wanted]
  tensors = {}
  for head in (row for row in _OF_PATH.values() if row.key in wanted):
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
  row = _OF_PATH[path]
  read = tensor.read()
  out = np.empty(read.shape[::-1], read.dtype)
  blocks.copy(table.theirs(out, Entry(row.key, row, None)), read)
  return out
