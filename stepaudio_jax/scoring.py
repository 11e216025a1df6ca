"""Learned rewards: a reward model's scores of replies."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params, Replies


def rewards(
  model: Any, heads: Any, params: Params, replies: Replies, on_thought: Sequence[bool]
) -> Array:
  """Rewards of replies, read at each one's last token (training.md §2.2).

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
  _, x_BQTD = model.apply({"params": backbone}, replies, method="branches")
  rows, branches = replies.count_BQ.shape
  last_BQ11 = jnp.maximum(replies.count_BQ - 1, 0)[..., None, None]
  x_BQD = jnp.take_along_axis(x_BQTD, last_BQ11, axis=2)[:, :, 0]
  slot_BQ = jnp.arange(branches, dtype=jnp.int32)[None]
  slot_BQ = jnp.where(replies.count_BQ > 0, slot_BQ, -1)
  reward_BQC = heads.apply({"params": params["rewards"]}, x_BQD, slot_BQ)
  reward_BQC = jnp.where(slot_BQ[..., None] >= 0, reward_BQC, jnp.nan)
  reward_BI2C = reward_BQC.reshape(rows, branches // 2, 2, -1)
  thought_11C = jnp.asarray(on_thought, bool)[None, None]
  return jnp.where(thought_11C, reward_BI2C[:, :, 1], reward_BI2C[:, :, 0])
