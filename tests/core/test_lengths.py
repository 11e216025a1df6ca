"""Token counts by walking through the layers, for every clip that fits a chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from stepaudio_jax.core import lengths

EVERY_N = np.arange(lengths.SHORTEST_SAMPLES, lengths.LONGEST_SAMPLES + 1)


def slid(length, kernel, stride, padding=0):
  """Places of a kernel over `length` inputs: torch's output-size formula."""
  return (length + 2 * padding - kernel) // stride + 1


def walked_frames(samples):
  """Rows of the spectrogram: 479 zeros, 200 mirrored at each end, last frame off."""
  return slid(samples + 479, kernel=400, stride=160, padding=200) - 1


def walked_encoder_frames(valid_frames):
  conv1 = slid(valid_frames, kernel=3, stride=1, padding=1)
  conv2 = slid(conv1, kernel=3, stride=2, padding=1)
  return slid(conv2, kernel=2, stride=2)


def walked_tokens(samples):
  """Both convolutions, the pool and the adaptor over the valid frames."""
  encoder = walked_encoder_frames(walked_frames(samples) - 2)
  return slid(encoder, kernel=3, stride=2, padding=1)


def test_every_length_up_to_thirty_seconds():
  np.testing.assert_array_equal(lengths.padded_frames(EVERY_N), walked_frames(EVERY_N))
  np.testing.assert_array_equal(
    lengths.encoder_frames(EVERY_N), walked_encoder_frames(walked_frames(EVERY_N) - 2)
  )
  np.testing.assert_array_equal(lengths.audio_tokens(EVERY_N), walked_tokens(EVERY_N))


def test_valid_frames_are_the_hops_that_begin_inside_the_clip():
  np.testing.assert_array_equal(
    lengths.padded_frames(EVERY_N) - 2, lengths.mel_frames(EVERY_N)
  )
  for samples in [321, 479, 480, 481, 16_000, 479_679, 479_680]:
    assert lengths.mel_frames(samples) == len(range(0, samples, 160))


@pytest.mark.parametrize(
  ("seconds", "tokens"), [(1, 13), (5, 63), (10, 125), (25, 313)]
)
def test_token_counts_of_the_published_models(seconds, tokens):
  assert lengths.audio_tokens(seconds * lengths.SAMPLE_RATE) == tokens


def test_the_bounds_are_the_outermost_lengths_that_work():
  # 320 samples: 2 mel frames, 1 convolved, 0 pooled. 321: 3, 2, 1 and one token.
  assert lengths.audio_tokens(320) == walked_tokens(320) == 0
  assert lengths.audio_tokens(lengths.SHORTEST_SAMPLES) == 1
  # 1500 positions hold 3000 padded frames, and the next sample makes 3001.
  assert lengths.padded_frames(lengths.LONGEST_SAMPLES) == 3000
  assert lengths.padded_frames(lengths.LONGEST_SAMPLES + 1) == 3001


@pytest.mark.parametrize(
  "samples", [321, 322, 640, 801, 1_000, 12_345, 16_000, 479_680]
)
def test_torch_layers_give_as_many(samples):
  valid = torch.zeros(1, 1, len(range(0, samples, 160)))
  with torch.no_grad():
    x = torch.nn.Conv1d(1, 1, 3, padding=1)(valid)
    x = torch.nn.Conv1d(1, 1, 3, stride=2, padding=1)(x)
    encoder = torch.nn.AvgPool1d(2, stride=2)(x)
    tokens = torch.nn.Conv1d(1, 1, 3, stride=2, padding=1)(encoder)
  assert lengths.encoder_frames(samples) == encoder.shape[-1]
  assert lengths.audio_tokens(samples) == tokens.shape[-1]
  assert lengths.adaptor_tokens(encoder.shape[-1]) == tokens.shape[-1]


def test_traced_lengths_stay_int32_and_equal():
  samples = np.array([321, 16_000, 400_000, 479_680], np.int32)
  traced = jax.jit(lengths.audio_tokens)(jnp.asarray(samples))
  assert traced.dtype == jnp.int32
  np.testing.assert_array_equal(traced, lengths.audio_tokens(samples))
