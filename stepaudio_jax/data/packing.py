"""Replies laid into packed rows: numpy in, numpy out."""

from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from stepaudio_jax.core import lengths
from stepaudio_jax.core.types import Batch, PackedReplies, Replies
from stepaudio_jax.data import buckets

# Shapes that data decide are rounded up to eighths of a power of 2: few programs, and
# no more than an eighth of the rows empty.
_EIGHTHS = 3
Place = tuple[int, int]  # (prompt, reply) of a pack
Bundle = tuple[int, list[int]]  # a prompt of a pack, and replies behind it
Need = tuple[int, int]  # (rows of a pack, clips of a row)


def packed(
  replies: Replies,
  packs: int,
  row_tokens: int,
  pad_id: int,
  *,
  shared: bool = False,
  row_counts: Sequence[int] = (),
  agreed: Callable[[int], int] = int,
  need: Need | None = None,
) -> PackedReplies:
  """Prompts shared out to `packs`, their replies into as few rows as fit.

  Each reply goes behind its own copy of its prompt, audio included, or with `shared`
  all replies to a prompt that fit into a row go behind one; the longest first, into the
  first row with room.

  Args:
    replies: on the host; a prompt of each pack is behind the other.
    packs: devices × micro-batches × mini-batches, or a multiple.
    row_tokens: T of the rows.
    shared: a prompt stands once for all of its replies in a row. What does not fit
      beside it goes behind another copy.
    row_counts: declared numbers of rows of a pack, ascending, see `room`.
    agreed: what this process needs → what all need, where several make one batch; see
      processes.largest.
    need: what the packs of all processes need, where it is known without asking; see
      `needed`.

  Raises:
    ValueError: `packs` does not divide the prompts, a prompt and its reply are longer
      than a row, or more is needed than `need`.
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
  sizes = (prompt_B, replies.count_BQ)
  plans = _plans(*sizes, prompts // packs, row_tokens, shared=shared)
  rows, clips = map(agreed, _need(plans, clips_B))
  if need is not None:
    if rows > need[0] or clips > need[1]:
      raise ValueError(f"{rows} rows and {clips} clips a row are more than {need}")
    rows, clips = need
  rows, clips = room(rows, clips, row_counts)
  out = _empty(replies, (packs, rows, row_tokens), clips, pad_id, shared)
  for pack, plan in enumerate(plans):
    for row, bundles in enumerate(plan):
      _lay(out, replies, pack, row, bundles)
  return out


def needed(
  prompt_B: np.ndarray,
  clips_B: np.ndarray,
  count_BQ: np.ndarray,
  *,
  share: int,
  row_tokens: int,
) -> Need:
  """What the packs of `packed` need, from lengths alone.

  Each process of several finds the same from those of the whole batch, and its packs
  have the shapes of the others' without a word between them.

  Args:
    prompt_B, clips_B: tokens and clips of each prompt.
    count_BQ: tokens of each reply, in the order in which they will be packed.
    share: prompts of a pack; the last ones may have fewer, or none.
  """
  return _need(_plans(prompt_B, count_BQ, share, row_tokens, shared=False), clips_B)


def _plans(
  prompt_B: np.ndarray,
  count_BQ: np.ndarray,
  share: int,
  row_tokens: int,
  *,
  shared: bool,
) -> list[list[list[Bundle]]]:
  """Of each pack the bundles of each row, by the numbers of all prompts."""
  out = []
  for first in range(0, len(prompt_B), share):
    part = slice(first, first + share)
    plan = planned(prompt_B[part], count_BQ[part], row_tokens, shared=shared)
    out.append([[(first + b, qs) for b, qs in row] for row in plan])
  return out


def _need(plans: Sequence[Sequence[Sequence[Bundle]]], clips_B: np.ndarray) -> Need:
  clips = [int(sum(clips_B[b] for b, _ in row)) for plan in plans for row in plan]
  return max(map(len, plans), default=0), max(clips, default=0)


def planned(
  prompt_B: np.ndarray, count_BQ: np.ndarray, row_tokens: int, *, shared: bool
) -> list[list[Bundle]]:
  """What each row of a pack holds, of prompts and replies of so many tokens."""
  plan_of = _shared_rows if shared else _copied_rows
  return plan_of(prompt_B, count_BQ, row_tokens)


def _copied_rows(
  prompt_B: np.ndarray, count_BQ: np.ndarray, row_tokens: int
) -> list[list[Bundle]]:
  """Bundles of one reply each."""
  length_BQ = np.where(count_BQ > 0, prompt_B[:, None] + count_BQ, 0)
  return [[(b, [q]) for b, q in row] for row in rows_of(length_BQ, row_tokens)]


def _shared_rows(
  prompt_B: np.ndarray, count_BQ: np.ndarray, row_tokens: int
) -> list[list[Bundle]]:
  """Bundles of as many replies as fit behind one prompt."""
  bundles: list[Bundle] = []
  for b, count_Q in enumerate(count_BQ):
    room = row_tokens - int(prompt_B[b])
    found = rows_of(count_Q[None], room)
    bundles += [(b, [q for _, q in places]) for places in found]
  length_B1 = np.asarray(
    [[prompt_B[b] + count_BQ[b, qs].sum()] for b, qs in bundles], np.int64
  ).reshape(-1, 1)
  return [[bundles[i] for i, _ in row] for row in rows_of(length_B1, row_tokens)]


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


def room(rows: int, clips: int, row_counts: Sequence[int] = ()) -> tuple[int, int]:
  """Rows of a pack and clips of a row that are made for so many.

  Args:
    row_counts: declared numbers of rows, ascending; clips are powers of 2 then. Without
      any, and above the last one, both are eighths of powers of 2.
  """
  declared = buckets.smallest(row_counts, rows, 0)
  if declared:
    return declared, 1 << max(clips - 1, 0).bit_length()
  if row_counts:
    logging.warning(
      "a pack has %d rows, more than data.pack_rows=%s declares: a program more",
      rows,
      tuple(row_counts),
    )
  return rounded(rows), rounded(clips)


def _empty(
  replies: Replies,
  shape: tuple[int, int, int],
  clips: int,
  pad_id: int,
  shared: bool,
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
    slot_PBQT=np.zeros((*share, *token_BQT.shape[1:]), np.int32),
    last_PBQ=np.zeros((*share, token_BQT.shape[1]), np.int32),
    token_PBQT=token_BQT.reshape(*share, *token_BQT.shape[1:]),
    count_PBQ=replies.count_BQ.reshape(*share, -1),
    prefix_PBT=full(0) if shared else None,
  )


def _lay(
  out: PackedReplies, replies: Replies, pack: int, row: int, bundles: Sequence[Bundle]
) -> None:
  """Lays bundles (of all prompts' numbers) behind each other into one row."""
  start = clips = segment = 0
  for b, qs in bundles:
    segment += 1
    heard = _lay_prompt(out, replies, (pack, row), start, b, segment, clips)
    start, clips, prefix = start + _known(replies, b), clips + heard, segment
    last = start - 1
    for q in qs:
      end = start + int(replies.count_BQ[b, q])
      if out.prefix_PBT is not None:
        segment += 1
        out.prefix_PBT[pack, row, start:end] = prefix
      _lay_reply(out, replies, (pack, row), slice(start, end), (b, q), segment)
      out.last_PBQ[pack, b % out.last_PBQ.shape[1], q] = _slot(out, row, last)
      start = end


def _known(replies: Replies, b: int) -> int:
  """Tokens of a prompt."""
  return int((replies.prompts.segment_BT[b] > 0).sum())


def _slot(out: PackedReplies, row: int, place: int) -> int:
  """Of a pack's flattened rows."""
  return row * out.batch.token_BT.shape[2] + place


def _lay_prompt(
  out: PackedReplies,
  replies: Replies,
  at: tuple[int, int],
  start: int,
  b: int,
  segment: int,
  clips: int,
) -> int:
  """One prompt with its audio behind `clips` of the row; returns how many it has."""
  batch, prompts, known = out.batch, replies.prompts, _known(replies, b)
  whole = (*at, slice(start, start + known))
  batch.token_BT[whole] = prompts.token_BT[b, :known]
  batch.segment_BT[whole] = segment
  batch.position_BT[whole] = np.arange(known)
  batch.example_BT[whole] = prompts.example_BT[b].max()
  batch.source_BT[whole] = prompts.source_BT[b].max()
  clip_tokens = lengths.adaptor_tokens(prompts.frames_BRUE.shape[2])  # A
  heard_T = prompts.audio_BT[b, :known]
  batch.audio_BT[whole] = np.where(heard_T >= 0, heard_T + clips * clip_tokens, -1)
  own = int((prompts.frame_count_BR[b] > 0).sum())
  batch.frames_BRUE[(*at, slice(clips, clips + own))] = prompts.frames_BRUE[b, :own]
  counts = prompts.frame_count_BR[b, :own]
  batch.frame_count_BR[(*at, slice(clips, clips + own))] = counts
  return own


def _lay_reply(
  out: PackedReplies,
  replies: Replies,
  at: tuple[int, int],
  where: slice,
  place: Place,
  segment: int,
) -> None:
  """One reply, whose positions go on from its prompt's."""
  batch, (b, q), known = out.batch, place, _known(replies, place[0])
  count, whole = where.stop - where.start, (*at, where)
  batch.token_BT[whole] = replies.token_BQT[b, q, :count]
  batch.segment_BT[whole] = segment
  batch.position_BT[whole] = known + np.arange(count)
  batch.example_BT[whole] = replies.prompts.example_BT[b].max()
  batch.source_BT[whole] = replies.prompts.source_BT[b].max()
  slots = _slot(out, at[1], where.start) + np.arange(count)
  out.slot_PBQT[at[0], b % out.slot_PBQT.shape[1], q, :count] = slots
