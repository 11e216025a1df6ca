"""The sound of training rows: joined digits, and takes with small changes.

Every change is drawn from the row's id and a seed: the same run writes the same files.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from stepaudio_jax.audio import effects
from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core import files
from stepaudio_jax.core.lengths import SAMPLE_RATE

Row = dict[str, Any]

PAUSE_S = 0.15  # between joined digits
SPEED = (0.85, 1.18)  # faster is higher, too: another throat
NOISE_DB = (10.0, 35.0)  # of the sound above the noise, by energy
SHORTEST_PART = 0.6  # of a sound event that a take keeps


def written(rows: Sequence[Row], folder: Path, clips: Path, seed: int) -> list[Row]:
  """The rows with the full path of their sound in "file", made where it must be.

  Args:
    folder: where the rows' files lie.
    clips: gets what is made.
  """
  return [_one(row, folder, clips, seed) for row in rows]


def _one(row: Row, folder: Path, clips: Path, seed: int) -> Row:
  sources = [folder.resolve() / name for name in row.get("files", [row.get("file")])]
  if not row.get("take") and len(sources) == 1:
    path = sources[0]
  else:
    path = clips.resolve() / f"{row['id']}.flac"
    if not path.exists():
      clips.mkdir(parents=True, exist_ok=True)
      x_N = joined([audio_io.read(str(source)) for source in sources])
      if row.get("take"):
        x_N = taken(x_N, _rng(seed, row["id"]), part=row["meta"]["task"])
      with files.aside(path) as partial:
        soundfile.write(partial, x_N, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
  kept = {key: value for key, value in row.items() if key not in ("files", "take")}
  return kept | {"file": str(path)}


def joined(clips: Sequence[np.ndarray]) -> np.ndarray:
  """Clips one after the other with pauses of digital silence between."""
  pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
  parts = [part for clip in clips for part in (pause, clip)]
  return np.concatenate(parts[1:])


def taken(x_N: np.ndarray, rng: np.random.Generator, *, part: str) -> np.ndarray:
  """Another speed, pink noise, another loudness; of a "sound_event" a part of it.

  Returns:
    float32 in [-1, 1].
  """
  if part == "sound_event":
    kept = round(len(x_N) * rng.uniform(SHORTEST_PART, 1.0))
    start = rng.integers(len(x_N) - kept + 1)
    x_N = x_N[start : start + kept]
  x_N = soxr.resample(x_N, SAMPLE_RATE * rng.uniform(*SPEED), SAMPLE_RATE)
  level = np.sqrt(np.mean(x_N**2))
  noise_N = effects.noise(len(x_N), "pink", SAMPLE_RATE, rng)
  x_N = x_N + noise_N * level * 10 ** (-rng.uniform(*NOISE_DB) / 20)
  loudest = max(np.max(np.abs(x_N)), 1e-6)
  return (x_N * rng.uniform(0.3, 0.95) / loudest).astype(np.float32)


def _rng(seed: int, name: str) -> np.random.Generator:
  digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:8], "big"))
