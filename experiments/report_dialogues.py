"""The report's dialogues: picked by a fixed rule, with sound that plays anywhere.

16-bit WAV in a data URI: every browser plays it, and 3 s at 16 kHz are 130 kB.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
from etils import epath

from experiments import report_charts
from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core.lengths import SAMPLE_RATE
from stepaudio_jax.text import messages as messages_lib

RULE = (
  "Picked by a rule that reads no reply: of every task the first held-out dialogue "
  "with sound, in the order of the file. All policies were asked the same."
)
_VERDICTS = {
  True: ("right", "Right"),
  False: ("wrong", "Wrong reply"),
  None: ("wrong", "No answer could be read"),
}

Row = dict[str, Any]


def picked(items: Mapping[str, Mapping[str, Row]], at: str) -> list[dict[str, Row]]:
  """Of every task one dialogue, as {policy: its row}, by RULE.

  Args:
    items: {policy: {dialogue id: row}}, the first policy's in the order of its file.

  Raises:
    ValueError: no dialogue has sound.
  """
  policies = [*items]
  chosen: dict[str, str] = {}
  for name, row in items[policies[0]].items():
    if _clips(row):
      chosen.setdefault(row["task"], name)
  if not chosen:
    raise ValueError(f"{at}: no dialogue has sound, and the report plays some")
  return [{p: items[p][name] for p in policies} for name in chosen.values()]


def shown(rows: Mapping[str, Row], folders: Sequence[epath.Path]) -> Row:
  """What the page shows of a dialogue, clips read and encoded.

  Args:
    rows: {policy: row}.
    folders: where relative audio paths may start.
  """
  row = next(iter(rows.values()))
  messages = messages_lib.normalise(row["messages"], row["id"])
  if messages[-1]["role"] == "assistant":  # the reference reply is no part of it
    messages = messages[:-1]
  return {
    "id": row["id"],
    "task": row["task"],
    "answer": row["answer"],
    "turns": [_turn(message, row["id"], folders) for message in messages],
    "replies": {policy: _reply(one) for policy, one in rows.items()},
    "best": _best([one["scores"] for one in rows.values()]),
  }


def clips(dialogue: Row) -> list[Row]:
  """The sounds of a shown dialogue."""
  blocks = [block for turn in dialogue["turns"] for block in turn["blocks"]]
  return [block for block in blocks if block["type"] == "audio"]


def _best(scores: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
  """Dimension → the highest score; None where all policies have the same."""
  asked = [one for one in scores if one]
  out = {}
  for name in asked[0] if asked else ():
    found = {one[name] for one in asked}
    out[name] = max(found) if len(found) > 1 else None
  return out


def _reply(row: Row) -> Row:
  kind, verdict = _VERDICTS[row["correct"]]
  if row["raw"] is None:
    verdict = "Could not be asked"
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
