"""Rows of a benchmark to items; whatever is wrong with them is told at once.

Audio is a path beside the files, or {"bytes", "path"}, as in the columns of a Hugging
Face dataset.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import files
from stepaudio_jax.data import fields, jsonl
from stepaudio_jax.evals.parts import items as items_lib
from stepaudio_jax.evals.parts import shipped
from stepaudio_jax.evals.parts.items import Item
from stepaudio_jax.rewards.parts import answers

LISTED = 100  # faults that an error names; the rest is counted


class Places:
  """Where audio lies: every folder is listed once, however many files are asked for.

  Args:
    folders: in this order a relative path is looked for under them.
  """

  def __init__(self, folders: Sequence[epath.Path]):
    self.folders = list(dict.fromkeys(map(str, folders)))
    self._listed: dict[str, Mapping[str, int | None] | None] = {}

  def find(self, path: str) -> str:
    """The file's full path.

    Raises:
      ValueError: it is nowhere, or holds nothing.
    """
    if files.is_remote(path):
      return path
    tried = [_joined(root, path) for root in self._roots(path)]
    for full in tried:
      folder, name = os.path.split(full)
      if folder not in self._listed:
        self._listed[folder] = _sizes(folder)
      sizes = self._listed[folder]
      if sizes is not None and name in sizes:
        if sizes[name] == 0:
          raise ValueError(f"the audio file {full} is empty")
        return full
    lacking = [one for one in map(os.path.dirname, tried) if not self._listed[one]]
    lacks = f"; no folder, or an empty one: {', '.join(lacking)}" if lacking else ""
    raise ValueError(f"no audio file {path!r} (looked for {', '.join(tried)}{lacks})")

  def _roots(self, path: str) -> list[str]:
    return [""] if os.path.isabs(path) else self.folders


class Entry:
  """A row that is being read: its faults are collected, and reading goes on.

  What cannot be read comes back as an empty value of its type; `item` then gives None.

  Attributes:
    row: with "{file}:{line} ('{id}')" as its place, once the id is known.
    split: the name of its Parquet file, shard numbers left out; of other files the
      name without its ending.
    number: of the row in its split, from 0.
  """

  def __init__(self, row: jsonl.Row, split: str, number: int, places: Places):
    self.row, self.split, self.number = row, split, number
    self.name = ""
    self.faults: list[str] = []
    self._places = places

  def call(self, name: str) -> None:
    """Gives the row its id."""
    self.name = name
    self.row = jsonl.Row(self.row.value, f"{self.row.at} ({name!r})", self.row.folder)

  def fault(self, text: str) -> None:
    self.faults.append(f"{self.row.at}: {text}")

  def text(self, key: str, default: str | None = None) -> str:
    """A non-empty string; without a `default` its absence is a fault.

    In the place of a string some data sets of AudioBench have {"text": …, "audio": …}.
    """
    row, absent = self.row, () if default is None else (default,)
    inner = row.value.get(key)
    if isinstance(inner, dict) and "text" in inner:
      row, key = jsonl.Row(inner, f"{row.at}: {key!r}", row.folder), "text"
    return self._read(lambda: fields.text(row, key, *absent), "")

  def number_or_text(self, key: str) -> str:
    """Ids and counts, which some files hold as numbers."""
    value = self.row.value.get(key)
    if fields.is_number(value):
      return str(value)
    return self.text(key)

  def mapping(self, key: str) -> dict[str, Any]:
    return self._read(lambda: fields.mapping(self.row, key), {})

  def texts(self, key: str) -> tuple[str, ...]:
    """A list of non-empty strings that is not empty."""
    values = self._read(lambda: fields.rows(self.row, key), None)
    if values is None:
      return ()
    if not values:
      self.fault(f"{key!r} is empty")
    for value in values:
      if not isinstance(value, str) or not value.strip():
        self.fault(f"{key!r} holds {value!r:.80}, not a non-empty string")
    return tuple(value for value in values if isinstance(value, str))

  def one_of(self, key: str, choices: Sequence[str]) -> str:
    """The one of `choices` that the field names, but for case and the final mark."""
    answer = self.text(key)
    if not answer or not choices or answer in choices:
      return answer
    same = [one for one in choices if answers.key(one) == answers.key(answer)]
    if not same:
      self.fault(f"{key!r} is {answer!r}, not one of the choices {list(choices)}")
    return same[0] if same else ""

  def groups(self, wanted: Sequence[str], others: Sequence[str] = ()) -> dict[str, str]:
    """{key: text} of the fields under which an item is counted; `others` may lack."""
    found = {key: self.text(key) for key in wanted}
    found |= {key: self.text(key) for key in others if self.row.value.get(key)}
    return found

  def audio(self, key: str) -> dict[str, Any]:
    """The block of a message: a path to a file that is there, or the file's bytes."""
    value = self.row.value.get(key)
    if isinstance(value, dict) and isinstance(value.get("audio"), dict):
      value = value["audio"]  # {"text", "audio"}, as AudioLLMs ship their contexts
    data = value.get("bytes") if isinstance(value, dict) else None
    if data is not None:
      if isinstance(data, bytes) and data:
        return {"type": "audio", "bytes": data}
      self.fault(f"the 'bytes' of {key!r} are {data!r:.80}, not a file's bytes")
      return {}
    path = value.get("path") if isinstance(value, dict) else self.text(key)
    if not isinstance(path, str) or not path.strip():
      if isinstance(value, dict):
        self.fault(f"{key!r} has neither 'bytes' nor 'path'; it has {sorted(value)}")
      return {}
    full = self._read(lambda: self._found(path), "")
    return {"type": "audio", "path": full}

  def item(
    self,
    content: list[dict[str, Any]],
    gold: str | None,
    choices: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
  ) -> Item | None:
    """The question `content` of one turn; None where the row has faults."""
    return self.talk_item(
      [{"role": "human", "content": content}], gold, choices, groups
    )

  def talk_item(
    self,
    messages: list[dict[str, Any]],
    gold: str | None,
    choices: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
  ) -> Item | None:
    """The same with messages of the dialogue schema."""
    if self.faults:
      return None
    try:
      talk = items_lib.talk(self.name, messages, self.row.at, self.row.folder)
    except ValueError as error:
      self.faults.append(str(error))
      return None
    raw = _without_bytes(self.row.value)
    return Item(talk, gold, tuple(choices), dict(groups or {}), raw)

  def _found(self, path: str) -> str:
    try:
      return self._places.find(path)
    except ValueError as error:
      raise ValueError(f"{self.row.at}: {error}") from error

  def _read(self, value: Callable[[], Any], empty: Any) -> Any:
    try:
      return value()
    except ValueError as error:
      self.faults.append(str(error))
      return empty


