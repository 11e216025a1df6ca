"""Preference files as they are read and written."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import files
from stepaudio_jax.data import jsonl
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.preferences import lines


@dataclasses.dataclass(frozen=True)
class Entry:
  """A row as it stands in its file, and what the schema makes of it."""

  row: Row
  sample: Preference


@dataclasses.dataclass(frozen=True)
class Examined:
  """Files with everything that is wrong in them.

  Attributes:
    entries: of each file, the rows that the schema takes.
    rows: that there are, right or wrong.
    problems: in the order of files and lines.
  """

  entries: tuple[tuple[Entry, ...], ...]
  rows: int
  problems: tuple[str, ...]

  @property
  def all(self) -> list[Entry]:
    return [entry for own in self.entries for entry in own]


def examine(paths: Sequence[epath.PathLike]) -> Examined:
  """Reads every row of every file.

  Beyond single rows: no id twice in a file, one context a task in all files.

  Raises:
    ValueError: a file that is not there, or empty.
  """
  out, rows, problems, contexts = [], 0, [], {}
  for path in paths:
    own, owner = [], {}
    found = jsonl.Rows(path)
    rows += len(found)
    for place in range(len(found)):
      try:
        row = found[place]
      except ValueError as error:
        problems.append(str(error))
        continue
      sample, wrong = lines.read(row)
      problems += wrong
      if sample is not None:
        entry = Entry(row, sample)
        problems += _repeated(entry, owner) + _elsewhere(entry, contexts)
        own.append(entry)
    out.append(tuple(own))
  return Examined(tuple(out), rows, tuple(problems))


def _repeated(entry: Entry, owner: dict[str, Entry]) -> list[str]:
  """An id that an earlier row of the file has."""
  before = owner.setdefault(entry.sample.id, entry)
  if before is entry:
    return []
  same = before.sample.rater == entry.sample.rater
  whose = f"the same rater {entry.sample.rater!r}" if same else "another rater"
  return [
    f"{entry.row.at}: id {entry.sample.id!r} is already that of {before.row.at}, by "
    f"{whose}"
  ]


def _elsewhere(entry: Entry, contexts: dict[str, Entry]) -> list[str]:
  """A task that an earlier row shows in another context."""
  before = contexts.setdefault(entry.sample.task_id, entry)
  if before.sample.context == entry.sample.context:
    return []
  return [
    f"{entry.row.at}: {entry.sample.id!r}: its context is not that of {before.row.at}, "
    f"which is of the same task {entry.sample.task_id!r}"
  ]


def read(paths: Sequence[epath.PathLike]) -> list[Entry]:
  """Every row of files that have nothing wrong.

  Raises:
    ValueError: the first problem, and how many there are.
  """
  found = examine(paths)
  if found.problems:
    told = " ".join(map(str, paths))
    raise ValueError(
      f"{found.problems[0]} ({len(found.problems)} problems in all; `python -m "
      f"stepaudio_jax.preferences validate {told}` lists them)"
    )
  return found.all


def write(*wanted: tuple[epath.PathLike, Iterable[Entry]]) -> None:
  """Writes every file, or none; paths of audio are made to hold from their folders.

  Raises:
    ValueError: one of them exists, or two are one.
  """
  places = [files.absolute(path) for path, _ in wanted]
  for path, _ in wanted:
    refuse(path)
    if places.count(files.absolute(path)) > 1:
      raise ValueError(f"{path} is named twice; each part needs a file of its own")
  with contextlib.ExitStack() as stack:
    for path, entries in wanted:
      partial = stack.enter_context(files.aside(path))
      folder = epath.Path(path).parent
      text = "".join(_line(moved(entry.row, folder)) for entry in entries)
      partial.write_text(text, encoding="utf-8")


def refuse(path: epath.PathLike) -> None:
  """Raises ValueError: there is something under that name."""
  if epath.Path(path).exists():
    raise ValueError(f"{path} exists; name a new file")


def write_json(path: epath.PathLike, value: Any) -> None:
  """A report, replacing one that is there."""
  with files.aside(path) as partial:
    partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _line(value: Mapping[str, Any]) -> str:
  return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def moved(row: Row, folder: epath.PathLike) -> dict[str, Any]:
  """A row's object with its relative paths of audio as they are from `folder`."""
  before, after = files.absolute(row.folder), files.absolute(folder)
  if before == after:
    return row.value
  context = [_moved(message, before, after) for message in row.value["context"]]
  return row.value | {"context": context}


def _moved(message: dict, before: epath.Path, after: epath.Path) -> dict[str, Any]:
  if not isinstance(message["content"], list):
    return message
  content = [
    block | {"path": _path(block["path"], before, after)}
    if block.get("path") is not None
    else block
    for block in message["content"]
  ]
  return message | {"content": content}


def _path(path: str, before: epath.Path, after: epath.Path) -> str:
  if files.is_remote(path) or os.path.isabs(path):
    return path
  if files.is_remote(before) or files.is_remote(after):
    return str(before / path)
  return os.path.relpath(before / path, after)
