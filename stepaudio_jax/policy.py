"""Policy gradient on the device: log-probabilities and values of replies, the loss.

The prompt, audio included, is computed once for all replies to it, here as in
sampling; every log-probability is that of softmax(logits / temperature), as the
sampler's (training.md §3, "Which log-prob").
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Experience, Mean, Params, Replies
from stepaudio_jax.models import heads
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.models.vocabulary import TokenScores
from stepaudio_jax.rl.parts.aggregate import aggregate
from stepaudio_jax.rl.parts.kl import kl


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Update:
  """What one update reads; every leaf begins with the axis of the prompts.

  Attributes:
    experience: axes [B, Q, T] in place of its [B·Q, T].
    beta_B: float32 weight of the KL loss, an array so that it may change without a new
      program.
  """

  replies: Replies
  experience: Experience
  beta_B: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Measured:
  """Of every reply token, before an update; axes [B, Q, T].

  Attributes:
    logprob_BQT: of the token.
    entropy_BQT: nats of the distribution that it was drawn from.
  """

  logprob_BQT: Array
  entropy_BQT: Array


def measured(
  params: Params, replies: Replies, *, model: StepAudio, temperature: float
) -> Measured:
  """Log-probability and entropy of each reply token under `params`."""
  scores = _scores(params, replies, model, temperature)
  shape = replies.token_BQT.shape
  return Measured(scores.logprob_BT.reshape(shape), scores.entropy_BT.reshape(shape))


def logprobs(
  params: Params, replies: Replies, *, model: StepAudio, temperature: float
) -> Array:
  """logprob_BQT of each reply token, by the road that the gradient takes."""
  scores = _scores(params, replies, model, temperature)
  return scores.logprob_BT.reshape(replies.token_BQT.shape)


def values(critic: Params, replies: Replies, *, model: StepAudio) -> Array:
  """value_BQT: what the critic expects before each reply token is drawn.

  Args:
    critic: {"adaptor", "decoder", "value"}, a copy of the policy with a value head.
  """
  x_BQTD = _before(critic, replies, model)
  value_BT = heads.ValueHead().apply({"params": critic["value"]}, _flat(x_BQTD))
  return value_BT.reshape(x_BQTD.shape[:3])


def _before(params: Params, replies: Replies, model: StepAudio) -> Array:
  """x_BQTD that predicts each reply token: the state of the token before it."""
  part = {"adaptor": params["adaptor"], "decoder": params["decoder"]}
  x_BD, x_BQTD = model.apply({"params": part}, replies, method="branches")
  first_BQ1D = jnp.broadcast_to(
    x_BD[:, None, None], (*x_BQTD.shape[:2], 1, x_BD.shape[-1])
  )
  return jnp.concatenate([first_BQ1D, x_BQTD[:, :, :-1]], axis=2)


def _scores(
  params: Params, replies: Replies, model: StepAudio, temperature: float
) -> TokenScores:
  """Of the reply tokens, [B·Q, T]."""
  x_BTD = _flat(_before(params, replies, model))
  part = {"decoder": params["decoder"]}
  token_BT = _flat(replies.token_BQT)
  return model.apply({"params": part}, x_BTD, token_BT, temperature, method="judged")


def grouped(replies: Replies, experience: Experience, beta: float) -> Update:
  """An update on all replies, with one weight of the KL."""
  shape = replies.token_BQT.shape[:2]
  apart = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), experience)
  return Update(replies, apart, jnp.full(shape[:1], beta, jnp.float32))


def policy_loss(
  model: StepAudio,
  algorithm: ModuleType,
  hyper: Mapping[str, Any],
  *,
  estimator: str,
  aggregation: str,
  temperature: float,
) -> Callable[[Params, Update, Array], tuple[Array, dict[str, Mean]]]:
  """Loss of an `Update` for steps.train_step.

  It adds the algorithm's, β · KL to the reference, and the critic's.

  The critic is `params["critic"]`; its gradient touches no parameter of the policy.

  Args:
    algorithm: a file of rl/, with its hyper-parameters `hyper`.
    estimator: of the KL, see rl/parts/kl.py.
    aggregation: over tokens and replies, see rl/parts/aggregate.py.
  """

  def loss_fn(
    params: Params, update: Update, rng: Array
  ) -> tuple[Array, dict[str, Mean]]:
    del rng
    experience = jax.tree.map(_flat, update.experience)
    now_BQT = logprobs(params, update.replies, model=model, temperature=temperature)
    now_BT = jnp.where(experience.mask_BT, _flat(now_BQT), 0.0)
    loss_BT, extras = algorithm.token_loss(now_BT, experience, **hyper)
    kl_BT = kl(now_BT, experience.reference_BT, estimator)
    copies = update.replies.token_BQT.shape[1]
    beta_B1 = jnp.repeat(update.beta_B, copies)[:, None]
    mean = functools.partial(masked.mean, mask=experience.mask_BT)
    metrics = {"policy_loss": mean(loss_BT), "kl_now": mean(kl_BT)}
    metrics |= {name: mean(value_BT) for name, value_BT in extras.items()}
    loss_BT = loss_BT + beta_B1 * kl_BT
    if algorithm.CRITIC:
      value_BT = _flat(values(params["critic"], update.replies, model=model))
      value_loss_BT = algorithm.value_loss(value_BT, experience, **hyper)
      metrics["value_loss"] = mean(value_loss_BT)
      loss_BT = loss_BT + value_loss_BT
    loss = aggregate(loss_BT, experience.mask_BT, aggregation)
    return loss.total, metrics | {"loss": loss}

  return loss_fn


def _flat(x_BQT: Array) -> Array:
  return x_BQT.reshape(-1, *x_BQT.shape[2:])
