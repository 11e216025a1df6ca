"""The report's three dialogues: picked by a fixed rule, with sound that plays anywhere.

16-bit WAV in a data URI: every browser plays it, and 3 s at 16 kHz are 130 kB.
"""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soundfile
from etils import epath

from experiments import report_charts
from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core.lengths import SAMPLE_RATE
from stepaudio_jax.text import messages as messages_lib

COUNT = 3
RULE = (
  "Picked by rule, not by hand: a memory dialogue, a wrong reply if there is one, and "
  "another task; where several fit, right replies first, then the order of the file."
)
_MEMORY = "memory"
_VERDICTS = {
  True: ("right", "Right"),
  False: ("wrong", "Wrong reply"),
  None: ("wrong", "Wrong: no answer could be read"),
}

Row = dict[str, Any]


def picked(items: Sequence[Row], at: str) -> list[tuple[Row, Row]]:
  """Three (row with sound, the same row on silence), by RULE.

  Raises:
    ValueError: too few dialogues with sound, or one without a reply on silence.
  """
  asked = [row for row in items if row["raw"] is not None]  # others failed: no reply
  heard = [row for row in asked if row["condition"] == "audio" and _clips(row)]
  silent = {row["id"]: row for row in asked if row["condition"] == "silence"}
  if len(heard) < COUNT:
    raise ValueError(f"{at}: {len(heard)} dialogues with sound; the report plays 3")
  chosen: list[Row] = []
  _add(chosen, heard, lambda row, _: (not _long_memory(row), not _right(row)))
  if _right(chosen[0]):
    _add(chosen, heard, lambda row, seen: (_right(row), row["correct"] is None, seen))
  while len(chosen) < COUNT:
    _add(chosen, heard, lambda row, seen: (seen, not _right(row)))
  for row in chosen:
    if row["id"] not in silent:
      raise ValueError(f"{at}: {row['id']!r} has no reply of condition 'silence'")
  return [(row, silent[row["id"]]) for row in chosen]


def _add(
  chosen: list[Row], rows: Sequence[Row], key: Callable[[Row, bool], tuple]
) -> None:
  """Adds the first row whose key(row, task is there already) is least."""
  tasks = {row["task"] for row in chosen}
  ids = {row["id"] for row in chosen}
  left = [row for row in rows if row["id"] not in ids]
  chosen.append(min(left, key=lambda row: key(row, row["task"] in tasks)))


def shown(row: Row, silent: Row, folders: Sequence[epath.Path]) -> Row:
  """What the page shows of a dialogue, clips read and encoded.

  Args:
    folders: where relative audio paths may start.
  """
  messages = messages_lib.normalise(row["messages"], row["id"])
  if messages[-1]["role"] == "assistant":  # the reference reply is no part of it
    messages = messages[:-1]
  return {
    "id": row["id"],
    "task": row["task"],
    "answer": row["answer"],
    "turns": [_turn(message, row["id"], folders) for message in messages],
    "reply": _reply(row),
    "silent": _reply(silent),
  }


def _reply(row: Row) -> Row:
  kind, verdict = _VERDICTS[row["correct"]]
  keys = ("think", "reply", "raw", "scores", "truncated")
  return {"kind": kind, "verdict": verdict} | {key: row[key] for key in keys}


def _turn(message: Row, name: str, folders: Sequence[epath.Path]) -> Row:
  blocks = [
    _sound(block, name, folders) if block["type"] == "audio" else block
    for block in message["content"]
  ]
  return {"role": message["role"], "blocks": blocks}


def _sound(block: Row, name: str, folders: Sequence[epath.Path]) -> Row:
  source = block["bytes"] if "bytes" in block else _found(block["path"], name, folders)
  span = (block.get("start_s"), block.get("end_s"))
  samples_N = audio_io.read(source, *span, name=name)
  return {
    "type": "audio",
    "samples_N": samples_N,
    "uri": wav_uri(samples_N),
    "wave": report_charts.wave(samples_N),
    "seconds": len(samples_N) / SAMPLE_RATE,
    "path": None if "bytes" in block else str(source),
  }


def _found(path: str, name: str, folders: Sequence[epath.Path]) -> epath.Path:
  places = [epath.Path(path), *(folder / path for folder in folders)]
  for place in places:
    if place.exists():
      return place
  looked = ", ".join(str(place) for place in places)
  raise FileNotFoundError(f"{name}: its audio is at none of {looked}")


def wav_uri(samples_N: np.ndarray) -> str:
  """16-bit PCM WAV as a data URI."""
  file = io.BytesIO()
  soundfile.write(file, samples_N, SAMPLE_RATE, format="WAV", subtype="PCM_16")
  return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()


def _clips(row: Row) -> list[Row]:
  return messages_lib.audio_blocks(messages_lib.normalise(row["messages"], row["id"]))


def _long_memory(row: Row) -> bool:
  turns = [m for m in row["messages"] if m["role"] in ("human", "user")]
  return row["task"] == _MEMORY and len(turns) > 1


def _right(row: Row) -> bool:
  return row["correct"] is True
