"""The one training step, and the loss of each supervised objective."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stepaudio_jax import losses
from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Batch, Mean, Params, SpeechBatch, TrainState

# Of the attributes' nats by frame; at 1 the transcripts are learnt a third more slowly.
_BY_FRAME = 0.2

LossFn = Callable[[Params, Any, Array], losses.Sums]


def train_step(
  state: TrainState,
  batch: Any,
  *,
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  microbatches: int,
) -> tuple[TrainState, dict[str, Array]]:
  """One update from one batch.

  Gradients, loss and metrics travel as sums over micro-batches and are divided once
  by the count of the whole batch, so that splitting changes no result.

  Args:
    state: the run so far.
    batch: a pytree of arrays whose leading axis `microbatches` divides.
    loss_fn: (params, batch, rng) → (total, metrics) with a SUM as total and its
      divisor in metrics["loss"].
    tx: the optimiser of `state.params`.
    microbatches: how many parts are run one after another.

  Returns:
    The next state, and scalars: every metric as a mean, `grad_norm`.
  """
  rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

  def sums(part, part_rng):
    def total(params):
      return loss_fn({**state.frozen, **params}, part, part_rng)

    (_, metrics), grads = jax.value_and_grad(total, has_aux=True)(state.params)
    return grads, metrics

  grads, metrics = _summed(sums, batch, rng, microbatches)
  # A batch without a single target must not divide by zero: its gradient is zero.
  grads = jax.tree.map(lambda g: g / jnp.maximum(metrics["loss"].count, 1), grads)
  with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
  state = TrainState(
    params=optax.apply_updates(state.params, updates),
    frozen=state.frozen,
    opt_state=opt_state,
    step=state.step + 1,
    rng=state.rng,
  )
  scalars = {name: masked.ratio(value) for name, value in metrics.items()}
  return state, scalars | {"grad_norm": optax.tree.norm(grads)}


def _summed(sums: Callable, batch: Any, rng: Array, microbatches: int) -> Any:
  """sums(part, rng) added over the parts of the batch."""
  if microbatches == 1:
    return sums(batch, rng)
  parts = jax.tree.map(
    lambda x: x.reshape(microbatches, x.shape[0] // microbatches, *x.shape[1:]), batch
  )
  rngs = jax.random.split(rng, microbatches)
  like = jax.eval_shape(sums, jax.tree.map(lambda x: x[0], parts), rngs[0])
  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

  def add(carry, part):
    return jax.tree.map(jnp.add, carry, sums(*part)), None

  return jax.lax.scan(add, zero, (parts, rngs))[0]


def next_token_loss(model: Any, sources: Sequence[str]) -> LossFn:
  """Audio and text to the marked tokens, on cached encoder frames.

  Args:
    sources: names of the mixture's sets; each one's loss is logged as "loss_<name>".
  """

  def loss_fn(params: Params, batch: Batch, rng: Array) -> losses.Sums:
    del rng
    logits_BTV = model.apply({"params": params}, batch)
    return losses.next_token(logits_BTV, batch, sources)

  return loss_fn


def hear_loss(model: Any, heads: Any, attributes: Sequence[str]) -> LossFn:
  """Pre-alignment 0a: CTC on transcripts; attributes by clip and by frame.

  Args:
    model: its `encode` gives the frames.
    heads: HearingHeads; its parameters are `params["hear"]`.
    attributes: their names, in the order of `attribute_BC`.

  Returns:
    Sum over clips of CTC nats per symbol and of the nats of each attribute, by clip and
    by frame; divisor = clips.
  """

  def loss_fn(params: Params, batch: SpeechBatch, rng: Array) -> losses.Sums:
    del rng
    frames_BUE, count_B = model.apply(
      {"params": {"encoder": params["encoder"]}},
      batch.mel_BLM,
      batch.sample_count_B,
      method="encode",
    )
    symbols_BUV, class_logits = heads.apply(
      {"params": params["hear"]}, frames_BUE, count_B
    )
    clips = jnp.float32(batch.mel_BLM.shape[0])
    total, spoken = losses.ctc(
      symbols_BUV, count_B, batch.transcript_BT, batch.transcript_count_B
    )
    metrics = {"ctc": spoken["loss"], "ctc_infeasible": spoken["infeasible"]}
    for index, name in enumerate(attributes):
      label_B = batch.attribute_BC[:, index]
      pooled_B1V, frames_BUV = class_logits[name]
      part, named = losses.classes(pooled_B1V, jnp.ones_like(count_B), label_B)
      total += part + _BY_FRAME * losses.classes(frames_BUV, count_B, label_B)[0]
      metrics[f"accuracy_{name}"] = named["accuracy"]
    return total, metrics | {"loss": Mean(total, clips)}

  return loss_fn
