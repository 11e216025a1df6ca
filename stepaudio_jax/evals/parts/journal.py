"""Rows that outlive a kill: each append is a small file that is whole or not there."""

import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from stepaudio_jax.core import files, processes

Row = dict[str, Any]


class Journal:
  """Rows that several processes add to one folder, and that later starts read again.

  Nothing is ever appended to a file, so a bucket serves as well as a disk.

  Args:
    settings: hash of all that decides the rows; rows of other settings stay, unread.
  """

  def __init__(self, folder: epath.PathLike, settings: str):
    self._folder = epath.Path(folder) / settings
    self._mine = f"{processes.index():03}-"
    taken = [path.name for path in self._files() if path.name.startswith(self._mine)]
    self._next = 1 + max((int(name[4:10]) for name in taken), default=-1)

  def rows(self) -> list[Row]:
    """All rows of all processes that have been added so far."""
    # Not splitlines(): replies may hold other characters that end a line.
    texts = [path.read_text().removesuffix("\n") for path in self._files()]
    return [json.loads(line) for text in texts for line in text.split("\n")]

  def add(self, rows: Iterable[Row]) -> None:
    """Returns when the rows are kept, all of them."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with files.aside(self._folder / f"{self._mine}{self._next:06}.jsonl") as partial:
      partial.write_text(text)
    self._next += 1

  def _files(self) -> list[epath.Path]:
    return sorted(self._folder.glob("*.jsonl"), key=lambda path: path.name)
