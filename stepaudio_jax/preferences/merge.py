"""Several files made one, in their order; rows that are equal are kept once.

  python -m stepaudio_jax.preferences merge a.jsonl more/b.jsonl --out all.jsonl

An id under which two files say different things is an error, and so is a task with two
contexts. Paths of audio are rewritten to hold from the new file's folder.
"""

import argparse
import json
from collections.abc import Sequence

from etils import epath

from stepaudio_jax.preferences import files
from stepaudio_jax.preferences.files import Entry


def flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("paths", nargs="+", metavar="FILE", help="of preferences, JSON Lines")
  add("--out", required=True, metavar="FILE", help="a new file")


def run(paths: Sequence[epath.PathLike], *, out: epath.PathLike) -> int:
  """Writes the one file.

  Raises:
    ValueError: rows that are wrong or clash, or there is something at `out`.
  """
  files.refuse(out)
  read = files.read(paths)
  kept = merged(read)
  files.write((out, kept))
  equal = len(read) - len(kept)
  print(
    f"wrote {out}: {len(kept)} rows of {len(paths)} files; {equal} were there twice"
  )
  return 0


def merged(entries: Sequence[Entry]) -> list[Entry]:
  """The entries without those that repeat an earlier one.

  Raises:
    ValueError: an id of rows that differ; both are named.
  """
  owner: dict[str, Entry] = {}
  clashes = []
  for entry in entries:
    before = owner.setdefault(entry.sample.id, entry)
    if before is not entry and _content(before) != _content(entry):
      clashes.append((before, entry))
  if clashes:
    before, entry = clashes[0]
    raise ValueError(
      f"{entry.row.at}: id {entry.sample.id!r} is that of another row, "
      f"{before.row.at}; {len(clashes)} ids clash in all: rename those of one file"
    )
  return [*owner.values()]


def _content(entry: Entry) -> str:
  """The row with its paths as they are from one place, and keys in one order."""
  return json.dumps(files.moved(entry.row, "/"), sort_keys=True)
