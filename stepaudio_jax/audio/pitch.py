"""Speech without its melody: the voice at one pitch, all else as it was. Numpy only.

For the question whether a model hears intonation: the same words at the same times,
as loud as before, but monotone. TD-PSOLA (Moulines and Charpentier, Speech
Communication 9, 1990): two-period pieces of the recording, one around each glottal
pulse, are laid down at a constant distance. No piece is stretched, so formants, and
with them vowels and the speaker's timbre, stay. What is not voiced is not touched.

The F0 track is librosa's pyin, 10 ms apart and 0.2 semitones fine: on one core it takes
3 % of real time and all of this 4 % (at 0.1 semitones the track alone takes 9 %; yin
0.2 %, but without a decision what is voiced).
A vocoder would do it as well; those that can be had (WORLD) resynthesise every sample,
noise and pauses too, and need a C++ compiler.
"""

import librosa
import numpy as np

from stepaudio_jax.core.lengths import SAMPLE_RATE

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
HOP = 160  # samples between frames of the F0 track
_FRAME_LENGTH = 1024  # holds nearly four periods of the lowest voice
_RESOLUTION = 0.2  # semitones
_PIECE_FRAMES, _MARGIN_FRAMES = 2000, 20  # tracked at a time, so that hours fit
_SEARCH = 0.2  # of a period: how far a pulse may lie from where the F0 has it
_LOUDNESS_S = 0.03  # over which loudness is compared and put right
_GAIN = (0.25, 4.0)


def flattened(samples_N: np.ndarray, f0_hz: float | None = None) -> np.ndarray:
  """The clip with its voiced speech at one pitch, sample for sample as long.

  Args:
    samples_N: float32 at 16 kHz.
    f0_hz: the pitch; None is the median of the clip's own.

  Returns:
    float32; all samples outside voiced speech are the clip's own, bit for bit.

  Raises:
    ValueError: several channels, other numbers than float32, NaN or infinite samples,
      or a pitch that no voice has.
  """
  _check(samples_N, f0_hz)
  f0_L = track(samples_N)
  out_N = samples_N.copy()
  if np.isnan(f0_L).all():
    return out_N
  target = SAMPLE_RATE / (np.nanmedian(f0_L) if f0_hz is None else f0_hz)
  for start, end in _stretches(f0_L):
    _flatten(samples_N, out_N, f0_L[start:end], start, target)
  return out_N


def track(samples_N: np.ndarray) -> np.ndarray:
  """f0_L in Hz, one for every HOP samples; NaN where nothing is voiced."""
  frames = len(samples_N) // HOP + 1
  tracked = []
  for start in range(0, frames, _PIECE_FRAMES):
    before = min(start, _MARGIN_FRAMES)
    end = start + _PIECE_FRAMES
    piece = samples_N[HOP * (start - before) : HOP * (end + _MARGIN_FRAMES)]
    f0_L, _, _ = librosa.pyin(
      piece,
      fmin=LOWEST_HZ,
      fmax=HIGHEST_HZ,
      sr=SAMPLE_RATE,
      frame_length=_FRAME_LENGTH,
      hop_length=HOP,
      resolution=_RESOLUTION,
    )
    tracked.append(f0_L[before : before + min(_PIECE_FRAMES, frames - start)])
  return np.concatenate(tracked)


def _check(samples_N: np.ndarray, f0_hz: float | None) -> None:
  if samples_N.ndim != 1 or samples_N.dtype != np.float32:
    raise ValueError(
      f"wants one channel of float32 samples, not {samples_N.dtype} of shape "
      f"{samples_N.shape}"
    )
  if not np.isfinite(samples_N).all():
    raise ValueError("the clip holds NaN or infinite samples")
  if f0_hz is not None and not LOWEST_HZ <= f0_hz <= HIGHEST_HZ:
    raise ValueError(f"f0_hz={f0_hz} is not in [{LOWEST_HZ:g}, {HIGHEST_HZ:g}]")


