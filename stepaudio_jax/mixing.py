"""Where a mixture of reward dimensions begins: what of each is length."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from stepaudio_jax import logs, meshes, scoring, sharding
from stepaudio_jax.core import progress, verbosity
from stepaudio_jax.core.types import Params, TrainState
from stepaudio_jax.data.comparisons import Pairs
from stepaudio_jax.models import mixture
from stepaudio_jax.models.heads import RewardHeads


def begun(c: ConfigDict, model: Any, state: TrainState, feed: Pairs) -> TrainState:
  """A state before its first step, with the weights of the length (λ) in it.

  They are found on the replies of `c.mixture.reference` comparisons, spread over all.
  """
  on_thought = [name in c.dims_on_thought for name in c.dimensions]
  params = {**state.frozen, **state.params}
  reward_NC, tokens_NC = measured(c, model, params, feed, on_thought)
  verbosity_NC = np.log(np.maximum(tokens_NC, 1))
  held = dict(state.params[mixture.NAME])
  weight_C, said = np.zeros(len(c.dimensions), np.float32), []
  for k, name in enumerate(c.dimensions):
    if not held["of"][k]:
      continue
    reward_N, v_N = reward_NC[:, k], verbosity_NC[:, k]
    weight_C[k] = verbosity.weight(reward_N, v_N, c.mixture.most)
    before, after = (
      verbosity.spearman(reward_N - lam * v_N, v_N) for lam in (0.0, weight_C[k])
    )
    said.append(f"{name} {before:+.2f} → {after:+.2f} (λ {weight_C[k]:+.3f})")
  logs.say(
    f"rank correlation with length on {len(reward_NC)} replies: {'; '.join(said)}"
  )
  held["verbosity"] = sharding.placed(weight_C, held["verbosity"].sharding)
  return dataclasses.replace(state, params=state.params | {mixture.NAME: held})


def measured(
  c: ConfigDict, model: Any, params: Params, feed: Pairs, on_thought: Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
  """reward_NC of the heads and tokens_NC of what they read, of both replies each."""
  mesh = meshes.mesh(c.mesh)
  score = jax.jit(
    functools.partial(
      scoring.rewards, model, RewardHeads(len(on_thought)), on_thought=on_thought
    )
  )
  heads = {part: params[part] for part in ("adaptor", "decoder", "rewards")}
  counts = enumerate(feed.counts)
  places = [(source, index) for source, count in counts for index in range(count)]
  places = places[:: max(len(places) // c.mixture.reference, 1)][: c.mixture.reference]
  rewards, tokens = [], []
  starts = range(0, len(places), c.batch_size)
  with sharding.over(mesh):
    for start in progress.bar(starts, "measuring", "batch"):
      asked = places[start : start + c.batch_size]
      rows = [[place] for place in asked] + [[]] * (c.batch_size - len(asked))
      batch = feed.batch(rows, start)
      reward_B2C = score(heads, sharding.put(batch.replies, mesh))
      rewards.append(sharding.own(reward_B2C, mesh)[: len(asked)])
      for place in asked:
        views = [feed.entry(*place).replies[i] for i in range(2)]
        tokens.append(
          [[len(view[thought]) for thought in on_thought] for view in views]
        )
  dimensions = len(on_thought)
  flat = (np.concatenate(rewards), np.asarray(tokens))
  return tuple(x.reshape(-1, dimensions) for x in flat)
