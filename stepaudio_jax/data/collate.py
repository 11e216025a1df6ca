"""Examples laid into fixed-shape rows: numpy in, a Batch of numpy out."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Batch
from stepaudio_jax.text.chat import Span


@dataclasses.dataclass(frozen=True)
class Limits:
  """Shapes of a row.

  Attributes:
    max_tokens: T.
    max_clips: R, chunks of at most 25 s; 0 where there is only text.
    max_clip_frames: U, encoder frames of a chunk (25 a second).
  """

  max_tokens: int
  max_clips: int
  max_clip_frames: int

  def problem(self, tokens: int, clip_frames: Sequence[int]) -> str | None:
    """Why so much does not fit into one row, or None where it does."""
    longest = max(clip_frames, default=0)
    if tokens > self.max_tokens:
      return f"{tokens} tokens, max_tokens is {self.max_tokens}"
    if len(clip_frames) > self.max_clips:
      return f"{len(clip_frames)} audio chunks, max_clips is {self.max_clips}"
    if longest > self.max_clip_frames:
      return f"{longest} encoder frames, max_clip_frames is {self.max_clip_frames}"
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
  """One rendered example.

  Attributes:
    source: index of its data set, for `source_BT`.
    token_T, loss_T, spans: see text.chat.Rendered.
    frames: encoder frames [U, E] of every chunk, in the order of `spans`.
  """

  id: str
  source: int
  token_T: np.ndarray
  loss_T: np.ndarray
  spans: tuple[Span, ...]
  frames: tuple[np.ndarray, ...] = ()


def collate(
  rows: Sequence[Sequence[Example]],
  limits: Limits,
  *,
  pad_id: int,
  encoder_width: int,
  first_number: int = 0,
) -> Batch:
  """Lays examples end to end, right-padded; one without examples is all padding.

  Args:
    rows: the examples of each row; their ids are numbered through in this order.
    first_number: `example_BT` of the first.

  Raises:
    ValueError: an example does not fit, or its frames are not those of its spans.
  """
  empty = _empty(len(rows), limits, pad_id, encoder_width)
  number = first_number
  for row, examples in enumerate(rows):
    tokens = clips = 0
    for segment, example in enumerate(examples, 1):
      _check(example, limits, tokens, clips, encoder_width)
      place = slice(tokens, tokens + len(example.token_T))
      empty.token_BT[row, place] = example.token_T
      empty.loss_BT[row, place] = example.loss_T
      empty.segment_BT[row, place] = segment
      empty.position_BT[row, place] = np.arange(len(example.token_T))
      empty.example_BT[row, place] = number
      empty.source_BT[row, place] = example.source
      _lay_clips(empty, row, tokens, clips, example)
      tokens, clips, number = place.stop, clips + len(example.frames), number + 1
  return empty


def _empty(rows: int, limits: Limits, pad_id: int, width: int) -> Batch:
  tokens, clips, frames = limits.max_tokens, limits.max_clips, limits.max_clip_frames

  def full(value: int) -> np.ndarray:
    return np.full((rows, tokens), value, np.int32)

  return Batch(
    token_BT=full(pad_id),
    segment_BT=full(0),
    position_BT=full(0),
    loss_BT=np.zeros((rows, tokens), np.bool_),
    example_BT=full(-1),
    source_BT=full(-1),
    frames_BRUE=np.zeros((rows, clips, frames, width), np.float32),
    frame_count_BR=np.zeros((rows, clips), np.int32),
    audio_BT=full(-1),
  )


def _check(
  example: Example, limits: Limits, tokens: int, clips: int, width: int
) -> None:
  at = f"example {example.id!r}"
  counts = [len(frames) for frames in example.frames]
  problem = limits.problem(tokens + len(example.token_T), [0] * clips + counts)
  if problem:
    raise ValueError(f"{at} does not fit into its row: {problem}")
  wanted = [span.count for span in example.spans]
  given = [lengths.adaptor_tokens(count) for count in counts]
  if wanted != given:
    raise ValueError(
      f"{at}: its audio spans hold {wanted} tokens, its frames make {given}"
    )
  widths = {frames.shape[1] for frames in example.frames} - {width}
  if widths:
    raise ValueError(f"{at}: frames {widths} wide, the encoder's are {width}")


def _lay_clips(batch: Batch, row: int, tokens: int, clips: int, example: Example):
  """Puts frames into the row's next clip slots and points the patches at them."""
  slot_tokens = lengths.adaptor_tokens(batch.frames_BRUE.shape[2])  # A
  for slot, (span, frames) in enumerate(
    zip(example.spans, example.frames, strict=True), clips
  ):
    batch.frames_BRUE[row, slot, : len(frames)] = frames
    batch.frame_count_BR[row, slot] = len(frames)
    start = tokens + span.start
    batch.audio_BT[row, start : start + span.count] = slot * slot_tokens + np.arange(
      span.count
    )
