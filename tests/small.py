"""A model of a few thousand parameters and batches for it, for tests of the loop."""

import dataclasses

import numpy as np

from stepaudio_jax.core.types import Batch
from stepaudio_jax.models import sizes

SIZE = dataclasses.replace(
  sizes.size("tiny"),
  name="test",
  encoder_width=16,
  encoder_heads=2,
  encoder_layers=1,
  adaptor_width=16,
  width=16,
  ffn_width=24,
  heads=2,
  kv_heads=1,
  head_width=8,
  layers=2,
  vocabulary=32,
)


def dialogue_batch(seed: int = 0, rows: int = 4) -> Batch:
  """Rows of 20 tokens; each has one clip of 7 frames at tokens 2–5, ragged ends."""
  rng = np.random.default_rng(seed)
  token_BT = rng.integers(5, SIZE.vocabulary, size=(rows, 20)).astype(np.int32)
  audio_BT = np.full((rows, 20), -1, np.int32)
  audio_BT[:, 2:6] = np.arange(4)
  token_BT[:, 2:6] = 3  # the patch
  length_B = rng.integers(12, 21, size=rows)
  inside_BT = np.arange(20)[None] < length_B[:, None]
  loss_BT = inside_BT & (np.arange(20)[None] >= 9)
  frames_BRUE = rng.normal(size=(rows, 1, 8, SIZE.encoder_width)).astype(np.float32)
  return Batch(
    token_BT=np.where(inside_BT, token_BT, 0),
    segment_BT=inside_BT.astype(np.int32),
    position_BT=np.where(inside_BT, np.arange(20)[None], 0).astype(np.int32),
    loss_BT=loss_BT,
    example_BT=np.where(inside_BT, np.arange(rows)[:, None], -1).astype(np.int32),
    source_BT=np.where(inside_BT, 0, -1).astype(np.int32),
    frames_BRUE=frames_BRUE,
    frame_count_BR=np.full((rows, 1), 7, np.int32),
    audio_BT=audio_BT,
  )
