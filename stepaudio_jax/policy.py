"""Policy gradient on the device: log-probabilities and values of replies, the loss.

The prompt, audio included, is computed once for all replies to it, here as in
sampling, unless replies are packed behind copies of it; every log-probability is that
of softmax(logits / temperature), as the sampler's (training.md §3, "Which log-prob").
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core import masked, packs
from stepaudio_jax.core.types import (
  Array,
  Experience,
  Mean,
  PackedReplies,
  Params,
  Replies,
)
from stepaudio_jax.models import heads, vocabulary
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl.parts import correction as corrections
from stepaudio_jax.rl.parts.aggregate import aggregate
from stepaudio_jax.rl.parts.correction import Correction
from stepaudio_jax.rl.parts.kl import kl

_UNCORRECTED = Correction("none")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Update:
  """What one update reads; every leaf begins with the axis of the prompts.

  Attributes:
    experience: its leaves begin with the axes of the replies (packs.leading) in place
      of B·Q.
    beta_BQ: float32 weight of the KL loss, an array so that it may change without a
      new program.
  """

  replies: Replies | PackedReplies
  experience: Experience
  beta_BQ: Array


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
  params: Params,
  replies: Replies | PackedReplies,
  *,
  model: StepAudio,
  temperature: float,
) -> Measured:
  """Log-probability and entropy of each reply token under `params`."""
  return Measured(*_scores(params, replies, model, temperature))


def logprobs(
  params: Params,
  replies: Replies | PackedReplies,
  *,
  model: StepAudio,
  temperature: float,
) -> Array:
  """logprob_BQT of each reply token, by the road that the gradient takes."""
  return _scores(params, replies, model, temperature)[0]


def values(
  critic: Params, replies: Replies | PackedReplies, *, model: StepAudio
) -> Array:
  """value_BQT: what the critic expects before each reply token is drawn.

  Args:
    critic: {"adaptor", "decoder", "value"}, a copy of the policy with a value head.
  """

  def read(x_BTD: Array) -> Array:
    return heads.ValueHead().apply({"params": critic["value"]}, x_BTD)

  if isinstance(replies, PackedReplies):
    return packs.picked(read(_hidden(critic, replies, model)), replies, before=True)
  x_BQTD = _before(critic, replies, model)
  return read(_flat(x_BQTD)).reshape(x_BQTD.shape[:3])


def _before(params: Params, replies: Replies, model: StepAudio) -> Array:
  """x_BQTD that predicts each reply token: the state of the token before it."""
  x_BD, x_BQTD = model.apply({"params": _speaking(params)}, replies, method="branches")
  first_BQ1D = jnp.broadcast_to(
    x_BD[:, None, None], (*x_BQTD.shape[:2], 1, x_BD.shape[-1])
  )
  return jnp.concatenate([first_BQ1D, x_BQTD[:, :, :-1]], axis=2)


def _hidden(params: Params, packed: PackedReplies, model: StepAudio) -> Array:
  """x_BTD of all packs' rows."""
  return model.apply({"params": _speaking(params)}, packed, method="packed")


def _speaking(params: Params) -> Params:
  return {"adaptor": params["adaptor"], "decoder": params["decoder"]}


def _scores(
  params: Params,
  replies: Replies | PackedReplies,
  model: StepAudio,
  temperature: float,
) -> tuple[Array, Array]:
  """Log-probability and entropy [B, Q, T] of the reply tokens."""
  judged = functools.partial(
    model.apply,
    {"params": {"decoder": params["decoder"]}},
    temperature=temperature,
    method="judged",
  )
  if isinstance(replies, PackedReplies):
    x_BTD = _hidden(params, replies, model)
    scores = judged(x_BTD, vocabulary.targets(packs.merged(replies.batch)))
    both = (scores.logprob_BT, scores.entropy_BT)
    found = tuple(packs.picked(x_BT, replies, before=True) for x_BT in both)
    if replies.prefix_PBT is None:
      return found
    # What follows a shared prompt in its row is the first token of one reply alone.
    x_BQD = packs.at_prompts(x_BTD, replies)
    first_BQ = packs.merged(replies.token_PBQT)[..., 0]
    scores = judged(_flat(x_BQD)[:, None], _flat(first_BQ)[:, None])
    firsts = (scores.logprob_BT, scores.entropy_BT)
    return tuple(
      x_BQT.at[..., 0].set(first_B1.reshape(first_BQ.shape))
      for x_BQT, first_B1 in zip(found, firsts, strict=True)
    )
  token_BQT = replies.token_BQT
  scores = judged(_flat(_before(params, replies, model)), _flat(token_BQT))
  both = (scores.logprob_BT, scores.entropy_BT)
  return tuple(x_BT.reshape(token_BQT.shape) for x_BT in both)


def grouped(
  replies: Replies | PackedReplies, experience: Experience, beta: float
) -> Update:
  """An update on all replies, with one weight of the KL."""
  shape = packs.leading(replies)
  apart = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), experience)
  return Update(replies, apart, jnp.full(shape, beta, jnp.float32))


