"""Small data sets written for the tests of this folder."""

import json
import pathlib
from typing import Any

import numpy as np
import soundfile

from stepaudio_jax.core import lengths

WIDTH = 4  # of the frames that `encode` makes


def write_rows(path: pathlib.Path, rows: list[Any]) -> pathlib.Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def write_tone(path: pathlib.Path, samples: int, pitch_hz: float = 200.0) -> str:
  """A tone of so many samples at 16 kHz; returns the file's name."""
  time_s = np.arange(samples) / 16_000
  soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch_hz * time_s), 16_000)
  return path.name


def audio_row(name: str, path: str, question: str, answer: str) -> dict[str, Any]:
  content = [{"type": "audio", "path": path}, {"type": "text", "text": question}]
  return {
    "id": name,
    "messages": [
      {"role": "human", "content": content},
      {"role": "assistant", "content": answer},
    ],
  }


def text_row(name: str, question: str, answer: str) -> dict[str, Any]:
  return {
    "id": name,
    "messages": [
      {"role": "human", "content": question},
      {"role": "assistant", "content": answer},
    ],
  }


def pair_row(**changes: Any) -> dict[str, Any]:
  """A preference; a change to None takes the key away."""
  row = {
    "schema": "pref/1",
    "id": "p1",
    "task_id": "t1",
    "rater": "r1",
    "context": [{"role": "user", "content": "How fast?"}],
    "candidates": [
      {"cid": "x", "text": "Fast.", "think": "Six words.", "model": "sft"},
      {"cid": "y", "text": "Slow.", "model": "sft"},
    ],
    "overall": -2,
    "dims": {"naturalness": 1, "coherence": None},
    "scores": {"x": {"naturalness": 4.5}},
    "rubric": [{"text": "names the rate", "weight": 1}],
    "confidence": 0.7,
    "ts": 1_700_000_000,
    "order_seed": 3,
  }
  return {key: value for key, value in (row | changes).items() if value is not None}


class Encoder:
  """Stands for a model: frame u shows mel frame 4u, so that frames tell their clip."""

  def __init__(self):
    self.shapes: list[tuple[int, ...]] = []

  def __call__(self, mel_BLM, sample_count_B):
    self.shapes.append(mel_BLM.shape)
    frames_BUE = mel_BLM[:, : 4 * (mel_BLM.shape[1] // 4) : 4, :WIDTH]
    return frames_BUE, lengths.encoder_frames(sample_count_B)
