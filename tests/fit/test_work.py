"""Sums by hand on a decoder of two layers: width 8, 4 heads of 2, 2 of them with keys,
feed-forward 16, a vocabulary of 32."""

import dataclasses

from stepaudio_jax.fit import work
from stepaudio_jax.models import sizes

SIZE = dataclasses.replace(
  sizes.size("tiny"),
  width=8,
  ffn_width=16,
  heads=4,
  kv_heads=2,
  head_width=2,
  layers=2,
  vocabulary=32,
)
# query and out 8·8 each, key and value 8·4 each, gate, up and down 8·16 each.
LAYERS = 2 * (2 * 64 + 2 * 32 + 3 * 128)
HEAD = 8 * 32


def test_weights():
  assert work.weights(SIZE) == (LAYERS, HEAD)


def test_a_forward_pass():
  # 3 rows of 10: 50 pairs each; q·k and p·v take 2·2 flops for each of 8 numbers.
  pairs = 3 * 50 * 2 * 4 * 8
  assert work.decoded(SIZE, 3, 10, scored=7) == 2 * (LAYERS * 30 + HEAD * 7) + pairs


def test_a_reply_behind_a_prompt_and_its_next_token():
  pairs = (4 * 10 + 8) * 2 * 4 * 8  # 4 tokens see the 10 before, and half of 4 × 4
  whole = 2 * (LAYERS + HEAD) * 4 + pairs
  assert work.continued(SIZE, 1, 10, 4) == whole
  assert work.drawn(SIZE, 14) == 2 * (LAYERS + HEAD) + 14 * 2 * 4 * 8


def test_a_clip():
  tiny = sizes.size("tiny")  # 2 layers of 128 wide, 128 mel bins
  positions = 50
  convolutions = 100 * 3 * 128 * 128 + positions * 3 * 128 * 128
  layers = positions * 2 * (4 * 128 * 128 + 2 * 4 * 128 * 128)
  attention = 2 * 2 * 2 * positions**2 * 128
  assert work.encoded(tiny, 100) == 2 * (convolutions + layers) + attention
