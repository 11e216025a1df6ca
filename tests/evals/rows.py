"""What tests of benchmark readers share: folders as they are released."""

import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import soundfile

SCORING = pathlib.Path(__file__).resolve().parents[2] / "../shared/data/scoring"


def shared(name: str) -> Any:
  """A file of scorer data (JSON, or the rows of JSON Lines), or a skip."""
  path = SCORING / "shared" / name
  if not path.exists():
    pytest.skip(f"the scorers' data are not at {path}")
  text = path.read_text("utf-8")
  if path.suffix == ".json":
    return json.loads(text)
  return [json.loads(line) for line in text.splitlines()]


def clip(format: str = "WAV") -> bytes:
  """A tenth of a second of sound, as a file."""
  file = io.BytesIO()
  samples_N = np.sin(np.arange(1600) / 10).astype(np.float32)
  soundfile.write(file, 0.5 * samples_N, 16_000, format=format)
  return file.getvalue()


def folder(
  root: pathlib.Path, rows: Sequence[dict[str, Any]], clips: Sequence[str]
) -> pathlib.Path:
  """metadata.jsonl with these rows, and sound under these paths."""
  lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
  (root / "metadata.jsonl").write_text("".join(lines), "utf-8")
  for path in clips:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(clip())
  return root


def texts(item: Any) -> list[tuple[str, list[str]]]:
  """(role, its texts, and "<audio>" for sound) of an item's messages."""
  return [
    (m["role"], [block.get("text", "<audio>") for block in m["content"]])
    for m in item.talk.row["messages"]
  ]
