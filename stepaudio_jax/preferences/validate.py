"""Everything that is wrong with files, line by line, then what is in them.

  python -m stepaudio_jax.preferences validate train.jsonl heldout.jsonl

Told with line, id, value and choices: rows that break the schema, ids that occur twice
in a file, candidates that say the same, tasks whose contexts differ, dimensions that
not all files name, audio that is not where training would look. Status 1 if any is.
"""

import argparse
import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.data import panels
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.pages import words
from stepaudio_jax.preferences import files, tables
from stepaudio_jax.preferences.files import Entry, Examined


def flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("paths", nargs="+", metavar="FILE", help="of preferences, JSON Lines")
  add(
    "--dims",
    nargs="+",
    metavar="NAME",
    help="the dimensions that may occur; else those of all files that name any",
  )
  add("--json", metavar="OUT", dest="out", help="problems and counts, as JSON")


def run(
  paths: Sequence[epath.PathLike],
  *,
  dims: Sequence[str] | None = None,
  out: epath.PathLike | None = None,
) -> int:
  """Prints problems and counts; 1 if there is a problem.

  Raises:
    ValueError: a file that is not there, or empty.
  """
  found = files.examine(paths)
  problems = [
    *found.problems,
    *_strange_dimensions(found, paths, dims),
    *_absent_audio(found.all),
  ]
  counted = counts([entry.sample for entry in found.all]) | {"rows": found.rows}
  counted["ids_in_several_files"] = _shared_ids(found)
  for problem in problems:
    print(problem)
  print(f"{len(problems)} problems in {found.rows} rows\n")
  print(told(counted))
  if out:
    files.write_json(out, {"problems": problems, "counts": counted})
  return 1 if problems else 0


def _names(sample: Preference) -> set[str]:
  return {*sample.dims, *(name for own in sample.scores.values() for name in own)}


def _strange_dimensions(
  found: Examined, paths: Sequence[epath.PathLike], dims: Sequence[str] | None
) -> list[str]:
  """Names that are not known, with the first row that has each."""
  first: list[dict[str, Entry]] = []
  for own in found.entries:
    first.append({})
    for entry in own:
      for name in sorted(_names(entry.sample) - {panels.OVERALL}):
        first[-1].setdefault(name, entry)
  named = [set(names) for names in first if names]
  known = set.intersection(*named) if dims is None and named else set(dims or ())
  out = []
  for names, path in zip(first, paths, strict=True):
    for name, entry in names.items():
      if name not in known:
        why = "which not all files name (--dims may allow it)" if dims is None else path
        out.append(
          f"{entry.row.at}: {entry.sample.id!r}: unknown dimension {name!r}, {why}; "
          f"the choices are {sorted(known)}"
        )
  return out


def _absent_audio(entries: Sequence[Entry]) -> list[str]:
  rows: dict[str, list[Entry]] = {}
  for entry in entries:
    for path in {a.source for a in entry.sample.audio if isinstance(a.source, str)}:
      rows.setdefault(path, []).append(entry)
  return [
    f"{own[0].row.at}: {own[0].sample.id!r}: there is no audio file {path} (rows that "
    f"need it: {len(own)})"
    for path, own in rows.items()
    if not epath.Path(path).exists()
  ]


def _shared_ids(found: Examined) -> int:
  """Ids that several files have: no problem of either, but of a merge."""
  seen = collections.Counter(
    name for own in found.entries for name in {entry.sample.id for entry in own}
  )
  return sum(count > 1 for count in seen.values())


def counts(rows: Sequence[Preference]) -> dict[str, Any]:
  """What is in the rows; all shares are of them.

  `length` is of the answers, in characters: how much the longer one exceeds the other,
  as a share of the longer, in the median and the 90th percentile of comparisons.
  """
  panel = panels.Panel(rows)
  return {
    "rows": len(rows),
    "comparisons": len(panel.dialogues),
    "dialogues": len({*panel.dialogues}),
    "raters": len(panel.raters),
    "repeated": panel.repeated,
    "simulated": sum(bool(row.gold and row.gold.get("simulated")) for row in rows),
    "length": _lengths(panel),
    "dimensions": {name: _dimension(name, rows) for name in _all_names(rows)},
  }


def _all_names(rows: Sequence[Preference]) -> list[str]:
  names = [panels.OVERALL, *(name for row in rows for name in row.dims)]
  names += [name for row in rows for own in row.scores.values() for name in own]
  return [*dict.fromkeys(names)]


def _lengths(panel: panels.Panel) -> dict[str, float | None]:
  share: dict[int, float] = {}
  for one in panel.judged:
    short, long = sorted(len(reply.text) for reply in one.row.candidates)
    share[one.comparison] = 1 - short / long
  found = [*share.values()]
  if not found:
    return {"median": None, "p90": None}
  median, p90 = np.percentile(found, [50, 90])
  return {"median": float(median), "p90": float(p90)}


def _dimension(name: str, rows: Sequence[Preference]) -> dict[str, Any]:
  overall = name == panels.OVERALL
  labels = [row.overall if overall else row.dims.get(name) for row in rows]
  given = [label for label in labels if label is not None]
  return {
    "labels": len(given),
    "missing": 1 - len(given) / len(rows) if rows else None,
    "ties": given.count(0) / len(given) if given else None,
    "first": sum(label < 0 for label in given) / len(given) if given else None,
    "scores": sum(name in own for row in rows for own in row.scores.values()),
  }


def told(counted: dict[str, Any]) -> str:
  """`counts` as tables."""
  whole = [
    (key.replace("_", " "), value)
    for key, value in counted.items()
    if key not in ("length", "dimensions")
  ]
  length = counted["length"]
  whole += [
    (
      "longer reply exceeds the other by, median, % of its characters",
      words.percent(length["median"]),
    ),
    ("the same, 90th percentile", words.percent(length["p90"])),
  ]
  rows = [
    [
      name,
      one["labels"],
      words.percent(one["missing"]),
      words.percent(one["ties"]),
      words.percent(one["first"]),
      one["scores"],
    ]
    for name, one in counted["dimensions"].items()
  ]
  head = ["dimension", "labels", "missing, %", "ties, %", "first better, %", "scores"]
  return "\n\n".join([tables.table(["", "n"], whole), tables.table(head, rows)])
