"""A hand-made world of noise clips and a model of random weights, for tests."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import soundfile

from stepaudio_jax import checkpoint, workdirs
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.models import sizes
from stepaudio_jax.text import tokenizer as tokenizers
from tests.models.batches import random_params

SIZE = dataclasses.replace(
  sizes.size("tiny"),
  name="test",
  encoder_width=32,
  encoder_layers=1,
  adaptor_width=48,
  width=32,
  ffn_width=48,
  heads=2,
  kv_heads=1,
  head_width=16,
  layers=1,
  max_positions=512,
)
STEP = 7
PITCHES = ["low", "middle", "high"]
# (id, samples, question, right answer): three lengths, so three silences.
CLIPS = (
  ("c0", 8_000, "low"),
  ("c1", 8_000, "high"),
  ("c2", 12_345, "high"),
  ("c3", 10_000, "middle"),
)


def model(seed: int = 0) -> workdirs.Model:
  return workdirs.Model(random_params(SIZE, seed), SIZE, tokenizers.load("tiny"))


def write_checkpoint(workdir: pathlib.Path) -> pathlib.Path:
  """`model()` as a run of STEP steps leaves it."""
  made = model()
  key = jax.random.key_data(jax.random.key(0))
  decoder = {"decoder": made.params["decoder"]}
  frozen = {part: made.params[part] for part in ("encoder", "adaptor")}
  saved = checkpoint.Checkpoints(workdir, every_steps=1, keep=1)
  saved.save(STEP, TrainState(decoder, frozen, {}, jnp.int32(STEP), key), {})
  saved.close()
  workdirs.describe(workdir, made.size, made.tokenizer)
  return workdir


def write_noise(path: pathlib.Path, samples: int, seed: int) -> pathlib.Path:
  noise_N = 0.1 * np.random.default_rng(seed).normal(size=samples)
  soundfile.write(path, noise_N, 16_000)
  return path


def row(name: str, clip: str, question: str, answer: str) -> dict[str, Any]:
  """One question about one clip."""
  content = [{"type": "audio", "path": f"speech/{clip}.wav"}, text(question)]
  reply = {"role": "assistant", "content": [text(f"It is {answer}.")]}
  return {"id": name, "messages": [{"role": "human", "content": content}, reply]}


def text(words: str) -> dict[str, str]:
  return {"type": "text", "text": words}


def truth(name: str, task: str, answer: str, choices: Any = None) -> dict[str, Any]:
  """What gold listeners read, as data/world/tasks.py writes it."""
  out = {"id": name, "task": task, "answer": answer, "slot": None}
  out |= {"choices": choices} if choices else {}
  facts = {"instruction": None, "emotion": "neutral", "facts": [], "clips": []}
  return out | facts | {"turns": 1, "simulated": True}


def write_jsonl(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def write_world(folder: pathlib.Path) -> pathlib.Path:
  """Four pitch dialogues, one of digits with an earlier turn, one far too long."""
  (folder / "speech").mkdir(parents=True)
  for seed, (clip, samples, _) in enumerate(CLIPS):
    write_noise(folder / "speech" / f"{clip}.wav", samples, seed)
  rows = [row(f"p-{clip}", clip, "How high?", label) for clip, _, label in CLIPS]
  truths = [truth(f"p-{clip}", "pitch", label, PITCHES) for clip, _, label in CLIPS]
  before = row("", "c1", "How high?", "high")["messages"]
  before[1]["think"] = "A bright voice."
  said = row("d-0", "c0", "Which digits?", "two nine")
  rows.append({**said, "messages": [*before, *said["messages"]]})
  truths.append(truth("d-0", "digits", "two nine"))
  rows.append(row("p-long", "c0", "How high? " * 400, "low"))
  truths.append(truth("p-long", "pitch", "low", PITCHES))
  write_jsonl(folder / "dialogues-heldout.jsonl", rows)
  # The order of truths is their own business.
  write_jsonl(folder / "truth-heldout.jsonl", truths[::-1])
  return folder