def _stretches(f0_L: np.ndarray) -> list[tuple[int, int]]:
  """(first frame, one past the last) of each voiced stretch."""
  voiced_L = np.concatenate([[False], ~np.isnan(f0_L), [False]])
  edges = np.flatnonzero(voiced_L[1:] != voiced_L[:-1])
  return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _flatten(
  samples_N: np.ndarray, out_N: np.ndarray, f0_L: np.ndarray, start: int, target: float
) -> None:
  """Writes one voiced stretch into `out_N`, faded in and out over a period.

  Args:
    f0_L: of the stretch's frames, the first of them number `start`.
    target: the wanted period, in samples.
  """
  marks = _marks(samples_N, f0_L, start)
  if len(marks) < 4:
    return
  sung_N, weight_N, begin = _monotone(samples_N, marks, target)
  place = slice(begin, begin + len(sung_N))
  dry_N = samples_N[place].astype(np.float64)
  mixed_N = weight_N * sung_N + (1 - weight_N) * dry_N
  gain_N = np.sqrt((_power(dry_N) + 1e-12) / (_power(mixed_N) + 1e-12))
  sung_N *= np.clip(gain_N, *_GAIN)
  mixed_N = weight_N * sung_N + (1 - weight_N) * dry_N
  # Pulses that now add up may pass full scale where the recording did not.
  peak = max(1.0, float(np.abs(dry_N).max()))
  touched_N = weight_N > 0
  out_N[place][touched_N] = np.clip(mixed_N, -peak, peak)[touched_N]


def _marks(samples_N: np.ndarray, f0_L: np.ndarray, start: int) -> list[int]:
  """Samples one period apart: the same point of each pulse of a voiced stretch.

  From its loudest sample on, in both directions: each next one is where the waveform
  is most like that around the one before.
  """
  first, last = HOP * start, min(HOP * (start + len(f0_L) - 1), len(samples_N) - 1)
  period_L = SAMPLE_RATE / f0_L
  frame_L = HOP * (start + np.arange(len(f0_L)))

  def walk(mark: int, way: int) -> list[int]:
    found = []
    while True:
      period = round(float(np.interp(mark, frame_L, period_L)))
      nearest = _most_alike(samples_N, mark, mark + way * period, period)
      if nearest is None or not first <= nearest <= last:
        return found
      found.append(nearest)
      mark = nearest

  loudest = first + int(np.argmax(np.abs(samples_N[first : last + 1])))
  return [*walk(loudest, -1)[::-1], loudest, *walk(loudest, 1)]


def _most_alike(
  samples_N: np.ndarray, mark: int, guess: int, period: int
) -> int | None:
  """The sample near `guess` whose surroundings correlate best with those of `mark`."""
  half, reach = period // 2, max(1, round(_SEARCH * period))
  low = guess - reach - half
  if min(low, mark - half) < 0:
    return None
  shape = samples_N[mark - half : mark + half + 1]
  around = samples_N[low : guess + reach + half + 1]
  if len(shape) < 2 * half + 1 or len(around) < 2 * (half + reach) + 1:
    return None
  power = np.convolve(around * around, np.ones(len(shape), np.float32), "valid")
  alike = np.correlate(around, shape, "valid") / np.sqrt(np.maximum(power, 1e-12))
  return guess - reach + int(np.argmax(alike))


def _monotone(
  samples_N: np.ndarray, marks: list[int], target: float
) -> tuple[np.ndarray, np.ndarray, int]:
  """Pieces around `marks` laid down every `target` samples.

  Returns:
    The sum, how much of it replaces the recording (0 to 1), and the sample at which
    both begin: the mark before the first and after the last piece bound them.
  """
  begin, end = marks[0], marks[-1] + 1
  sung_N, weight_N = np.zeros(end - begin), np.ones(end - begin)
  inner = np.asarray(marks[1:-1])
  places = np.round(np.arange(inner[0], inner[-1] + 1, target)).astype(int)
  nearest = np.abs(places[:, None] - inner[None, :]).argmin(axis=1)
  for place, k in zip(places, nearest, strict=True):
    before, mark, after = marks[k], marks[k + 1], marks[k + 2]
    window = np.concatenate([_rise(mark - before), _rise(after - mark + 1)[::-1]])
    piece = window * samples_N[before : after + 1][: len(window)]
    low = place - (mark - before) - begin
    cut = slice(max(0, -low), len(sung_N) - low)
    piece = piece[cut]
    sung_N[max(0, low) : max(0, low) + len(piece)] += piece
  rise = marks[1] - marks[0]
  weight_N[:rise] = _rise(rise)
  fall = end - 1 - places[-1]
  weight_N[len(weight_N) - fall :] = _rise(fall)[::-1]
  return sung_N, weight_N, begin


def _rise(length: int) -> np.ndarray:
  """The first half of a Hann window, from 0 to nearly 1."""
  return 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))


def _power(samples_N: np.ndarray) -> np.ndarray:
  """Mean square around each sample; the ends are mirrored."""
  length = min(round(_LOUDNESS_S * SAMPLE_RATE), len(samples_N)) | 1
  window = np.hanning(length + 2)[1:-1]
  padded = np.pad(samples_N**2, length // 2, mode="reflect")
  return np.convolve(padded, window / window.sum(), "valid")[: len(samples_N)]
