"""What a reward model learns from pairs of replies, and from whom."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from stepaudio_jax import losses, scoring
from stepaudio_jax.core import masked, packs
from stepaudio_jax.core.types import Array, Comparisons, Mean, PackedReplies, Params
from stepaudio_jax.models import raters as raters_lib

LOSSES = ("bradley_terry", "regression", "centring")

LossFn = Callable[[Params, Any, Array], losses.Sums]


def preference_loss(
  model: Any,
  heads: Any,
  dimensions: Sequence[str],
  on_thought: Sequence[bool],
  weights: Mapping[str, float],
  *,
  margin: float,
  scaled: bool,
  rater_ridge: float = 0.0,
) -> LossFn:
  """A reward model's loss on pairs of replies.

  A dimension that nobody judged in a comparison gets nothing from it, be it centring.

  Args:
    heads: RewardHeads; their parameters are `params["rewards"]`.
    dimensions: their names, in the order of `label_BJC`.
    on_thought: of each, see scoring.rewards.
    weights: of `losses.bradley_terry`, `regression` and `centring`, by name.
    margin, scaled: see losses.bradley_terry.
    rater_ridge: where above 0 each rater has terms of their own, `params["raters"]`,
      see models/raters.py, and this is what their squares cost at every label.

  Returns:
    The weighted sum over comparisons; divisor = comparisons with a label or a mark.

  Raises:
    ValueError: a weight is missing, unknown or negative, or neither objective has one.
  """
  _check_weights(weights)

  def loss_fn(params: Params, batch: Comparisons, rng: Array) -> losses.Sums:
    del rng
    reward_B2C = scoring.rewards(model, heads, params, batch.replies, on_thought)
    label_BJC, score_B2JC, rater_BJ, turned_BJ = said(batch)
    lean_BJC = leniency_BJC = None
    if rater_ridge:
      terms = (params["raters"], rater_BJ, turned_BJ)
      lean_BJC, leniency_BJC = raters_lib.terms(*terms)
    judged_BC = ~jnp.isnan(label_BJC).all(1) | ~jnp.isnan(score_B2JC).all((1, 2))
    sums = {
      "bradley_terry": losses.bradley_terry(
        reward_B2C, label_BJC, margin=margin, scaled=scaled, lean_BJC=lean_BJC
      ),
      "regression": losses.regression(reward_B2C, score_B2JC, leniency_BJC),
      "centring": losses.centring(reward_B2C, judged_BC),
    }
    total = sum(weights[name] * part for name, (part, _) in sums.items())
    right = losses.choices_right(reward_B2C, label_BJC)
    metrics = {
      **{name: parts["loss"] for name, (_, parts) in sums.items()},
      **{f"accuracy_{n}": m for n, m in zip(dimensions, right, strict=True)},
    }
    if rater_ridge:
      leaned, marked = ~jnp.isnan(label_BJC), ~jnp.isnan(score_B2JC).all(1)
      parts = losses.ridge((lean_BJC, leaned), (leniency_BJC, marked))
      total += rater_ridge * parts[0]
      metrics["ridge"] = parts[1]["loss"]
    compared = judged_BC.any(1).sum(dtype=jnp.float32)
    return total, {"loss": Mean(total, compared), **metrics}

  return loss_fn


def mixture_loss(
  model: Any,
  heads: Any,
  dimensions: Sequence[str],
  on_thought: Sequence[bool],
  *,
  chosen: int,
  margin: float,
  scaled: bool,
) -> LossFn:
  """The mixture's gate, by Bradley-Terry on one dimension's labels.

  Args:
    heads: RewardHeads of `dimensions`, which end with the mixture.
    on_thought: of each, see scoring.rewards.
    chosen: place of the dimension whose labels are to be predicted.
    margin, scaled: see losses.bradley_terry.

  Returns:
    The sum over comparisons; divisor = comparisons with such a label. "gate_<name>" is
    the mean weight of a dimension.
  """

  def loss_fn(params: Params, batch: Comparisons, rng: Array) -> losses.Sums:
    del rng
    read = (model, heads, params, batch.replies, on_thought)
    reward_B2C, gate_B2C = scoring.gated(*read)
    label_BJ1 = said(batch)[0][..., chosen : chosen + 1]
    score_B21 = reward_B2C[..., -1:]
    total, parts = losses.bradley_terry(
      score_B21, label_BJ1, margin=margin, scaled=scaled
    )
    judged_B = ~jnp.isnan(label_BJ1).all((1, 2))
    both_B2C = jnp.stack([reward_B2C[..., chosen], score_B21[..., 0]], axis=-1)
    pairs = jnp.broadcast_to(label_BJ1, (*label_BJ1.shape[:2], 2))
    right = losses.choices_right(both_B2C, pairs)
    metrics = {
      "bradley_terry": parts["loss"],
      f"accuracy_{dimensions[chosen]}": right[0],
      f"accuracy_{dimensions[-1]}": right[1],
    }
    for c, name in enumerate(dimensions[:-1]):
      metrics[f"gate_{name}"] = masked.mean(gate_B2C[:, 0, c], judged_B)
    return total, {"loss": parts["loss"], **metrics}

  return loss_fn


def said(batch: Comparisons) -> tuple[Array, Array, Array | None, Array | None]:
  """label_BJC, score_B2JC, rater_BJ and turned_BJ, P·B as B."""
  labels = (batch.label_BJC, batch.score_B2JC, batch.rater_BJ, batch.turned_BJ)
  return packs.merged(labels) if isinstance(batch.replies, PackedReplies) else labels


def _check_weights(weights: Mapping[str, float]) -> None:
  if set(weights) != set(LOSSES) or any(w < 0 for w in weights.values()):
    raise ValueError(
      f"weights of the loss {dict(weights)}: each of {LOSSES} needs one, at least 0"
    )
  if not weights["bradley_terry"] + weights["regression"]:
    raise ValueError(f"nothing is learned with the weights {dict(weights)}")
