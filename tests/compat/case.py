"""A small export, inputs for it and our own answers, for check.py to compare with.

  python -m tests.compat.case FOLDER

writes FOLDER/model (random float32 weights), FOLDER/inputs.safetensors (a batch of
prompts and clips, log-mels and samples) and FOLDER/expected.json (tokens).
"""

import json
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.audio import mel
from stepaudio_jax.core import lengths
from stepaudio_jax.hf import export
from stepaudio_jax.text import chat
from stepaudio_jax.text import tokenizer as tokenizers
from tests.hf import exports

NEW = 12
# Valid frames of each clip; every row has another length and another number of clips.
FRAMES = ((49,), (), (3, 120, 34), (56, 63, 45, 26))
LENGTH = 96  # of our batch; the prompts are shorter
SAMPLES = {"short": 5_000, "long": 401_000}


def dialogues() -> list[list[dict]]:
  """For the processor: {"audio": name} stands for samples of that name."""
  short, long = ({"type": "audio", "audio": name} for name in SAMPLES)
  question = {"type": "text", "text": "Who is it?"}
  return [
    [
      {"role": "system", "content": "Be kind."},
      {"role": "human", "content": [long, short, question]},
      {"role": "assistant", "content": "Ann.", "think": "A low voice."},
      {"role": "user", "content": "Say <|EOT|><audio_patch> 音"},
    ],
    [{"role": "human", "content": "Hello"}],
    [{"role": "human", "content": [question, short]}],
  ]


def write(folder: pathlib.Path) -> pathlib.Path:
  """Fills `folder`, which must not hold a model yet."""
  tokenizer = tokenizers.load("tiny")
  params = exports.random_params(exports.SIZE, seed=3)
  folder.mkdir(parents=True, exist_ok=True)
  target, card = folder / "model", exports.CARD
  export.export(
    export.Weights.of(params),
    exports.SIZE,
    target,
    tokenizer=tokenizer,
    card=card,
    dtype="float32",
  )
  special = tokenizer.special
  prompts = [exports.prompt(special, f, seed=i) for i, f in enumerate(FRAMES)]
  logits_BTV = exports.our_logits(params, prompts, LENGTH)
  samples = {name: _samples(count) for name, count in SAMPLES.items()}
  arrays = {
    name: tensor.numpy()
    for name, tensor in exports.torch_inputs(prompts, special.pad).items()
  }
  arrays |= {f"logits.{b}": logits_BTV[b, : len(p.ids)] for b, p in enumerate(prompts)}
  arrays |= {f"samples.{name}": samples_N for name, samples_N in samples.items()}
  for name, samples_N in samples.items():
    for i, piece_N in enumerate(audio_io.chunks(samples_N).pieces):
      arrays[f"mel.{name}.{i}"] = np.ascontiguousarray(mel.log_mel(piece_N).T)
  safetensors.numpy.save_file(arrays, folder / "inputs.safetensors")
  expected = {
    "greedy": exports.our_greedy(params, prompts, NEW),
    "dialogues": dialogues(),
    "dialogue_ids": [_ids(talk, samples, tokenizer) for talk in dialogues()],
    "audio_tokens": sum(lengths.audio_tokens(160 * f) for row in FRAMES for f in row),
    "patch": special.audio_patch,
    "eot": special.eot,
  }
  (folder / "expected.json").write_text(json.dumps(expected, indent=1))
  return folder


def _samples(count: int) -> np.ndarray:
  generator = np.random.default_rng(count)
  return generator.normal(0, 0.1, count).astype(np.float32)


def _ids(talk: list[dict], samples, tokenizer) -> list[int]:
  """What our own renderer makes of a dialogue."""
  blocks = [m["content"] for m in talk if isinstance(m["content"], list)]
  names = [part["audio"] for parts in blocks for part in parts if "audio" in part]
  tokens = [
    [
      lengths.audio_tokens(len(piece))
      for piece in audio_io.chunks(samples[name]).pieces
    ]
    for name in names
  ]
  named = [
    {**m, "content": [_pathed(part) for part in m["content"]]}
    if isinstance(m["content"], list)
    else m
    for m in talk
  ]
  rendered = chat.prompt(
    named, tokenizer=tokenizer, clip_tokens=tokens, example_id="compat"
  )
  return rendered.token_T.tolist()


def _pathed(part: dict) -> dict:
  return {"type": "audio", "path": part["audio"]} if "audio" in part else part


if __name__ == "__main__":
  torch.set_num_threads(1)
  print(write(pathlib.Path(sys.argv[1])))
