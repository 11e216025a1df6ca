"""Audio files as 16 kHz mono samples: read, cut into chunks, named by content."""

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import soundfile
import soxr
from etils import epath

from stepaudio_jax.audio import decoder
from stepaudio_jax.audio.decoder import AudioError
from stepaudio_jax.core.lengths import CHUNK_SAMPLES, SAMPLE_RATE, SHORTEST_SAMPLES

__all__ = ["AudioError", "Chunks", "chunks", "content_key", "label_of", "read"]

BLOCK_FRAMES = 1 << 16  # frames decoded at a time, so that hours fit in memory
SPAN_SLACK_S = 0.01  # a span may end so far past the file: annotations are rounded
RESAMPLING = "HQ"  # soxr's default: 20 bits, linear phase

Source = str | os.PathLike | bytes


class Chunks(NamedTuple):
  """Pieces of a clip (views of it), and the samples too few to be one."""

  pieces: list[np.ndarray]
  dropped_samples: int


class Span(NamedTuple):
  """Part of a file; end_s None is the file's end."""

  start_s: float
  end_s: float | None

  def __str__(self):
    end = "its end" if self.end_s is None else f"{self.end_s} s"
    return f"{self.start_s} s to {end}"


def read(
  source: Source,
  start_s: float | None = None,
  end_s: float | None = None,
  *,
  name: str | None = None,
) -> np.ndarray:
  """Decodes a file, or a span of it, to float32 samples_N at 16 kHz, full scale ±1.

  Several channels become their mean. That is our rule: of the published front ends
  some take the first channel and some the mean. The span is cut first and resampled
  then, so that it does not hear its surroundings. Silence is a result like any other.

  Args:
    source: path (gs:// too) or the file's bytes: WAV, FLAC, Ogg, MP3 and whatever
      else libsndfile knows, at any rate. The content decides, never the name.
    start_s: where the span begins, in seconds of the file; None is its start.
    end_s: where it ends; None is the file's end, which may be passed by SPAN_SLACK_S.
    name: the example's id, for error messages.

  Raises:
    AudioError: missing, empty, not audio, broken, shorter than its header says
      (an MP3 that says nothing is read to its end), NaN or infinite samples, or a
      span that is empty or outside the file.
  """
  label = label_of(source, name)
  span = _span(start_s, end_s, label)
  with _opened(source, label) as file, decoder.opened(file, label) as sound:
    samples_N = _resampled(_mono_blocks(sound, span, label), sound.samplerate)
  if not len(samples_N):
    raise AudioError(f"{label}: holds no samples")
  return samples_N


def chunks(samples_N: np.ndarray, *, name: str | None = None) -> Chunks:
  """Cuts a clip every 25 s without copying; a tail of under 321 samples is dropped.

  Raises:
    AudioError: the whole clip is under 321 samples, too short for one audio token.
  """
  if len(samples_N) < SHORTEST_SAMPLES:
    raise AudioError(
      f"{name or 'a clip'}: {1000 * len(samples_N) / SAMPLE_RATE:.4g} ms of sound "
      f"({len(samples_N)} samples at 16 kHz) give no audio token, {SHORTEST_SAMPLES} do"
    )
  starts = range(0, len(samples_N), CHUNK_SAMPLES)
  pieces = [samples_N[start : start + CHUNK_SAMPLES] for start in starts]
  if len(pieces[-1]) >= SHORTEST_SAMPLES:
    return Chunks(pieces, 0)
  return Chunks(pieces[:-1], len(pieces[-1]))


def content_key(
  source: Source,
  start_s: float | None = None,
  end_s: float | None = None,
  *,
  name: str | None = None,
) -> str:
  """Hex blake2b of the file's bytes and the span: a name for what `read` returns."""
  label = label_of(source, name)
  span = _span(start_s, end_s, label)
  digest = hashlib.blake2b(digest_size=16)
  with _opened(source, label) as file:
    while block := file.read(1 << 20):
      digest.update(block)
  digest.update(f"|{span.start_s!r}|{span.end_s!r}".encode())
  return digest.hexdigest()


def label_of(source: Source, name: str | None) -> str:
  """What errors call a clip: the example that needs it, and its file."""
  what = f"{len(source)} bytes" if isinstance(source, bytes) else os.fspath(source)
  return what if name is None else f"example {name!r} ({what})"


