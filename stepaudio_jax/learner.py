"""The learning half of a policy-gradient run: its state, advantages and updates.

The other half plays: rollout/ asks, samples and scores.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from stepaudio_jax import optim, policy, sharding, steps
from stepaudio_jax.core.types import (
  Experience,
  PackedReplies,
  Params,
  Replies,
  TrainState,
)
from stepaudio_jax.models import heads
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl.parts import dimensions
from stepaudio_jax.rl.parts.correction import Correction
from stepaudio_jax.rl.parts.dimensions import Combining
from stepaudio_jax.rl.parts.kl import kl, next_beta
from stepaudio_jax.rollout.keys import hyper

SPEAKING = ("adaptor", "decoder")
OFFLOADS = ("optimiser", "reference")

# (state, replies, experience, step, ids, β) → (state, values, what was measured)
Update = Callable[
  [TrainState, Replies | PackedReplies, Experience, int, Sequence[str], float],
  tuple[TrainState, dict[str, float], policy.Measured | None],
]


def optimiser(c: ConfigDict, algorithm: ModuleType) -> optax.GradientTransformation:
  """The policy's, and beside it the critic's own."""
  updates = c.total_steps * c.epochs * c.minibatches
  ours = optim.optimiser(c.optim, updates)
  if not algorithm.CRITIC:
    return ours
  both = {"policy": ours, "critic": optim.optimiser(c.critic_optim, updates)}
  return optax.partition(both, _owners)


def _owners(params: Params) -> dict[str, str]:
  return {name: "critic" if name == "critic" else "policy" for name in params}


def initial_state(
  c: ConfigDict,
  loaded: Params,
  tx: optax.GradientTransformation,
  algorithm: ModuleType,
) -> TrainState:
  """The policy of `c.init`; a critic starts as its copy with a value head."""
  params = {**speaking(loaded), "encoder": loaded["encoder"]}
  key = jax.random.key(c.seed)
  if algorithm.CRITIC:
    scale = loaded["decoder"]["norm"]["scale"]
    everywhere = sharding.replicated(scale.sharding.mesh)
    make = functools.partial(heads.init_value, width=scale.shape[-1])
    value = jax.jit(make, out_shardings=everywhere)(key)
    # Its own copy: a step overwrites both.
    params["critic"] = {**jax.tree.map(jnp.copy, speaking(loaded)), "value": value}
  trained = [part for part in params if part != "encoder"]
  offload = "optimiser" in sharding.offloads(c.offload, OFFLOADS)
  return steps.initial_state(params, trained, tx, key, offload=offload)


def speaking(params: Params) -> Params:
  return {part: params[part] for part in SPEAKING}


def advised(
  c: ConfigDict,
  algorithm: ModuleType,
  experience: Experience,
  beta: float,
  how: Combining | None = None,
) -> Experience:
  """With the algorithm's advantages; a KL in the reward is added to each token's.

  Args:
    beta: weight of the KL, an argument so that it may change without a new program.
    how: floors of every dimension, and a veto; None: those of the recipe's algorithm.
  """
  known = {"group": c.sampling.samples, "aggregation": c.aggregation, **hyper(c)}
  if c.kl.where == "reward":
    k1_BT = kl(experience.old_BT, experience.reference_BT, "k1")
    known["kl_reward_BT"] = -beta * k1_BT
  if how is None:
    return algorithm.advantages(experience, **known)
  if "std_floor" in algorithm.DEFAULTS:
    known["std_floor"] = how.std_floor
  raw_BC, weight_BC = experience.reward_BC, experience.weight_BC
  counted_BC = dimensions.counted(raw_BC, weight_BC, c.sampling.samples, how)
  experience = dataclasses.replace(experience, reward_BC=counted_BC)
  learned = algorithm.advantages(experience, **known)
  return dataclasses.replace(learned, reward_BC=raw_BC)


def following(c: ConfigDict, beta: float, found: float) -> float:
  """The next step's weight of the KL, `found` being this step's in nats per token."""
  return next_beta(
    beta,
    found,
    target=c.kl.target,
    horizon=c.kl.horizon,
    replies=c.prompts_per_step * c.sampling.samples * c.sampling.turns,
  )


def update_measures(c: ConfigDict) -> bool:
  """Whether the update itself tells what the policy says of its replies.

  A pass of its own is saved where the only update of a rollout starts from the policy
  that gave it, and nothing asks before the loss does.
  """
  once = c.epochs * c.minibatches == 1
  return once and not c.rollout.overlap and c.kl.where == "loss"


def policy_loss(c: ConfigDict, model: StepAudio, algorithm: ModuleType) -> Callable:
  """policy.policy_loss of a recipe; a constant divisor is its longest reply."""
  return policy.policy_loss(
    model,
    algorithm,
    hyper(c),
    estimator=c.kl.estimator,
    aggregation=c.aggregation,
    temperature=c.sampling.temperature,
    constant=c.sampling.max_new_tokens if c.aggregation == "constant" else None,
    correction=Correction(**c.correction),
    first=update_measures(c),
    critic_first=algorithm.CRITIC and c.critic_first,
  )


def step_program(
  c: ConfigDict,
  model: StepAudio,
  algorithm: ModuleType,
  tx: optax.GradientTransformation,
  like: TrainState,
) -> Callable:
  """(state, policy.Update) → (state, metrics): the program of one update.

  Args:
    like: a state that lies as the states are to lie; abstract arrays will do.
  """
  loss_fn = policy_loss(c, model, algorithm)
  one = functools.partial(
    steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=c.microbatches
  )
  return steps.jitted(one, like)


def updater(
  c: ConfigDict,
  model: StepAudio,
  algorithm: ModuleType,
  tx: optax.GradientTransformation,
  like: TrainState,
) -> Update:
  """What makes epochs × minibatches updates of one rollout.

  Args:
    like: a state that lies as the states are to lie.
  """
  step_fn = step_program(c, model, algorithm, tx, like)

  def update(
    state: TrainState,
    replies: Replies | PackedReplies,
    experience: Experience,
    step: int,
    ids: Sequence[str],
    beta: float,
  ) -> tuple[TrainState, dict[str, float], policy.Measured | None]:
    in_loss = beta if c.kl.where == "loss" else 0.0
    whole = policy.grouped(replies, experience, in_loss)
    found, measured = [], None
    for part in range(c.epochs * c.minibatches):
      first = part % c.minibatches
      some = jax.tree.map(lambda x, a=first: x[a :: c.minibatches], whole)
      state, scalars = step_fn(state, some)
      measured = scalars.pop("measured", None)
      found.append(steps.finite(scalars, step, ids))
    means = {name: _mean([row[name] for row in found]) for name in found[0]}
    return state, means, measured

  return update


def _mean(values: Sequence[float]) -> float:
  """Of the updates that have a value: one whose replies are all masked has none."""
  known = [value for value in values if not math.isnan(value)]
  return float(np.mean(known)) if known else math.nan
