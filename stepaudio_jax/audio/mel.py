"""Log-mel features of one chunk, as Whisper's 128-band front end makes them.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (2022),
§2.2. Host side and float64 inside: 5e-5 is as close as any numpy comes to the float32
torch path that the checkpoints were trained with.
"""

import functools

import numpy as np

from stepaudio_jax.core.lengths import (
  HOP,
  LONGEST_SAMPLES,
  SAMPLE_RATE,
  SHORTEST_SAMPLES,
  padded_frames,
)

WINDOW = 400  # samples of the FFT and of its periodic Hann window: 25 ms
REFLECTED = WINDOW // 2  # samples mirrored at both ends, so that frame 0 is centred
TAIL = 479  # zero samples after the chunk, before mirroring
MEL_BINS = 128  # triangular bands, Slaney scale and Slaney norm (equal area)
LOWEST_HZ = 0.0
HIGHEST_HZ = 8000.0
POWER_FLOOR = 1e-10  # power below which the logarithm is clamped
LOG_RANGE = 8.0  # log10 units (80 dB) kept below the chunk's loudest value
LOG_SHIFT = 4.0  # log10 units added, then divided by, to land near [-1, 1]
# Frames transformed at a time: they fit the cache, and their product with the filters
# is so small that BLAS gives it to no other threads, which cost more than it does.
BLOCK_FRAMES = 8


@functools.cache
def mel_filters() -> np.ndarray:
  """float64 [WINDOW // 2 + 1, MEL_BINS], one column of weights a band (read-only)."""
  import librosa  # 1.5 s to import, and only this table needs it

  filters = librosa.filters.mel(
    sr=SAMPLE_RATE,
    n_fft=WINDOW,
    n_mels=MEL_BINS,
    fmin=LOWEST_HZ,
    fmax=HIGHEST_HZ,
    htk=False,
    norm="slaney",
    dtype=np.float64,
  )
  filters = np.ascontiguousarray(filters.T)
  filters.flags.writeable = False
  return filters


def log_mel(samples_N: np.ndarray) -> np.ndarray:
  """The spectrogram of one chunk: float32 [padded_frames(N), MEL_BINS], time first.

  The loudness range is cut at the chunk's own maximum, so a clip split elsewhere has
  other features. Frames beyond the padded length are the batcher's: literal 0.

  Args:
    samples_N: float samples at 16 kHz, full scale ±1, 321 to 479,680 of them.

  Raises:
    ValueError: not one row of finite floats, too short or too long.
  """
  _check(samples_N)
  frame_LN = _frames(samples_N)
  log_LM = np.empty((len(frame_LN), MEL_BINS))
  for start in range(0, len(frame_LN), BLOCK_FRAMES):
    block = slice(start, start + BLOCK_FRAMES)
    spectrum = np.fft.rfft(frame_LN[block] * _hann())
    mel_LM = (spectrum.real**2 + spectrum.imag**2) @ mel_filters()
    log_LM[block] = np.log10(np.maximum(mel_LM, POWER_FLOOR))
  np.maximum(log_LM, log_LM.max() - LOG_RANGE, out=log_LM)
  log_LM += LOG_SHIFT
  log_LM /= LOG_SHIFT
  return log_LM.astype(np.float32)


def _frames(samples_N: np.ndarray) -> np.ndarray:
  """Views [padded_frames(N), WINDOW] of the padded samples, one every HOP."""
  mirrored = samples_N[REFLECTED:0:-1]
  after = np.zeros(TAIL + REFLECTED, samples_N.dtype)  # zeros mirror zeros: TAIL > 200
  padded = np.concatenate([mirrored, samples_N, after])
  windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
  return windows[: padded_frames(len(samples_N))]


@functools.cache
def _hann() -> np.ndarray:
  return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def _check(samples_N: np.ndarray) -> None:
  if samples_N.ndim != 1:
    raise ValueError(
      f"samples of shape {samples_N.shape}: one row of mono samples is needed"
    )
  if not np.issubdtype(samples_N.dtype, np.floating):
    raise ValueError(f"{samples_N.dtype} samples: floats of full scale ±1 are needed")
  if len(samples_N) < SHORTEST_SAMPLES:
    raise ValueError(
      f"{len(samples_N)} samples are too short: {SHORTEST_SAMPLES} give the first "
      "audio token"
    )
  if len(samples_N) > LONGEST_SAMPLES:
    raise ValueError(
      f"{len(samples_N)} samples overflow the encoder's positions: at most "
      f"{LONGEST_SAMPLES}, cut longer audio with audio.io.chunks"
    )
  finite_N = np.isfinite(samples_N)
  if not finite_N.all():
    raise ValueError(
      f"{np.count_nonzero(~finite_N)} of {len(samples_N)} samples are NaN or infinite, "
      f"the first at {np.argmin(finite_N)}"
    )
