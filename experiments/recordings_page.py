"""What came out of experiments/recordings.py, in Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import recordings_rows as rows_lib
from stepaudio_jax.core import files
from stepaudio_jax.evals.parts import accuracy, intervals, tables

Row = dict[str, Any]

_DIGITS = 10


def write(d: Path, c: ConfigDict) -> Path:
  """DIR/recordings.md and, with the same numbers, DIR/recordings.json."""
  when = {name: items(d / "evaluation" / f"{name}-heldout") for name in _WHEN}
  result = {name: compared(rows) for name, rows in when.items()}
  result["rest"] = compared(items(d / "evaluation" / "after-rest"))
  result["rows"] = json.loads((d / "counts.json").read_text())
  who = origins(d / "heldout" / "manifest.json")
  result["heldout_origins"] = {
    kind: len({name for some in named.values() for name in some})
    for kind, named in who.items()
  }
  result["speakers"] = speakers(when["after"], who["digits"])
  result["over_recordists"] = over_recordists(when["after"], who["sounds"])
  for name, content in {
    "json": json.dumps(result, indent=1),
    "md": page(result, c),
  }.items():
    with files.aside(d / f"recordings.{name}") as partial:
      partial.write_text(content)
  return d / "recordings.md"


_WHEN = {"before": "Before: the start", "after": "After SFT on the other half"}


def items(folder: Path) -> list[Row]:
  text = (folder / "recordings.items.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def origins(manifest: Path) -> dict[str, dict[str, tuple[str, ...]]]:
  """{kind: {id: speakers or recordists}}."""
  found: dict[str, dict[str, tuple[str, ...]]] = {}
  for row in json.loads(manifest.read_text()):
    found.setdefault(rows_lib.kind(row), {})[row["id"]] = rows_lib.origins(row)
  return found


def speakers(rows: Sequence[Row], who: Mapping[str, Sequence[str]]) -> Row:
  """Accuracy beside silence of each speaker's single digits."""
  found: dict[str, list[Row]] = {}
  for row in rows:
    if row["groups"]["task"] == "digit":
      found.setdefault("+".join(who[row["id"]]), []).append(row)
  return {speaker: _entry(some) for speaker, some in found.items()}


def over_recordists(rows: Sequence[Row], who: Mapping[str, Sequence[str]]) -> Row:
  """95 % interval of the sounds' accuracy, all clips of a recordist drawn together."""
  heard = [row for row in rows if row["condition"] == "audio" and row["id"] in who]
  values = [float(row["score"] or 0) for row in heard]
  clusters = ["+".join(who[row["id"]]) for row in heard]
  low, high = intervals.clustered(values, [1] * len(values), clusters)
  return {"low": low, "high": high}


def compared(rows: Sequence[Row]) -> Row:
  """Accuracy beside silence of each task, of digits and of sounds, and of all."""
  names = {row["groups"]["task"]: None for row in rows}
  chosen = {name: [r for r in rows if r["groups"]["task"] == name] for name in names}
  for kind in dict.fromkeys(rows_lib.KINDS.values()):
    some = [row for row in rows if rows_lib.KINDS.get(row["groups"]["task"]) == kind]
    if len({row["groups"]["task"] for row in some}) > 1:
      chosen[kind] = some
  chosen["all"] = list(rows)
  return {name: _entry(some) for name, some in chosen.items()}


def _entry(rows: Sequence[Row]) -> Row:
  by = {"audio": [], "silence": []}
  for row in rows:
    by[row["condition"]].append(row)
  heard = _accuracy(by["audio"])
  silence = _accuracy(by["silence"]) if by["silence"] else None
  chance = sum(map(guessed, by["audio"])) / len(by["audio"])
  return accuracy.against_silence(heard, silence, chance)


def _accuracy(rows: Sequence[Row]) -> Row:
  asked = [row["score"] for row in rows if row["failed"] is None]
  verdicts = [None if score is None else score == 1 for score in asked]
  return accuracy.accuracy(verdicts, len(rows) - len(asked))


def guessed(row: Row) -> float:
  """Chance of a guess: among the choices, or of digit strings of the right length.

  0 of a transcript.
  """
  if row["choices"]:
    return 1 / len(row["choices"])
  if row["groups"]["task"] == "digit_string":
    return _DIGITS ** -float(len(row["gold"].split()))
  return 0.0


def page(result: Row, c: ConfigDict) -> str:
  rows, who = result["rows"], result["heldout_origins"]
  spread = "[{low:.1%}, {high:.1%}]".format_map(result["over_recordists"])
  keys = json.loads(c.to_json_best_effort())
  parts = [
    "# Real recordings",
    f"{rows['train']} rows about digits and sounds train, {rows['heldout']} are held "
    f"out, of {who['digits']} speakers of digits and {who['sounds']} recordists of "
    "sounds whom training did not hear. "
    f"{rows['left_out']} rows with parts on both sides are left out. The training rows "
    f"became {rows['dialogues']} dialogues: other orders of options and other wrong "
    "options, digits of one speaker joined to strings, and takes at another speed, "
    "with noise, and of sounds parts.",
    "Accuracy over all items, unparsed and failed ones counted as wrong, with Wilson's "
    "95 % interval over clips (clips of one speaker are not independent of each "
    "other). It beats silence if the lower bound is above the accuracy in silence of "
    "equal length and above chance.",
    *(
      part
      for name, title in _WHEN.items()
      for part in (f"## {title}", tables.accuracy_table(result[name]))
    ),
    "Single digits of each speaker:",
    tables.accuracy_table(result["speakers"]),
    f"Sounds, all clips of one recordist drawn together: 95 % interval {spread} "
    "(bootstrap over recordists).",
    "## The manifest's other questions, of which nothing was trained",
    tables.accuracy_table(result["rest"]),
    "## Recipe",
    "```\n" + json.dumps(keys, indent=1) + "\n```",
  ]
  return "\n\n".join(parts) + "\n"
