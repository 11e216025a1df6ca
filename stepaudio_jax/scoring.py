"""Learned rewards: a reward model's scores of replies."""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from stepaudio_jax.core import packs
from stepaudio_jax.core.types import Array, PackedReplies, Params, Replies
from stepaudio_jax.models import adapters, mixture, vocabulary


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
    heads: RewardHeads of as many dimensions as `on_thought`; the parameters are
      `params["rewards"]`. Where `params` has a mixture, it is the last dimension and
      no head of its own, see models/mixture.py.
    params: with low-rank `adapters`, where a run has them.
    replies: branches 2i and 2i + 1 are reply i's answer alone and its turn with the
      thought (data/replies.py).
    on_thought: of every dimension, whether it reads the turn with the thought.

  Returns:
    float32 reward_BIC, I = Q / 2 replies; NaN where there is no reply.

  Raises:
    ValueError: `on_thought` is not of as many dimensions as there are heads.
  """
  return gated(model, heads, params, replies, on_thought)[0]


def gated(
  model: Any,
  heads: Any,
  params: Params,
  replies: Replies | PackedReplies,
  on_thought: Sequence[bool],
) -> tuple[Array, Array | None]:
  """`rewards`, and the weights of the dimensions in the mixture, [B, I, its C]."""
  if len(on_thought) != heads.dimensions:
    raise ValueError(
      f"on_thought is of {len(on_thought)} dimensions, the heads are {heads.dimensions}"
    )
  mixed = mixture.NAME in params
  count = heads.dimensions - mixed
  backbone = {part: params[part] for part in ("adaptor", "decoder")}
  variables = {"params": backbone, **adapters.variables(params)}
  read = _read_packed if isinstance(replies, PackedReplies) else _read
  x_prompt_BQD, x_BQTD, surprise_BQT = read(model, variables, replies)
  _, count_BQ = packs.laid_out(replies)
  reward_BQC = heads.clone(dimensions=count).apply(
    {"params": params["rewards"]}, x_BQTD, surprise_BQT, count_BQ
  )
  thought_11C = jnp.asarray(on_thought[:count], bool)[None, None]
  reward_BIC = _by_view(reward_BQC, thought_11C)
  if not mixed:
    return reward_BIC, None
  tokens_BQC = jnp.broadcast_to(count_BQ[..., None], reward_BQC.shape)
  score_BI, gate_BIC = mixture.scores(
    params[mixture.NAME],
    x_prompt_BQD[:, ::2],
    reward_BIC,
    _by_view(tokens_BQC, thought_11C),
  )
  return jnp.concatenate([reward_BIC, score_BI[..., None]], axis=-1), gate_BIC


def _by_view(value_BQC: Array, thought_11C: Array) -> Array:
  """[B, I, C]: of each reply, that of the view which a dimension reads."""
  rows, branches, dimensions = value_BQC.shape
  value_BI2C = value_BQC.reshape(rows, branches // 2, 2, dimensions)
  return jnp.where(thought_11C, value_BI2C[:, :, 1], value_BI2C[:, :, 0])


def _read(
  model: Any, variables: Params, replies: Replies
) -> tuple[Array, Array, Array]:
  """States of the prompts' last tokens and of the reply tokens, and their surprise.

  The latter is each token's log-odds against the likeliest one there, ≤ 0; 0 for the
  first.
  """
  apply = functools.partial(model.apply, variables)
  x_BD, x_BQTD = apply(replies, method="branches")
  token_BT = replies.token_BQT.reshape(-1, replies.token_BQT.shape[2])[:, 1:]
  x_BTD = x_BQTD.reshape(-1, *x_BQTD.shape[2:])[:, :-1]
  scores = apply(x_BTD, token_BT, method="judged")
  surprise_BT = jnp.pad(scores.margin_BT, ((0, 0), (1, 0)))
  x_BQD = jnp.broadcast_to(x_BD[:, None], (*replies.count_BQ.shape, x_BD.shape[-1]))
  return x_BQD, x_BQTD, surprise_BT.reshape(replies.token_BQT.shape)


def _read_packed(
  model: Any, variables: Params, packed: PackedReplies
) -> tuple[Array, Array, Array]:
  """The same of packed rows."""
  apply = functools.partial(model.apply, variables)
  x_BTD = apply(packed, method="packed")
  target_BT = vocabulary.targets(packs.merged(packed.batch))
  scores = apply(x_BTD, target_BT, method="judged")
  surprise_BQT = packs.picked(scores.margin_BT, packed, before=True)
  surprise_BQT = surprise_BQT.at[..., 0].set(0.0)
  return packs.at_prompts(x_BTD, packed), packs.picked(x_BTD, packed), surprise_BQT
