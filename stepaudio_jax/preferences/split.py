"""A file cut in two, for training and held out, without cutting a dialogue.

  python -m stepaudio_jax.preferences split all.jsonl --out-train train.jsonl \\
    --out-heldout heldout.jsonl --heldout 0.1 --seed 0

Rows stay together that are of one task, of one dialogue ("talk#2" is a turn of "talk"),
of one context (the same words; the same sound, whatever its file is called), or of a
context that goes on from a reply of the other; and whatever hangs together through
others. Where a row goes depends on the seed and on what the file holds, not on the
order of its rows.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import groups, progress
from stepaudio_jax.data import keys, panels
from stepaudio_jax.data.schema import Audio, Preference
from stepaudio_jax.pages import words
from stepaudio_jax.preferences import files, tables
from stepaudio_jax.text import messages as messages_lib

_DIGEST = 16  # bytes


def flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("path", metavar="FILE", help="of preferences, JSON Lines")
  add("--out-train", required=True, metavar="FILE", help="a new file")
  add("--out-heldout", required=True, metavar="FILE", help="a new file")
  add(
    "--heldout",
    type=float,
    default=0.1,
    metavar="SHARE",
    help="of the comparisons; else %(default)s",
  )
  add("--seed", type=int, default=0, metavar="N", help="of the draw; else %(default)s")


def run(
  path: epath.PathLike,
  *,
  out_train: epath.PathLike,
  out_heldout: epath.PathLike,
  heldout: float = 0.1,
  seed: int = 0,
) -> int:
  """Writes both files and tells the share that was reached.

  Raises:
    ValueError: wrong rows or shares, something at one of the outs, or too few dialogues
      to hold any out.
  """
  for out in (out_train, out_heldout):
    files.refuse(out)
  entries = files.read([path])
  rows = [entry.sample for entry in entries]
  out = held_out(rows, heldout, seed)
  sides = [
    (out_train, [e for e, held in zip(entries, out, strict=True) if not held]),
    (out_heldout, [e for e, held in zip(entries, out, strict=True) if held]),
  ]
  files.write(*sides)
  print(told({str(name): [e.sample for e in own] for name, own in sides}, rows))
  return 0


def held_out(rows: Sequence[Preference], share: float, seed: int) -> list[bool]:
  """Which rows are held out: whole groups, as near to `share` as these allow.

  Groups come in the order of a hash of their tasks, and each is taken that still fits.

  Raises:
    ValueError: no share between 0 and 1, or one side would be empty.
  """
  if not 0 < share < 1:
    raise ValueError(f"heldout={share:g} is not a share between 0 and 1")
  group = together(rows)
  comparisons: dict[int, set] = {}
  tasks: dict[int, set[str]] = {}
  for place, row in zip(group, rows, strict=True):
    comparisons.setdefault(place, set()).add(_comparison(row))
    tasks.setdefault(place, set()).add(row.task_id)
  room = round(share * sum(map(len, comparisons.values())))
  taken: set[int] = set()
  for place in sorted(comparisons, key=lambda p: _hashed(str(seed), *sorted(tasks[p]))):
    if len(comparisons[place]) <= room and len(taken) + 1 < len(comparisons):
      taken.add(place)
      room -= len(comparisons[place])
  if not taken:
    sizes = sorted(map(len, comparisons.values()))
    raise ValueError(
      f"heldout={share:g} leaves one side empty: there are {len(sizes)} groups of "
      f"dialogues that hang together, of {sizes[0]} to {sizes[-1]} comparisons"
    )
  return [place in taken for place in group]


def together(rows: Sequence[Preference]) -> list[int]:
  """Of each row the first that must be on its side."""
  known = keys.Keys()
  talks = [_talk(row, known) for row in progress.bar(rows, "reading", "row")]
  # A context goes on from a reply only where that reply is one of the file's.
  replies = {name for _, own, _ in talks for name in own}
  names = [
    {("task", panels.dialogue_of(row.task_id)), ("context", context), *own}
    | {name for name in earlier if name in replies}
    for row, (context, own, earlier) in zip(rows, talks, strict=True)
  ]
  return groups.joined(names)


def _talk(
  row: Preference, known: keys.Keys
) -> tuple[str, set[tuple[str, str]], set[tuple[str, str]]]:
  """The context, its continuations by each reply, and by the replies within it."""
  audio = iter(row.audio)
  turns = [json.dumps(_turn(message, audio, known)) for message in row.context]
  said = [json.dumps(["assistant", [one.text.strip()]]) for one in row.candidates]
  context = _hashed(*turns)
  ends = [k for k, m in enumerate(row.context) if m["role"] == "assistant"]
  own = {("reply", _hashed(*turns, reply)) for reply in said}
  return context, own, {("reply", _hashed(*turns[: k + 1])) for k in ends}


def _turn(message: dict[str, Any], audio: Iterator[Audio], known: keys.Keys) -> list:
  """Who says what: thoughts and white space around it apart, sound by its content."""
  if message["role"] == "assistant":
    return ["assistant", [messages_lib.text_of(message).strip()]]
  parts = []
  for block in message["content"]:
    if block["type"] == "audio":
      parts.append({"audio": _sound(next(audio), known)})
    elif block["text"].strip():
      parts.append(block["text"].strip())
  return [message["role"], parts]


def _sound(clip: Audio, known: keys.Keys) -> list:
  """The content and span of a clip; where its file is not there, its path's."""
  if isinstance(clip.source, str) and not epath.Path(clip.source).exists():
    return [clip.source, clip.start_s, clip.end_s]
  return [known[clip]]


def _comparison(row: Preference) -> tuple:
  return (row.task_id, *sorted(panels.said(one) for one in row.candidates))


def _hashed(*parts: str) -> str:
  """A digest of the parts in order; where one ends is part of it."""
  text = json.dumps(parts)
  return hashlib.blake2b(text.encode(), digest_size=_DIGEST).hexdigest()


def told(sides: dict[str, list[Preference]], rows: Sequence[Preference]) -> str:
  """What went where."""
  whole = len({_comparison(row) for row in rows})
  table = []
  for name, own in sides.items():
    comparisons = len({_comparison(row) for row in own})
    dialogues = len({panels.dialogue_of(row.task_id) for row in own})
    share = words.percent(comparisons / whole, 2)
    table.append(
      [name, len(own), comparisons, share, dialogues, len({row.rater for row in own})]
    )
  head = ["file", "rows", "comparisons", "share, %", "dialogues", "raters"]
  return tables.table(head, table)
