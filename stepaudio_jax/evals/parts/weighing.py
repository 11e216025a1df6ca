"""How sure a model is of the level that its reply names: p(1), …, p(6) in its place."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from stepaudio_jax import policy
from stepaudio_jax.core import levels
from stepaudio_jax.core.types import Array, Params, Replies
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.prompts import Prompts
from stepaudio_jax.evals.parts.replies import Reply
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.text.tokenizer import Tokenizer
from stepaudio_jax.workdirs import Model

# (adaptor and decoder, replies) → log-probability [B, Q, T] of each reply token
Logprobs = Callable[[Params, Replies], Array]


def program(model: Model) -> Logprobs:
  """The road that policy gradients take, at temperature 1."""
  known = {"model": StepAudio(model.size), "temperature": 1.0}
  return jax.jit(functools.partial(policy.logprobs, **known))


def probabilities(
  logprobs: Logprobs,
  params: Params,
  model: Model,
  said: Sequence[Reply],
  prompts: Prompts,
  batch_size: int,
) -> list[np.ndarray | None]:
  """Of the six level tokens behind what each reply says before it names its level.

  float64 [6], which add up to 1 at most: the rest is for other tokens. None where a
  reply names no level, or by another token than its number.

  Args:
    params: adaptor and decoder, on the device.
    prompts: what the replies belong to.
    batch_size: replies at a time.
  """
  level_ids = level_tokens(model.tokenizer)
  spots = [place(reply, model.tokenizer) for reply in said]
  found: list[np.ndarray | None] = [None] * len(said)
  chosen = [k for k, spot in enumerate(spots) if spot is not None]
  # Those of like length share a batch.
  chosen.sort(key=lambda k: len(said[k].prompt.example.token_T) + spots[k])
  for start in range(0, len(chosen), batch_size):
    some = chosen[start : start + batch_size]
    asked = [
      said[k].prompt.followed(said[k].token_ids[: spots[k]], f"{said[k].prompt.id}/{k}")
      for k in some
    ]
    longest = max(len(one.example.token_T) for one in asked)
    batch = replies_lib.laid(model, asked, prompts.as_long_as(longest), batch_size)
    shape = (batch_size, levels.COUNT, 1)
    count_BQ = np.ones(shape[:2], np.int32)
    count_BQ[len(some) :] = 0
    token_BQT = np.broadcast_to(np.asarray(level_ids, np.int32)[None, :, None], shape)
    logprob_BQ = logprobs(params, Replies(batch, token_BQT, count_BQ))[..., 0]
    for k, logprob_6 in zip(some, np.asarray(logprob_BQ, np.float64), strict=False):
      found[k] = np.exp(logprob_6)
  return found


def level_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
  """The ids of "1" … "6".

  Raises:
    ValueError: one of them is not a single token of the vocabulary.
  """
  spelt = {number: tokenizer.encode(str(number)) for number in levels.NUMBERS}
  long = {number: ids for number, ids in spelt.items() if len(ids) != 1}
  if long:
    raise ValueError(f"levels are to be single tokens; {tokenizer.name!r} has {long}")
  return tuple(ids[0] for ids in spelt.values())


def place(reply: Reply, tokenizer: Tokenizer) -> int | None:
  """Where the token of the named level stands among a reply's; None without one.

  It is the last one in whose place another number would be another level.
  """
  level = levels.named(reply.answer)
  if level is None:
    return None
  wanted = level_tokens(tokenizer)[level - 1]
  other = levels.COUNT + 1 - level
  for k in reversed(range(len(reply.token_ids))):
    if reply.token_ids[k] == wanted:
      before = tokenizer.decode(reply.token_ids[:k])
      if levels.named(f"{before}{other}") == other:
        return k
  return None