def policy_loss(
  model: StepAudio,
  algorithm: ModuleType,
  hyper: Mapping[str, Any],
  *,
  estimator: str,
  aggregation: str,
  temperature: float,
  constant: float | None = None,
  correction: Correction = _UNCORRECTED,
  first: bool = False,
  critic_first: bool = False,
) -> Callable[[Params, Update, Array], tuple[Array, dict[str, Mean | Measured]]]:
  """Loss of an `Update` for steps.train_step.

  It adds the algorithm's, β · KL to the reference, and the critic's.

  The critic is `params["critic"]`; its gradient touches no parameter of the policy.

  Args:
    algorithm: a file of rl/, with its hyper-parameters `hyper`.
    estimator: of the KL, see rl/parts/kl.py.
    aggregation, constant: over tokens and replies, see rl/parts/aggregate.py.
    correction: of the sampler's log-probabilities; it weighs the algorithm's loss.
    first: the update is the only one of its rollout, so the policy before it is the
      policy itself: `old_BT` is not read, and metrics["measured"] tells what a pass
      of its own (`measured`) would have found, with the update's axes (packs.leading).
    critic_first: the critic's gradient is found before anything else is, so that the
      inputs of only one model's layers are kept at a time. The loss is added up in
      another order.
  """

  def loss_fn(
    params: Params, update: Update, rng: Array
  ) -> tuple[Array, dict[str, Mean | Measured]]:
    del rng
    apart = update.beta_BQ.ndim
    experience = jax.tree.map(
      lambda x: x.reshape(-1, *x.shape[apart:]), update.experience
    )
    replies, learnt = update.replies, None
    if algorithm.CRITIC and critic_first:
      learnt, named = critic_loss(params["critic"], (replies, experience))
      # Nothing reads the replies before the critic's gradient is there.
      ready = lax.stop_gradient(learnt)
      replies, _ = lax.optimization_barrier((replies, ready))
    now_BQT, entropy_BQT = _scores(params, replies, model, temperature)
    now_BT = jnp.where(experience.mask_BT, _flat(now_BQT), 0.0)
    if first:
      experience = dataclasses.replace(experience, old_BT=lax.stop_gradient(now_BT))
    loss_BT, extras = algorithm.token_loss(now_BT, experience, **hyper)
    if correction.kind != "none":
      weight_BT, decided_BT = corrections.weights(correction, experience)
      loss_BT = weight_BT * loss_BT
      extras |= {"correction": weight_BT, "correction_limited": decided_BT}
    kl_BT = kl(now_BT, experience.reference_BT, estimator)
    mean = functools.partial(masked.mean, mask=experience.mask_BT)
    metrics = {"policy_loss": mean(loss_BT), "kl_now": mean(kl_BT)}
    metrics |= {name: mean(value_BT) for name, value_BT in extras.items()}
    loss_BT = loss_BT + update.beta_BQ.reshape(-1, 1) * kl_BT
    if learnt is not None:
      metrics |= named
    elif algorithm.CRITIC:
      value_loss_BT = value_loss(params["critic"], replies, experience)
      metrics["value_loss"] = mean(value_loss_BT)
      loss_BT = loss_BT + value_loss_BT
    if first:
      # Rows as those of the update, packs too, so that parts of it can be joined.
      metrics["measured"] = jax.tree.map(
        lambda x: x.reshape(*update.beta_BQ.shape, -1), Measured(now_BQT, entropy_BQT)
      )
    loss = aggregate(loss_BT, experience.mask_BT, aggregation, constant)
    if learnt is not None:
      loss = dataclasses.replace(loss, total=loss.total + learnt)
    return loss.total, metrics | {"loss": loss}

  def value_loss(
    critic: Params, replies: Replies | PackedReplies, experience: Experience
  ) -> Array:
    value_BT = _flat(values(critic, replies, model=model))
    return algorithm.value_loss(value_BT, experience, **hyper)

  @_at_once
  def critic_loss(
    critic: Params, data: tuple[Replies | PackedReplies, Experience]
  ) -> tuple[Array, dict[str, Mean]]:
    loss_BT, mask_BT = value_loss(critic, *data), data[1].mask_BT
    found = aggregate(loss_BT, mask_BT, aggregation, constant)
    return found.total, {"value_loss": masked.mean(loss_BT, mask_BT)}

  return loss_fn


def _at_once(loss_fn: Callable) -> Callable:
  """(params, data) → (total, metrics) whose gradient is found together with it.

  Only that of `params` is, and it waits for the backward pass in place of what the
  layers keep for theirs.
  """

  @jax.custom_vjp
  def found(params: Params, data: Any) -> tuple[Array, Any]:
    return loss_fn(params, data)

  def forward(params: Params, data: Any) -> tuple[tuple[Array, Any], Params]:
    return lax.optimization_barrier(
      jax.value_and_grad(loss_fn, has_aux=True)(params, data)
    )

  def backward(gradient: Params, cotangent: tuple[Array, Any]) -> tuple[Params, None]:
    scale, _ = cotangent
    return jax.tree.map(lambda x: scale.astype(x.dtype) * x, gradient), None

  found.defvjp(forward, backward)
  return found


def _flat(x_BQT: Array) -> Array:
  return x_BQT.reshape(-1, *x_BQT.shape[2:])
