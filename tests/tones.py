"""Eight tones and dialogues about them: a world that needs no speech synthesis."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import soundfile

from stepaudio_jax import checkpoint, workdirs
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.text import tokenizer
from tests import small

LITTLE = dataclasses.replace(small.SIZE, name="tiny", vocabulary=1024)
CHOICES = ["low", "high"]


def world(folder: pathlib.Path) -> pathlib.Path:
  """Writes prompts-train.jsonl, prompts-heldout.jsonl and preferences-train.jsonl."""
  time_N = np.arange(16_000) / 16_000
  for i in range(8):
    tone_N = 0.3 * np.sin(2 * np.pi * (200 if i % 2 == 0 else 600) * time_N)
    soundfile.write(folder / f"{i}.wav", tone_N, 16_000)
  for split, places in {"train": range(6), "heldout": range(4, 8)}.items():
    write(folder / f"prompts-{split}.jsonl", [talk(split, i) for i in places])
  write(folder / "preferences-train.jsonl", [preference(i) for i in range(6)])
  return folder


def write(path: pathlib.Path, rows: list[dict]) -> None:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def heard(i: int) -> list[dict]:
  blocks = [{"type": "audio", "path": f"{i}.wav"}, {"type": "text", "text": "Pitch?"}]
  return [{"role": "human", "content": blocks}]


def talk(split: str, i: int) -> dict:
  pitch = CHOICES[i % 2]
  reply = {"role": "assistant", "think": "I hear it.", "content": f"It is {pitch}."}
  messages = [*heard(i), reply]
  row = {"id": f"{split}-{i}", "messages": messages, "answer": pitch}
  return {**row, "choices": CHOICES}


def preference(i: int) -> dict:
  return {
    "schema": "pref/1",
    "id": f"pref-{i}",
    "task_id": f"train-{i}",
    "rater": "sim-00",
    "context": heard(i),
    "candidates": [
      {"cid": cid, "text": f"It is {pitch}.", "think": "I hear it.", "model": "written"}
      for cid, pitch in zip("ab", CHOICES, strict=True)
    ],
    "overall": -2 if i % 2 == 0 else 2,
    "dims": {"correctness": -3 if i % 2 == 0 else 3, "naturalness": None},
    "ts": 0,
    "order_seed": i,
  }


def policy(folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
  """A checkpoint of a model with random weights, as SFT would leave it."""
  params = step_audio.init_params(jax.random.key(seed), LITTLE)
  return saved(folder, params)


def reward_model(folder: pathlib.Path, dimensions: tuple[str, ...]) -> pathlib.Path:
  """A reward model with random weights that hears as `policy` does."""
  params = dict(step_audio.init_params(jax.random.key(0), LITTLE))
  params["rewards"] = heads.init_rewards(
    jax.random.key(1), LITTLE.width, len(dimensions)
  )
  saved(folder, params)
  workdirs.describe_rewards(folder, dimensions, ())
  return folder


def saved(folder: pathlib.Path, params: dict, step: int = 1) -> pathlib.Path:
  zero = np.zeros((), np.int32)
  state = TrainState(params, {}, (), zero, np.zeros(2, np.uint32))
  checkpoints = checkpoint.Checkpoints(folder, every_steps=1, keep=2)
  checkpoints.save(step, state, {})
  checkpoints.close()
  workdirs.describe(folder, LITTLE, tokenizer.load("tiny"))
  return folder
