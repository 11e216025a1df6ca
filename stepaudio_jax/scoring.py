"""Learned rewards: a reward model's scores of replies."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params, Replies


def rewards(
  model: Any, heads: Any, params: Params, replies: Replies, on_thought: Sequence[bool]
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
  _, x_BQTD = model.apply({"params": backbone}, replies, method="branches")
  surprise_BQT = _surprise(model, backbone, x_BQTD, replies.token_BQT)
  reward_BQC = heads.apply(
    {"params": params["rewards"]}, x_BQTD, surprise_BQT, replies.count_BQ
  )
  rows, branches = replies.count_BQ.shape
  reward_BI2C = reward_BQC.reshape(rows, branches // 2, 2, -1)
  thought_11C = jnp.asarray(on_thought, bool)[None, None]
  return jnp.where(thought_11C, reward_BI2C[:, :, 1], reward_BI2C[:, :, 0])


def _surprise(model: Any, backbone: Params, x_BQTD: Array, token_BQT: Array) -> Array:
  """Log-odds of each token against the likeliest one there, ≤ 0; 0 for the first."""
  x_BTD = x_BQTD.reshape(-1, *x_BQTD.shape[2:])[:, :-1]
  token_BT = token_BQT.reshape(-1, token_BQT.shape[2])[:, 1:]
  scores = model.apply({"params": backbone}, x_BTD, token_BT, method="judged")
  return jnp.pad(scores.margin_BT, ((0, 0), (1, 0))).reshape(token_BQT.shape)