def items(
  folder: epath.PathLike,
  patterns: Sequence[str],
  item: Callable[[Entry], Item | None],
  key: str = "id",
  numbered: bool = False,
) -> list[Item]:
  """All items of a folder, in the order of its files.

  Args:
    folder: or one of its files.
    patterns: names of files, or globs, the first that is there is read; a glob stands
      for one file, those of Parquet for all that there are.
    item: reads a row; what is wrong with it goes to the row's faults. None without a
      fault leaves the row out.
    key: of the id.
    numbered: a row without an id is named by its split and number.

  Raises:
    ValueError: everything that is wrong, with file, line or row, and id.
  """
  folder = epath.Path(folder)
  paths = shipped.found(folder, patterns)
  root = folder if folder.is_dir() else folder.parent
  places = Places([root, *(path.parent for path in paths), root / "audio"])
  seen: dict[str, str] = {}
  faults, out = [], []
  for row in _entries(paths, places, faults):
    at = row.row.at
    nameless = numbered and row.row.value.get(key) is None
    name = f"{row.split}-{row.number}" if nameless else row.number_or_text(key)
    if name:
      row.call(name)
      first = seen.setdefault(name, at)
      if first != at:
        row.fault(f"its id {name!r} is that of {first}")
    out.append(item(row))
    faults += row.faults
  _check(folder, faults, len(out))
  return [one for one in out if one is not None]


def _entries(
  paths: Sequence[epath.Path], places: Places, faults: list[str]
) -> Iterator[Entry]:
  """Rows of the files with their numbers; files and lines that are unreadable, told."""
  numbers: dict[str, int] = {}
  for path in paths:
    split = shipped.split_of(path)
    for row in shipped.rows(path):
      if isinstance(row, str):
        faults.append(row)
        continue
      number = numbers.setdefault(split, 0)
      numbers[split] += 1
      yield Entry(row, split, number, places)


def _joined(root: str, path: str) -> str:
  full = os.path.join(root, path.removeprefix("./"))
  return full if files.is_remote(root) else os.path.normpath(full)


def _sizes(folder: str) -> Mapping[str, int | None] | None:
  """Names and bytes of a folder's files; None where it is not there."""
  if files.is_remote(folder):
    path = epath.Path(folder)
    return {one.name: None for one in path.iterdir()} if path.exists() else None
  if not os.path.isdir(folder):
    return None
  with os.scandir(folder) as entries:
    return {one.name: one.stat().st_size for one in entries if one.is_file()}


def _without_bytes(value: Any) -> Any:
  """The value with every field that holds bytes left out."""
  if isinstance(value, dict):
    kept = {key: one for key, one in value.items() if not isinstance(one, bytes)}
    return {key: _without_bytes(one) for key, one in kept.items()}
  if isinstance(value, list):
    return [_without_bytes(one) for one in value if not isinstance(one, bytes)]
  return value


def _check(folder: epath.Path, faults: Sequence[str], n: int) -> None:
  if not faults:
    return
  shown = list(faults[:LISTED])
  if len(faults) > LISTED:
    shown.append(f"and {len(faults) - LISTED} more")
  head = f"{folder}: faults: {len(faults)}, in {n} readable rows"
  raise ValueError("\n  ".join([head, *shown]))
