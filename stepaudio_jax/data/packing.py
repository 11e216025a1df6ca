"""Replies laid into packed rows: numpy in, numpy out."""

from collections.abc import Callable, Sequence

import numpy as np

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Batch, PackedReplies, Replies

# Shapes that data decide are rounded up to eighths of a power of 2: few programs, and
# no more than an eighth of the rows empty.
_EIGHTHS = 3
Place = tuple[int, int]  # (prompt, reply) of a pack


def packed(
  replies: Replies,
  packs: int,
  row_tokens: int,
  pad_id: int,
  *,
  agreed: Callable[[int], int] = int,
) -> PackedReplies:
  """Prompts shared out to `packs`, their replies into as few rows as fit.

  Each reply goes behind its own copy of its prompt, audio included; the longest first,
  into the first row with room.

  Args:
    replies: on the host; a prompt of each pack is behind the other.
    packs: devices × micro-batches × mini-batches, or a multiple.
    row_tokens: T of the rows.
    agreed: what this process needs → what all need, where several make one batch; see
      processes.largest.

  Raises:
    ValueError: `packs` does not divide the prompts, or a prompt and its reply are
      longer than a row.
  """
  prompts = replies.token_BQT.shape[0]
  if packs < 1 or prompts % packs:
    raise ValueError(f"{prompts} prompts cannot be shared out to {packs} packs evenly")
  prompt_B = (replies.prompts.segment_BT > 0).sum(axis=1)
  length_BQ = np.where(replies.count_BQ > 0, prompt_B[:, None] + replies.count_BQ, 0)
  if length_BQ.max(initial=0) > row_tokens:
    b, q = np.unravel_index(length_BQ.argmax(), length_BQ.shape)
    raise ValueError(
      f"reply {q} of prompt {b} (example {replies.prompts.example_BT[b].max()}) needs "
      f"{length_BQ[b, q]} tokens, a row has {row_tokens}"
    )
  clips_B = (replies.prompts.frame_count_BR > 0).sum(axis=1)
  shares = np.split(length_BQ, packs)
  plans = [rows_of(share, row_tokens) for share in shares]
  first_P = np.arange(packs) * (prompts // packs)
  held = [
    sum(int(clips_B[first + b]) for b, _ in row)
    for first, plan in zip(first_P, plans, strict=True)
    for row in plan
  ]
  rows, clips = agreed(max(map(len, plans))), agreed(max(held, default=0))
  shape = (packs, rounded(rows), row_tokens)
  out = _empty(replies, shape, rounded(clips), pad_id)
  for pack, (first, plan) in enumerate(zip(first_P, plans, strict=True)):
    for row, places in enumerate(plan):
      _lay(out, replies, pack, row, [(int(first) + b, q) for b, q in places])
  return out


def rows_of(length_BQ: np.ndarray, row_tokens: int) -> list[list[Place]]:
  """Replies of each row, longest first into the first row with room; 0 has none."""
  order = np.argsort(-length_BQ, axis=None, kind="stable")
  rows: list[list[Place]] = []
  room: list[int] = []
  for index in order:
    b, q = (int(i) for i in np.unravel_index(index, length_BQ.shape))
    length = int(length_BQ[b, q])
    if not length:
      break
    row = next((r for r, left in enumerate(room) if left >= length), len(rows))
    if row == len(rows):
      rows.append([])
      room.append(row_tokens)
    rows[row].append((b, q))
    room[row] -= length
  return rows


def rounded(count: int) -> int:
  """The next multiple of an eighth of the power of 2 below, at least 1."""
  step = 1 << max(count.bit_length() - 1 - _EIGHTHS, 0)
  return max(-(-count // step) * step, 1)


def _empty(
  replies: Replies, shape: tuple[int, int, int], clips: int, pad_id: int
) -> PackedReplies:
  packs, rows, _ = shape
  frames, width = replies.prompts.frames_BRUE.shape[2:]
  clips = clips if replies.prompts.frame_count_BR.shape[1] else 0

  def full(value: int) -> np.ndarray:
    return np.full(shape, value, np.int32)

  batch = Batch(
    token_BT=full(pad_id),
    segment_BT=full(0),
    position_BT=full(0),
    loss_BT=np.zeros(shape, np.bool_),
    example_BT=full(-1),
    source_BT=full(-1),
    frames_BRUE=np.zeros((packs, rows, clips, frames, width), np.float32),
    frame_count_BR=np.zeros((packs, rows, clips), np.int32),
    audio_BT=full(-1),
  )
  token_BQT = replies.token_BQT
  share = (packs, token_BQT.shape[0] // packs)
  return PackedReplies(
    batch,
    np.zeros((*share, *token_BQT.shape[1:]), np.int32),
    token_BQT.reshape(*share, *token_BQT.shape[1:]),
    replies.count_BQ.reshape(*share, -1),
  )


def _lay(
  out: PackedReplies, replies: Replies, pack: int, row: int, places: Sequence[Place]
) -> None:
  """Lays replies (of all prompts' numbers) behind each other into one row."""
  batch, prompts = out.batch, replies.prompts
  share, row_tokens = out.slot_PBQT.shape[1], batch.token_BT.shape[2]
  clip_tokens = lengths.adaptor_tokens(prompts.frames_BRUE.shape[2])  # A
  start = clips = 0
  for segment, (b, q) in enumerate(places, 1):
    known = int((prompts.segment_BT[b] > 0).sum())
    count = int(replies.count_BQ[b, q])
    said = slice(start + known, start + known + count)
    whole = slice(start, said.stop)
    batch.token_BT[pack, row, start : said.start] = prompts.token_BT[b, :known]
    batch.token_BT[pack, row, said] = replies.token_BQT[b, q, :count]
    batch.segment_BT[pack, row, whole] = segment
    batch.position_BT[pack, row, whole] = np.arange(known + count)
    batch.example_BT[pack, row, whole] = prompts.example_BT[b].max()
    batch.source_BT[pack, row, whole] = prompts.source_BT[b].max()
    heard = prompts.audio_BT[b, :known]
    moved = np.where(heard >= 0, heard + clips * clip_tokens, -1)
    batch.audio_BT[pack, row, start : said.start] = moved
    own = int((prompts.frame_count_BR[b] > 0).sum())
    batch.frames_BRUE[pack, row, clips : clips + own] = prompts.frames_BRUE[b, :own]
    counts = prompts.frame_count_BR[b, :own]
    batch.frame_count_BR[pack, row, clips : clips + own] = counts
    slots = row * row_tokens + np.arange(said.start, said.stop)
    out.slot_PBQT[pack, b % share, q, :count] = slots
    start, clips = said.stop, clips + own
