"""Small models and batches made by hand."""

import dataclasses

import numpy as np

from stepaudio_jax.core import lengths
from stepaudio_jax.core.tree import named_leaves
from stepaudio_jax.core.types import Batch, Params
from stepaudio_jax.models import sizes
from stepaudio_jax.models.step_audio import abstract_params

# Width, heads × head width and FFN all differ, and epsilon is large enough to matter.
SIZE = dataclasses.replace(
  sizes.size("tiny"),
  name="test",
  mel_bins=16,
  encoder_width=32,
  encoder_heads=2,
  adaptor_width=48,
  width=24,
  ffn_width=40,
  heads=4,
  kv_heads=2,
  head_width=16,
  layers=3,
  vocabulary=97,
  max_positions=256,
  norm_eps=1e-3,
)


def random_params(size: sizes.Size, seed: int) -> Params:
  """No bias is 0 and no scale 1, so that a forgotten one shows."""
  generator = np.random.default_rng(seed)
  out: Params = {}
  for name, leaf in named_leaves(abstract_params(size)):
    *folders, last = name.split("/")
    node = out
    for folder in folders:
      node = node.setdefault(folder, {})
    std = {"kernel": 0.2, "embedding": 1.0}.get(last, 0.1)
    noise = generator.normal(0.0, std, leaf.shape)
    node[last] = (noise + (last == "scale")).astype(np.float32)
  return out


def text_batch(*rows: list[list[int]]) -> Batch:
  """Text alone; each row lists the segments packed into it."""
  length = max(sum(map(len, row)) for row in rows)
  token_BT, segment_BT, position_BT = np.zeros((3, len(rows), length), np.int32)
  for b, row in enumerate(rows):
    start = 0
    for number, segment in enumerate(row, start=1):
      stop = start + len(segment)
      token_BT[b, start:stop] = segment
      segment_BT[b, start:stop] = number
      position_BT[b, start:stop] = np.arange(len(segment))
      start = stop
  return Batch(
    token_BT=token_BT,
    segment_BT=segment_BT,
    position_BT=position_BT,
    loss_BT=segment_BT > 0,
    example_BT=np.where(segment_BT > 0, segment_BT - 1, -1).astype(np.int32),
    source_BT=np.where(segment_BT > 0, 0, -1).astype(np.int32),
    frames_BRUE=np.zeros((len(rows), 0, 0, SIZE.encoder_width), np.float32),
    frame_count_BR=np.zeros((len(rows), 0), np.int32),
    audio_BT=np.full(token_BT.shape, -1, np.int32),
  )


def speech_batch(row_lengths: tuple[int, ...], seed: int, size=SIZE) -> Batch:
  """Rows of random text with up to two clips in each, the first row with none.

  A row is: 2 text tokens, clip 0's tokens, 1 text token, clip 1's tokens, text.
  """
  generator = np.random.default_rng(seed)
  batch = text_batch(
    *[[generator.integers(1, size.vocabulary, n).tolist()] for n in row_lengths]
  )
  rows, clips, frames = len(row_lengths), 2, 10
  count_BR = generator.integers(1, frames + 1, (rows, clips)).astype(np.int32)
  count_BR[0] = 0
  frames_BRUE = generator.normal(size=(rows, clips, frames, size.encoder_width))
  read_BR = 2 * lengths.adaptor_tokens(count_BR)
  frames_BRUE *= np.arange(frames)[:, None] < read_BR[..., None, None]
  audio_BT = batch.audio_BT
  for b in range(rows):
    start = 2
    for r in range(clips):
      tokens = int(lengths.adaptor_tokens(count_BR[b, r]))
      audio_BT[b, start : start + tokens] = r * (frames // 2) + np.arange(tokens)
      start += tokens + 1
    assert start < row_lengths[b], "the row is too short for its clips"
  return dataclasses.replace(
    batch, frames_BRUE=frames_BRUE.astype(np.float32), frame_count_BR=count_BR
  )
