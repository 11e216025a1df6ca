"""Rooms and noise for dry speech; numpy only, every choice from the given Generator."""

import numpy as np

_FIRST_REFLECTION_S = 0.005
_TAIL_TO_DIRECT_DB = -3.0  # a talker about a metre away in a furnished room
_PINK_FROM_HZ = 50.0  # flat below, or most of the power would be inaudible


def room(reverb_s: float, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
  """An impulse response of unit energy: direct sound, then decaying noise.

  Args:
    reverb_s: the time in which the tail falls by 60 dB (RT60).
  """
  time_s = np.arange(round(reverb_s * sample_rate)) / sample_rate
  tail = rng.standard_normal(time_s.size) * 10 ** (-3 * time_s / reverb_s)
  tail[time_s < _FIRST_REFLECTION_S] = 0.0
  energy = np.sum(tail**2)
  if energy > 0:
    tail *= np.sqrt(10 ** (_TAIL_TO_DIRECT_DB / 10) / energy)
  response = np.concatenate([[1.0], tail])
  return response / np.sqrt(np.sum(response**2))


def convolve(x_N: np.ndarray, response_N: np.ndarray) -> np.ndarray:
  """Full convolution by FFT, len(x) + len(response) − 1 samples."""
  length = x_N.size + response_N.size - 1
  size = 1 << (length - 1).bit_length()
  product = np.fft.rfft(x_N, size) * np.fft.rfft(response_N, size)
  return np.fft.irfft(product, size)[:length]


def noise(
  count: int, colour: str, sample_rate: int, rng: np.random.Generator
) -> np.ndarray:
  """Noise of RMS 1; "white", or "pink" with power falling as 1/f from 50 Hz."""
  x_N = rng.standard_normal(count)
  if colour == "pink":
    frequency = np.fft.rfftfreq(count, 1 / sample_rate)
    spectrum = np.fft.rfft(x_N) / np.sqrt(np.maximum(frequency, _PINK_FROM_HZ))
    x_N = np.fft.irfft(spectrum, count)
  elif colour != "white":
    raise ValueError(f"unknown noise colour {colour!r}; there are white, pink")
  return x_N / np.sqrt(np.mean(x_N**2))
