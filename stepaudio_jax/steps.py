"""The one training step, and the loss of each supervised objective."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepaudio_jax import losses, policy, sharding
from stepaudio_jax.core import masked, packs, tree
from stepaudio_jax.core.types import (
  Array,
  Batch,
  Contrasts,
  Mean,
  PackedReplies,
  Params,
  SpeechBatch,
  TrainState,
)
from stepaudio_jax.models import vocabulary

# Of the attributes' nats by frame; at 1 the transcripts are learnt a third more slowly.
_BY_FRAME = 0.2

LossFn = Callable[[Params, Any, Array], losses.Sums]


class NonFiniteLoss(FloatingPointError):
  """The loss or gradient is not finite; the last checkpoint is intact."""


def finite(
  scalars: dict[str, Array], step: int, ids: Sequence[str]
) -> dict[str, float]:
  """The scalars of `train_step` on the host, named "train/…".

  A batch without a single target has no loss (NaN) and a gradient of zero.

  Raises:
    NonFiniteLoss: naming the step and the batch's examples.
  """
  host = jax.device_get(scalars)
  values = {f"train/{name}": float(value) for name, value in host.items()}
  checked = ("train/grad_norm", *["train/loss"] * (values["train/targets"] > 0))
  for name in checked:
    if not math.isfinite(values[name]):
      raise NonFiniteLoss(f"{name} is {values[name]} at step {step}, examples {ids}")
  return values


def initial_state(
  params: Params,
  trained: Sequence[str],
  tx: optax.GradientTransformation,
  key: Array,
  *,
  offload: bool = False,
) -> TrainState:
  """The state before the first step, laid out as `params` are.

  Args:
    params: on a mesh (sharding.placer); those of `trained` have an optimiser state.
    key: of the step's randomness.
    offload: the optimiser's moments wait in the host's memory between steps.
  """
  ours, frozen = tree.split(params, tuple(trained))
  places = sharding.places(params)
  mesh = jax.tree.leaves(places)[0].mesh
  data = jax.device_get(jax.random.key_data(key))
  abstract = jax.eval_shape(tx.init, ours)
  state = TrainState(ours, frozen, abstract, np.zeros((), np.int32), data)
  lies = sharding.state(mesh, state, places)
  if offload:
    lies = dataclasses.replace(lies, opt_state=sharding.far(abstract, lies.opt_state))
  return dataclasses.replace(
    state,
    opt_state=jax.jit(tx.init, out_shardings=lies.opt_state)(ours),
    step=sharding.placed(state.step, lies.step),
    rng=sharding.placed(data, lies.rng),
  )


def jitted(step: Callable, state: TrainState) -> Callable:
  """`train_step` as a program whose new state replaces the old and lies as `state`.

  What waits in the host's memory comes to the device within it, and goes back.
  """
  lies = sharding.places(state)
  near = sharding.on_device(lies.opt_state)

  def stepped(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
    if near != lies.opt_state:
      opt_state = jax.device_put(state.opt_state, near)
      state = dataclasses.replace(state, opt_state=opt_state)
    return step(state, batch)

  return jax.jit(stepped, donate_argnums=0, out_shardings=(lies, None))


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
    batch: a pytree of arrays of as many rows, which `microbatches` divides.
    loss_fn: (params, batch, rng) → (total, metrics) with a SUM as total and its
      divisor in metrics["loss"]. What is no Mean there has a row for each of the batch.
    tx: the optimiser of `state.params`.
    microbatches: how many parts are run one after another.

  Returns:
    The next state, and scalars: every metric as a mean, `grad_norm`, and `targets`, the
    divisor of the loss; beside them the metrics that have rows.
  """
  rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)

  def sums(part, part_rng):
    def total(params):
      return loss_fn({**state.frozen, **params}, part, part_rng)

    (_, metrics), grads = jax.value_and_grad(total, has_aux=True)(state.params)
    rows = {name: x for name, x in metrics.items() if not isinstance(x, Mean)}
    means = {name: x for name, x in metrics.items() if name not in rows}
    return (grads, means), rows

  (grads, metrics), rows = _summed(sums, batch, rng, microbatches)
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
  scalars["targets"] = metrics["loss"].count
  return state, scalars | rows | {"grad_norm": optax.tree.norm(grads)}


def _summed(sums: Callable, batch: Any, rng: Array, microbatches: int) -> Any:
  """(sums, rows) of sums(part, rng): added over the parts of the batch, and joined."""
  if microbatches == 1:
    return sums(batch, rng)
  parts = jax.tree.map(functools.partial(_strided, parts=microbatches), batch)
  rngs = jax.random.split(rng, microbatches)
  like, _ = jax.eval_shape(sums, jax.tree.map(lambda x: x[0], parts), rngs[0])
  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

  def add(carry, part):
    more, rows = sums(*part)
    return jax.tree.map(jnp.add, carry, more), rows

  total, rows = jax.lax.scan(add, zero, (parts, rngs))
  return total, jax.tree.map(_joined, rows)


def _strided(x: Array, parts: int) -> Array:
  """x[k::parts] for each k: where rows are split over devices, each has some of all."""
  return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def _joined(x: Array) -> Array:
  """The reverse of `_strided`."""
  return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def next_token_loss(model: Any, sources: Sequence[str]) -> LossFn:
  """Audio and text to the marked tokens, on cached encoder frames.

  Args:
    sources: names of the mixture's sets; each one's loss is logged as "loss_<name>".
  """

  def loss_fn(params: Params, batch: Batch, rng: Array) -> losses.Sums:
    del rng
    apply = functools.partial(model.apply, {"params": params})
    x_BTD = apply(batch, method="hidden")
    scores = apply(x_BTD, vocabulary.targets(batch), method="judged")
    return losses.next_token(scores, batch, sources)

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


def dpo_loss(model: Any, **settings: Any) -> LossFn:
  """Preferred replies become likelier than the others, against a reference.

  The reference is `params["reference"]`, adaptor and decoder that nobody trains; both
  read the same encoder frames. Log-probabilities are those of the untempered softmax.

  Args:
    settings: of losses.dpo.

  Raises:
    ValueError: they make no loss.
  """
  beta, nll_weight = settings["beta"], settings["nll_weight"]
  if beta <= 0 or nll_weight < 0:
    raise ValueError(f"beta={beta} must be above 0, nll_weight={nll_weight} at least 0")

  def loss_fn(params: Params, batch: Contrasts, rng: Array) -> losses.Sums:
    del rng
    read = functools.partial(policy.logprobs, model=model, temperature=1.0)
    spoken_BQT = batch.spoken_BQT
    if isinstance(batch.replies, PackedReplies):
      spoken_BQT = packs.merged(spoken_BQT)
    return losses.dpo(
      read(params, batch.replies),
      read(params["reference"], batch.replies),
      spoken_BQT,
      **settings,
    )

  return loss_fn
