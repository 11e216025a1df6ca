"""The report's table: checkpoints beside published rows, and what tells them apart."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.data import fields
from stepaudio_jax.evals.parts.results import Folder, Results

PUBLISHED = pathlib.Path(__file__).with_name("published.json")
AVERAGE = "Avg"
# Temperature of the published runs; their numbers of items, where they are known; and
# the columns that a judge scored, whose prompts are not published.
TEMPERATURE = 0.7
ITEMS = {"Audio MC": 452, "Big Bench Audio": 1000, "MMSU": 5000, "MMAU": 1000}
ITEMS |= {"Spoken MQA": 2269, "Step-Caption": 905, "Step-DU": 87, "Step-SPQA": 550}
JUDGED = ("Audio MC", "Step-Caption", "Step-DU", "Step-SPQA")

Row = dict[str, Any]


def published(path: epath.PathLike = PUBLISHED) -> Row:
  """{"source", "columns", "rows": {model: {column or AVERAGE: percent or None}}}.

  The file's rows are lists: the average, then the columns.

  Raises:
    ValueError: no such file, or one of another form.
  """
  path = epath.Path(path)
  if not path.exists():
    raise ValueError(f"there is no file {path} with published rows")
  try:
    value = json.loads(path.read_text())
    source, columns, rows = (value[key] for key in ("source", "columns", "rows"))
    columns = [column for column in columns if column != AVERAGE]
    wrong = {
      model: len(row) for model, row in rows.items() if len(row) != len(columns) + 1
    }
    numbers = [number for row in rows.values() for number in row]
    if not all(number is None or fields.is_number(number) for number in numbers):
      raise ValueError("a number of a row is none")
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    wanted = '{"source", "columns", "rows": {model: [average, …]}}'
    raise ValueError(f"{path}: {error!r} where {wanted} is wanted") from error
  if wrong:
    raise ValueError(f"{path}: rows of {wrong} numbers; {len(columns) + 1} are wanted")
  named = [AVERAGE, *columns]
  rows = {model: dict(zip(named, row, strict=True)) for model, row in rows.items()}
  return {"source": source, "columns": columns, "rows": rows}


def standing(name: str, folder: Folder, columns: Sequence[str]) -> Row:
  """A checkpoint's row.

  Returns:
    "cells" by column (None: not there), "average" as a share, which is None unless
    every column is there ("lacking" names the others), "unlike": whether any of them
    was made in another way than the published ones, and "elsewhere": {benchmark: its
    column that the table does not have}.

  Raises:
    ValueError: two benchmarks of one column.
  """
  cells: dict[str, Row | None] = dict.fromkeys(columns)
  elsewhere = {}
  for benchmark, results in folder.results.items():
    column = results.summary["column"]
    if column not in cells:
      elsewhere |= {benchmark: column} if column else {}
      continue
    if cells[column]:
      both = [cells[column]["benchmark"], benchmark]
      raise ValueError(f"{folder.path}: {both} both fill the column {column!r}")
    cells[column] = _cell(benchmark, results)
  lacking = [column for column, cell in cells.items() if cell is None]
  there = [cell for cell in cells.values() if cell]
  mean = None if lacking else sum(cell["mean"] for cell in there) / len(there)
  return {
    "name": name,
    "average": mean,
    "lacking": lacking,
    "unlike": any(cell["unlike"] for cell in there),
    "cells": cells,
    "elsewhere": elsewhere,
  }


def _cell(benchmark: str, results: Results) -> Row:
  summary = results.summary
  return {
    "benchmark": benchmark,
    **summary["metrics"][results.metric],
    "official": summary["official"],
    "unlike": unlike(summary),
  }


def unlike(summary: Mapping[str, Any]) -> list[str]:
  """Why a result must not be read as the published one's equal; [] where it may be."""
  settings, column = summary["settings"], summary["column"]
  judge = settings.get("judge") or {"kind": "rule"}
  out = [f"judged by {described(judge)}"] if judge["kind"] != "rule" else []
  if judge.get("unanswered"):
    out.append(f"{judge['unanswered']} questions that the judge left without a reply")
  if judge["kind"] == "rule" and column in JUDGED:
    out.append("scored by rule, the published row by a judge")
  if settings.get("prompt"):
    out.append(f"asked in words of ours, prompt {settings['prompt']}")
  if "temperature" in settings and settings["temperature"] != TEMPERATURE:
    out.append(f"temperature {settings['temperature']:g} instead of {TEMPERATURE}")
  if column in ITEMS and summary["n"] != ITEMS[column]:
    out.append(f"{summary['n']} items instead of {ITEMS[column]}")
  if summary["simulated"]:
    out.append("simulated")
  return out


# What decides how items are asked and judged; a seed or a batch size does not.
_DECIDING = ("items", "prompt", "temperature", "top_k", "top_p", "max_new_tokens")


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
  """In what two results of a benchmark differ beside the checkpoint."""
  one, other = first["settings"], second["settings"]
  out = []
  for name in (*_DECIDING, "samples"):
    pair = one.get(name), other.get(name)
    if pair[0] != pair[1]:
      told = f"{name} {pair[0]} and {pair[1]}"
      out.append("other questions or answers" if name == "items" else told)
  judges = [settings.get("judge") or {"kind": "rule"} for settings in (one, other)]
  if len({_who(judge) for judge in judges}) > 1 or _other_wordings(*judges):
    out.append("judged by " + " and by ".join(map(described, judges)))
  return out


def _who(judge: Mapping[str, Any]) -> str:
  """A judge wherever it is served, whatever it was asked."""
  kept = {k: v for k, v in judge.items() if k not in ("url", "templates", "unanswered")}
  return json.dumps(kept, sort_keys=True)


def _other_wordings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Not every wording need have been used by both: an equal answer asks nobody."""
  first, second = ({*(judge.get("templates") or ())} for judge in (one, other))
  return not (first <= second or second <= first)


def described(judge: Mapping[str, Any]) -> str:
  """A judge in words: kind, model, hashes of its prompts."""
  model = f" {judge['model']}" if judge.get("model") else ""
  hashes = ", ".join(judge.get("templates") or ())
  return f"{judge['kind']}{model}" + (f", prompts {hashes}" if hashes else "")
