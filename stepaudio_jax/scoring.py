"""Learned rewards: a reward model's scores of replies."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core import packs
from stepaudio_jax.core.types import Array, PackedReplies, Params, Replies
from stepaudio_jax.models import vocabulary


def rewards(
  model: Any,
  heads: Any,
  params: Params,
  replies: Replies | PackedReplies,
  on_thought: Sequence[bool],
) -> Array:
  """Rewards of replies, see models/heads.py for what the heads read.

  Args:
    model: StepAudio.
    heads: RewardHeads; its parameters are `params["rewards"]`.
    replies: branches 2i and 2i + 1 are reply i's answer alone and its turn with the
      thought (data/replies.py).
    on_thought: of every dimension, whether it reads the turn with the thought.

  Returns:
    float32 reward_BIC, I = Q / 2 replies; NaN where there is no reply.

  Raises:
    ValueError: `on_thought` is not of as many dimensions as there are heads.
  """
  if len(on_thought) != heads.dimensions:
    raise ValueError(
      f"on_thought is of {len(on_thought)} dimensions, the heads are {heads.dimensions}"
    )
  backbone = {part: params[part] for part in ("adaptor", "decoder")}
  read = _read_packed if isinstance(replies, PackedReplies) else _read
  x_BQTD, surprise_BQT = read(model, backbone, replies)
  _, count_BQ = packs.laid_out(replies)
  reward_BQC = heads.apply(
    {"params": params["rewards"]}, x_BQTD, surprise_BQT, count_BQ
  )
  rows, branches = count_BQ.shape
  reward_BI2C = reward_BQC.reshape(rows, branches // 2, 2, -1)
  thought_11C = jnp.asarray(on_thought, bool)[None, None]
  return jnp.where(thought_11C, reward_BI2C[:, :, 1], reward_BI2C[:, :, 0])


def _read(model: Any, backbone: Params, replies: Replies) -> tuple[Array, Array]:
  """States of the reply tokens, and their surprise.

  The latter is each token's log-odds against the likeliest one there, ≤ 0; 0 for the
  first.
  """
  apply = functools.partial(model.apply, {"params": backbone})
  _, x_BQTD = apply(replies, method="branches")
  token_BT = replies.token_BQT.reshape(-1, replies.token_BQT.shape[2])[:, 1:]
  x_BTD = x_BQTD.reshape(-1, *x_BQTD.shape[2:])[:, :-1]
  scores = apply(x_BTD, token_BT, method="judged")
  surprise_BT = jnp.pad(scores.margin_BT, ((0, 0), (1, 0)))
  return x_BQTD, surprise_BT.reshape(replies.token_BQT.shape)


def _read_packed(
  model: Any, backbone: Params, packed: PackedReplies
) -> tuple[Array, Array]:
  """The same of packed rows."""
  apply = functools.partial(model.apply, {"params": backbone})
  x_BTD = apply(packed, method="packed")
  target_BT = vocabulary.targets(packs.merged(packed.batch))
  scores = apply(x_BTD, target_BT, method="judged")
  surprise_BQT = packs.picked(scores.margin_BT, packed, before=True)
  return packs.picked(x_BTD, packed), surprise_BQT.at[..., 0].set(0.0)
