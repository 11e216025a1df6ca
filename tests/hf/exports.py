"""A small random model, exported once, and prompts for it on both sides."""

import dataclasses
import functools

import jax
import numpy as np
import torch
from transformers import dynamic_module_utils

from stepaudio_jax import sampling
from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Array, Batch, Params
from stepaudio_jax.hf import table
from stepaudio_jax.models import sizes
from stepaudio_jax.models.step_audio import StepAudio

# All widths differ, and epsilon is large enough to matter.
SIZE = dataclasses.replace(
  sizes.size("tiny"),
  name="test",
  encoder_width=64,
  adaptor_width=80,
  width=96,
  ffn_width=160,
  heads=6,
  head_width=16,
  layers=3,
  vocabulary=1040,
  norm_eps=1e-3,
)
CARD = {
  "name": "a test",
  "license": "apache-2.0",
  "languages": ["en", "zh"],
  "summary": "Random weights.",
  "data": "None.",
  "scores": {"pitch": 0.96},
  "command": "python -m experiments.quickstart",
}


def random_params(size: sizes.Size, seed: int) -> Params:
  """No bias is 0 and no scale 1, so that a forgotten one shows.

  Logits stay near 1: float32 leaves 2e-6 of their size, and tests ask for 1e-5.
  """
  generator = np.random.default_rng(seed)
  out: Params = {}
  for path, shape in table.our_shapes(size).items():
    *rooms, last = path.split("/")
    node = out
    for room in rooms:
      node = node.setdefault(room, {})
    std = {"kernel": 0.12, "embedding": 1.0}.get(last, 0.1)
    std = 0.03 if path == "decoder/head/kernel" else std
    noise = generator.normal(0.0, std, shape)
    node[last] = (noise + (last == "scale")).astype(np.float32)
  return out


@dataclasses.dataclass(frozen=True)
class Prompt:
  """Token ids with their audio patches, and the log-mel [M, L + 2] of every clip."""

  ids: list[int]
  mels: list[np.ndarray]

  @property
  def frames(self) -> list[int]:
    """Valid frames of every clip."""
    return [mel.shape[1] - 2 for mel in self.mels]


def prompt(special, valid_frames: tuple[int, ...], seed: int) -> Prompt:
  """Text, then clips of so many valid frames with a text token between, then text."""
  generator = np.random.default_rng(seed)

  def words(count):
    return generator.integers(300, 900, count).tolist()

  ids, mels = [special.bot, *words(3 + seed % 4)], []
  for frames in valid_frames:
    patches = [special.audio_patch] * lengths.audio_tokens(160 * frames)
    ids += [special.audio_start, *patches, special.audio_end, *words(1)]
    mels.append(generator.normal(0, 0.5, (SIZE.mel_bins, frames + 2)))
  return Prompt([*ids, *words(2)], [mel.astype(np.float32) for mel in mels])


def torch_inputs(prompts: list[Prompt], pad: int) -> dict[str, torch.Tensor]:
  """Rows padded on the left, clips of all rows one after another."""
  width = max(len(p.ids) for p in prompts)
  rows = [[pad] * (width - len(p.ids)) + p.ids for p in prompts]
  masks = [[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in prompts]
  out = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
  mels = [mel for p in prompts for mel in p.mels]
  if mels:
    longest = max(mel.shape[1] for mel in mels)
    padded = [np.pad(mel, ((0, 0), (0, longest - mel.shape[1]))) for mel in mels]
    out["wavs"] = torch.from_numpy(np.stack(padded))
    out["wav_lens"] = torch.tensor([f for p in prompts for f in p.frames])
  return out


def our_logits(params: Params, prompts: list[Prompt], length: int) -> np.ndarray:
  """[B, length, V] by our model, rows padded on the right."""
  return np.asarray(_logits(params, _batch(params, prompts, length)))


def our_greedy(params: Params, prompts: list[Prompt], new: int) -> list[list[int]]:
  """The first tokens of our replies; nothing stops them (seen, not enforced)."""
  never = SIZE.vocabulary - 1
  longest = max(len(p.ids) for p in prompts)
  rollout = sampling.sample(
    params,
    _batch(params, prompts, longest),
    jax.random.key(0),
    model=StepAudio(SIZE),
    max_new_tokens=new,
    temperature=0.0,
    stop_ids=(never,),
    pad_id=never,
  )
  assert never not in np.asarray(rollout.token_BT)
  return rollout.token_BT.tolist()


@jax.jit
def _logits(params: Params, batch: Batch) -> Array:
  return StepAudio(SIZE).apply({"params": params}, batch)


@functools.partial(jax.jit, static_argnames="frames")
def _encoded(params: Params, mel_BLM, count_B, frames: int):
  encoded = StepAudio(SIZE).apply({"params": params}, mel_BLM, count_B, method="encode")
  return encoded[0][:, :frames], encoded[1]


def _batch(params: Params, prompts: list[Prompt], length: int) -> Batch:
  rows, clips = len(prompts), max(len(p.mels) for p in prompts)
  frames = 64
  token_BT, segment_BT, position_BT = np.zeros((3, rows, length), np.int32)
  audio_BT = np.full((rows, length), -1, np.int32)
  frames_BRUE = np.zeros((rows, clips, frames, SIZE.encoder_width), np.float32)
  count_BR = np.zeros((rows, clips), np.int32)
  for b, p in enumerate(prompts):
    token_BT[b, : len(p.ids)] = p.ids
    segment_BT[b, : len(p.ids)] = 1
    position_BT[b, : len(p.ids)] = np.arange(len(p.ids))
    sources = []
    for r, mel in enumerate(p.mels):
      mel_BLM = np.zeros((1, 4 * frames, SIZE.mel_bins), np.float32)
      mel_BLM[0, : mel.shape[1]] = mel.T
      samples_B = np.asarray([160 * p.frames[r]], np.int32)
      (frames_BRUE[b, r],), (count_BR[b, r],) = _encoded(
        params, mel_BLM, samples_B, frames
      )
      tokens = int(lengths.adaptor_tokens(count_BR[b, r]))
      sources += (r * (frames // 2) + np.arange(tokens)).tolist()
    patch = max(set(p.ids), key=p.ids.count) if p.mels else -1
    audio_BT[b, np.flatnonzero(token_BT[b] == patch)] = sources
  none_BT = np.full((rows, length), -1, np.int32)
  return Batch(
    token_BT=token_BT,
    segment_BT=segment_BT,
    position_BT=position_BT,
    loss_BT=segment_BT > 0,
    example_BT=none_BT,
    source_BT=none_BT,
    frames_BRUE=frames_BRUE,
    frame_count_BR=count_BR,
    audio_BT=audio_BT,
  )


def own_module_cache(monkeypatch, folder) -> None:
  """transformers copies remote code to a cache; not to the person's."""
  monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
