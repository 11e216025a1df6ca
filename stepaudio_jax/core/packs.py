"""Replies in packed rows: into a model's rows and out of them again."""

from typing import Any

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import (
  Array,
  Batch,
  Comparisons,
  Contrasts,
  PackedReplies,
  Replies,
)


def merged(values: Any) -> Any:
  """Leaves [P, B, …] as [P·B, …]: all packs' rows as one batch."""
  # Not −1: of clips of no length there is nothing to count rows by.
  return jax.tree.map(
    lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), values
  )


def picked(x_BT: Array, packed: PackedReplies, *, before: bool = False) -> Array:
  """What stands at the reply tokens: of x [P·B, T, …], [P·B, Q, T, …].

  Args:
    before: at the tokens that predict them instead: the one before, and the prompt's
      last one before the first.
  """
  slot_PBQT = packed.slot_PBQT
  if before:
    slots = (packed.last_PBQ[..., None], slot_PBQT[..., :-1])
    slot_PBQT = jnp.concatenate(slots, axis=-1)
  return _taken(x_BT, slot_PBQT)


def at_prompts(x_BT: Array, packed: PackedReplies) -> Array:
  """What stands at the last token of each reply's prompt: [P·B, Q, …]."""
  return _taken(x_BT, packed.last_PBQ)


def _taken(x_BT: Array, slot: Array) -> Array:
  """Of x [P·B, T, …] at slots [P, B, …] of their packs: [P·B, …, …]."""
  packs = slot.shape[0]
  flat_PX = x_BT.reshape(packs, -1, *x_BT.shape[2:])
  index_PX = slot.reshape(packs, -1)
  index = index_PX.reshape(index_PX.shape + (1,) * (flat_PX.ndim - 2))
  found = jnp.take_along_axis(flat_PX, index, axis=1)
  return found.reshape(-1, *slot.shape[2:], *x_BT.shape[2:])


def laid_out(replies: Replies | PackedReplies) -> tuple[Array, Array]:
  """(token_BQT, count_BQ) of either kind, P·B as B."""
  if isinstance(replies, PackedReplies):
    return merged((replies.token_PBQT, replies.count_PBQ))
  return replies.token_BQT, replies.count_BQ


def leading(replies: Replies | PackedReplies) -> tuple[int, ...]:
  """(B, Q) or (P, B, Q): the axes of what belongs to a reply."""
  packed = isinstance(replies, PackedReplies)
  return (replies.count_PBQ if packed else replies.count_BQ).shape


def padding(batch: Any) -> dict[str, float]:
  """{"data/padding": share of text slots that hold no token, "data/slots": all}.

  Nothing for what has no slots. Prompts and replies of `Replies` lie apart, and both
  count.
  """
  if isinstance(batch, Comparisons | Contrasts):
    batch = batch.replies
  if isinstance(batch, Replies):
    used = [(batch.prompts.segment_BT > 0).sum(), batch.count_BQ.sum()]
    slots = batch.prompts.segment_BT.size + batch.token_BQT.size
  elif isinstance(batch, PackedReplies | Batch):
    rows = batch.batch if isinstance(batch, PackedReplies) else batch
    used, slots = [(rows.segment_BT > 0).sum()], rows.segment_BT.size
  else:
    return {}
  share = 1.0 - float(sum(map(int, used))) / slots
  return {"data/padding": share, "data/slots": float(slots)}