def _span(start_s: float | None, end_s: float | None, label: str) -> Span:
  span = Span(float(start_s or 0), None if end_s is None else float(end_s))
  end = math.inf if span.end_s is None else span.end_s
  if not 0 <= span.start_s < end or end_s == math.inf:  # NaN is refused as well
    raise AudioError(f"{label}: span {span}: 0 <= start < end is needed")
  return span


@contextlib.contextmanager
def _opened(source: Source, label: str) -> Iterator[IO[bytes]]:
  if isinstance(source, bytes):
    yield io.BytesIO(source)
    return
  try:
    file = epath.Path(source).open("rb")
  except (FileNotFoundError, IsADirectoryError) as error:
    raise AudioError(f"{label}: {error.strerror or 'no such file'}") from error
  with file:
    yield file


def _mono_blocks(sound: decoder.Sound, span: Span, label: str) -> Iterator[np.ndarray]:
  """Yields the span as float32 mono blocks at the file's own rate."""
  start, end = _frame_span(sound, span, label)
  position = _sought(sound, start, label) if start and sound.exact_seek else 0
  while end is None or position < end:
    wanted = BLOCK_FRAMES if end is None else min(BLOCK_FRAMES, end - position)
    block = _decoded(sound, wanted, position, label)
    if not len(block):
      break
    kept = block[max(start - position, 0) :]
    yield kept[:, 0] if sound.channels == 1 else kept.mean(axis=1, dtype=np.float32)
    position += len(block)
  if sound.total_frames is None:
    _check_inside(sound, span, position, label)  # its length is known only now
  else:
    _check_ending(sound, position, end, label)


def _frame_span(sound: decoder.Sound, span: Span, label: str) -> tuple[int, int | None]:
  """First frame and the one after the last, None to read until the stream ends."""
  total = sound.total_frames
  if total is not None:
    _check_inside(sound, span, total, label)
  start = round(span.start_s * sound.samplerate)
  end = total if span.end_s is None else round(span.end_s * sound.samplerate)
  if span.end_s is not None and start >= end:
    raise AudioError(f"{label}: span {span} is under one sample")
  return start, end if total is None else min(end, total)


def _check_inside(sound: decoder.Sound, span: Span, total: int, label: str) -> None:
  duration_s = total / sound.samplerate
  starts_outside = span.start_s > 0 and round(span.start_s * sound.samplerate) >= total
  if starts_outside or (span.end_s or 0) > duration_s + SPAN_SLACK_S:
    raise AudioError(f"{label}: span {span} is outside its {duration_s} s")


def _sought(sound: decoder.Sound, start: int, label: str) -> int:
  try:
    return sound.seek(start)
  except soundfile.LibsndfileError as error:
    raise AudioError(f"{label}: no way to frame {start}: {error}") from error


def _decoded(
  sound: decoder.Sound, frames: int, position: int, label: str
) -> np.ndarray:
  """The next frames [≤ frames, channels], all finite; empty at the end."""
  try:
    block = sound.read(frames, dtype="float32", always_2d=True)
  except soundfile.LibsndfileError as error:
    raise AudioError(
      f"{label}: broken after {position} of {sound.total_frames} frames: {error}"
    ) from error
  finite = np.isfinite(block)
  if not finite.all():
    frame = position + int(np.argmin(finite.all(axis=1)))
    raise AudioError(f"{label}: NaN or infinite samples, the first in frame {frame}")
  return block


def _check_ending(sound: decoder.Sound, position: int, end: int, label: str) -> None:
  """Refuses a file that decodes to fewer frames than it declares."""
  if position < end - sound.missing_frames_allowed:
    raise AudioError(
      f"{label}: truncated, it declares {sound.total_frames} frames and decodes to "
      f"{position}"
    )


def _resampled(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
  """Joins blocks at 16 kHz: round(frames · 16000 / rate) samples, however blocked."""
  samples = io.BytesIO()  # grows in place: no second copy of an hours-long clip
  if rate == SAMPLE_RATE:
    for block in blocks:
      samples.write(np.ascontiguousarray(block))
  else:
    stream = soxr.ResampleStream(
      rate, SAMPLE_RATE, 1, dtype="float32", quality=RESAMPLING
    )
    for block in blocks:
      samples.write(stream.resample_chunk(block))
    samples.write(stream.resample_chunk(np.zeros(0, np.float32), last=True))
  return np.frombuffer(samples.getbuffer(), np.float32)
