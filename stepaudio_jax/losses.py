"""Losses as sums: each returns (total, {name: Mean}); "loss" holds the divisor."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Batch, Mean
from stepaudio_jax.models import vocabulary
from stepaudio_jax.models.vocabulary import TokenScores
from stepaudio_jax.rl.parts.kl import kl

Sums = tuple[Array, dict[str, Mean]]


def next_token(scores: TokenScores, batch: Batch, sources: Sequence[str]) -> Sums:
  """Cross-entropy of every token that `loss_BT` marks, given those before it.

  Args:
    scores: at t, of token t + 1 (`vocabulary.targets`).
    batch: a marked token that begins its segment has nothing to be predicted from
      and does not count.
    sources: names of the mixture's sets; each one's loss is "loss_<name>".

  Returns:
    The sum in nats, divisor = predicted tokens.
  """
  segment_BT = vocabulary.following(batch.segment_BT)
  mask_BT = (
    vocabulary.following(batch.loss_BT)
    & (segment_BT == batch.segment_BT)
    & (segment_BT > 0)
  )
  nll_BT = -scores.logprob_BT
  right_BT = (scores.margin_BT >= 0).astype(jnp.float32)
  loss = masked.mean(nll_BT, mask_BT)
  metrics = {"loss": loss, "accuracy": masked.mean(right_BT, mask_BT)}
  source_BT = vocabulary.following(batch.source_BT)
  for index, name in enumerate(sources):
    metrics[f"loss_{name}"] = masked.mean(nll_BT, mask_BT & (source_BT == index))
  return loss.total, metrics


def ctc(
  logits_BUV: Array, frame_count_B: Array, label_BT: Array, label_count_B: Array
) -> Sums:
  """Connectionist temporal classification (Graves et al. 2006), blank 0.

  A transcript that cannot fit its frames (one frame a symbol, one more between equal
  neighbours) has no path: it is left out of the sum and counted as "infeasible".

  Returns:
    Nats per symbol, summed over clips; divisor = feasible clips. (A sum over symbols
    would let long transcripts drown the attributes that are learnt beside it.)
  """
  frames_U = jnp.arange(logits_BUV.shape[1])
  labels_T = jnp.arange(label_BT.shape[1])
  padding_BU = (frames_U[None] >= frame_count_B[:, None]).astype(jnp.float32)
  padding_BT = (labels_T[None] >= label_count_B[:, None]).astype(jnp.float32)
  nll_B = optax.ctc_loss(logits_BUV, padding_BU, label_BT, padding_BT, blank_id=0)
  repeat_BT = (label_BT[:, 1:] == label_BT[:, :-1]) & (padding_BT[:, 1:] == 0)
  feasible_B = label_count_B + repeat_BT.sum(1) <= frame_count_B
  symbols_B = jnp.maximum(label_count_B, 1).astype(jnp.float32)
  loss = masked.mean(nll_B / symbols_B, feasible_B)
  everyone_B = jnp.ones_like(feasible_B)
  metrics = {
    "loss": loss,
    "infeasible": masked.mean((~feasible_B).astype(jnp.float32), everyone_B),
  }
  return loss.total, metrics


def classes(logits_BUV: Array, frame_count_B: Array, label_B: Array) -> Sums:
  """Cross-entropy of one attribute, asked of every frame of its clip.

  Args:
    label_B: class of the clip; −1 (unknown) is left out.

  Returns:
    Nats per frame, summed over clips; divisor = known labels. "accuracy" is that of
    the class with the highest mean log-probability over the clip's frames.
  """
  known_B = label_B >= 0
  inside_BU = jnp.arange(logits_BUV.shape[1])[None] < frame_count_B[:, None]
  frames_B1 = jnp.maximum(frame_count_B, 1).astype(jnp.float32)[:, None]
  logprob_BUV = jax.nn.log_softmax(logits_BUV.astype(jnp.float32))
  mean_BV = jnp.where(inside_BU[..., None], logprob_BUV, 0.0).sum(1) / frames_B1
  label_B1 = jnp.maximum(label_B, 0)[:, None]
  loss = masked.mean(-jnp.take_along_axis(mean_BV, label_B1, -1)[:, 0], known_B)
  right_B = (mean_BV.argmax(-1) == label_B).astype(jnp.float32)
  return loss.total, {"loss": loss, "accuracy": masked.mean(right_B, known_B)}


def bradley_terry(
  reward_B2C: Array,
  label_BJC: Array,
  *,
  margin: float,
  scaled: bool,
  lean_BJC: Array | None = None,
) -> Sums:
  """Pairwise choices with ties (training.md §2.2), on the gap Δ of the two rewards.

  Level p ≠ 0 costs −log σ(±Δ − margin·|p|) (Llama 2, arXiv 2307.09288, eq. 2), or with
  `scaled` −|p|·log σ(±Δ) (HelpSteer2-Preference, arXiv 2410.01257, eq. 4); a tie is the
  cross-entropy to ½, without margin and of weight 1. Several raters of one comparison
  are a soft label: the mean of their terms is the cross-entropy to their shares.

  Args:
    label_BJC: see types.Comparisons; NaN is left out.
    lean_BJC: is added to Δ, see models/raters.py.

  Returns:
    The sum over comparisons of the mean over present labels, in nats; divisor =
    comparisons with a label.

  Raises:
    ValueError: margin and scale are two forms of one thing, or the margin is negative.
  """
  if margin < 0 or (margin and scaled):
    raise ValueError(
      f"margin={margin} with scaled={scaled}: a margin is at least 0, and 0 if scaled"
    )
  gap_B1C, known_BJC = _gaps(reward_B2C, label_BJC)
  gap = gap_B1C if lean_BJC is None else gap_B1C + lean_BJC
  level_BJC = jnp.where(known_BJC, label_BJC, 0.0)
  strength_BJC = jnp.abs(level_BJC)
  shifted_BJC = jnp.sign(level_BJC) * gap - margin * strength_BJC
  decided_BJC = -jax.nn.log_sigmoid(shifted_BJC)
  if scaled:
    decided_BJC *= strength_BJC
  tied = -0.5 * (jax.nn.log_sigmoid(gap) + jax.nn.log_sigmoid(-gap))
  nats_BJC = jnp.where(strength_BJC > 0, decided_BJC, tied)
  return _by_comparison(nats_BJC, known_BJC)


def regression(
  reward_B2C: Array, score_B2JC: Array, leniency_BJC: Array | None = None
) -> Sums:
  """Squared distance of each reward from the raters' marks (SteerLM, 2310.05344).

  The target is mark − 3: a reward of 1 is one point above the middle of the scale.

  Args:
    score_B2JC: 1…5; NaN is left out.
    leniency_BJC: is added to both rewards, see models/raters.py.

  Returns:
    The sum over comparisons of the mean over present marks; divisor = comparisons
    with a mark.
  """
  reward_B21C = reward_B2C[:, :, None]
  known_B2JC = ~jnp.isnan(score_B2JC) & ~jnp.isnan(reward_B21C)
  target_B2JC = jnp.where(known_B2JC, score_B2JC - 3.0, 0.0)
  shown = reward_B21C
  if leniency_BJC is not None:
    shown = reward_B21C + leniency_BJC[:, None]
  error_B2JC = jnp.where(known_B2JC, shown, 0.0) - target_B2JC
  return _by_comparison(error_B2JC**2, known_B2JC)


def centring(reward_B2C: Array, judged_BC: Array) -> Sums:
  """(r₁ + r₂)², which keeps rewards near 0 (arXiv 2312.09244, §4).

  Args:
    judged_BC: where anybody said something; what nobody judged is left alone.

  Returns:
    The sum over comparisons of the mean over those; divisor = comparisons with some.
  """
  known_BC = ~jnp.isnan(reward_B2C).any(1) & judged_BC
  sum_BC = jnp.where(known_BC[:, None], reward_B2C, 0.0).sum(1)
  return _by_comparison(sum_BC**2, known_BC)


def ridge(*terms: tuple[Array, Array]) -> Sums:
  """Squares of numbers that are to stay near 0, where each is used.

  Args:
    terms: (value_BJC, used_BJC), all of one shape.

  Returns:
    The sum over comparisons of the mean over what is used; divisor = comparisons with
    some.
  """
  values, used = (jnp.stack(each, axis=-1) for each in zip(*terms, strict=True))
  return _by_comparison(values**2, used)


def choices_right(reward_B2C: Array, label_BJC: Array) -> list[Mean]:
  """Of each dimension: how many decided choices are predicted; a gap of 0 counts ½."""
  gap_B1C, known_BJC = _gaps(reward_B2C, label_BJC)
  decided_BJC = known_BJC & (label_BJC != 0)
  right_BJC = 0.5 + 0.5 * jnp.sign(gap_B1C) * jnp.sign(label_BJC)
  dimensions = range(label_BJC.shape[-1])
  return [masked.mean(right_BJC[..., c], decided_BJC[..., c]) for c in dimensions]


def dpo(
  now_BQT: Array,
  reference_BQT: Array,
  spoken_BQT: Array,
  *,
  beta: float,
  length_normalised: bool,
  nll_weight: float,
) -> Sums:
  """Direct preference optimisation (arXiv 2305.18290, eq. 7).

  −log σ(β(h_c − h_r)) + α·NLL(chosen), h = log π − log π_ref summed over a reply's
  spoken tokens, or with `length_normalised` their mean (Tülu 3, arXiv 2411.15124, eq.
  6). The second term is nats per token of the chosen reply (arXiv 2404.19733, eq. 1).

  Args:
    now_BQT, reference_BQT: log-probabilities; Q = 2, the chosen reply first.
    spoken_BQT: tokens that count; a comparison without any in one reply counts not.
    beta: β. nll_weight: α.

  Returns:
    The sum over comparisons, divisor = comparisons. "reward_…" is β·h; "kl" is k3 to
    the reference by token, of replies that the policy did not draw.
  """
  both = [jnp.where(spoken_BQT, x, 0.0) for x in (now_BQT, reference_BQT)]
  now_BQT, reference_BQT = both[0], jax.lax.stop_gradient(both[1])
  count_BQ = spoken_BQT.sum(-1).astype(jnp.float32)
  known_B = (count_BQ > 0).all(-1)
  one_BQ = jnp.maximum(count_BQ, 1.0)
  ratio_BQ = (now_BQT - reference_BQT).sum(-1)
  reward_BQ = beta * (ratio_BQ / one_BQ if length_normalised else ratio_BQ)
  margin_B = reward_BQ[:, 0] - reward_BQ[:, 1]
  nll_B = -(now_BQT.sum(-1) / one_BQ)[:, 0]
  preference_B = -jax.nn.log_sigmoid(margin_B)
  loss = masked.mean(preference_B + nll_weight * nll_B, known_B)
  named = {"preference": preference_B, "nll": nll_B, "margin": margin_B}
  named |= {"reward_chosen": reward_BQ[:, 0], "reward_rejected": reward_BQ[:, 1]}
  named |= {"accuracy": 0.5 + 0.5 * jnp.sign(margin_B)}
  metrics = {name: masked.mean(x_B, known_B) for name, x_B in named.items()}
  metrics["kl"] = masked.mean(
    kl(now_BQT, reference_BQT, "k3"), spoken_BQT & known_B[:, None, None]
  )
  return loss.total, metrics | {"loss": loss}


def _gaps(reward_B2C: Array, label_BJC: Array) -> tuple[Array, Array]:
  """Second minus first reward, and where there is a label on it.

  What is missing is 0 before any arithmetic, so that its gradient is 0 and not NaN.
  """
  gap_B1C = (reward_B2C[:, 1] - reward_B2C[:, 0])[:, None]
  known_BJC = ~jnp.isnan(label_BJC) & ~jnp.isnan(gap_B1C)
  return jnp.where(jnp.isnan(gap_B1C), 0.0, gap_B1C), known_BJC


def _by_comparison(value: Array, known: Array) -> Sums:
  """The mean of every comparison's known values, summed over comparisons."""
  axes = tuple(range(1, value.ndim))
  count_B = known.sum(axes, dtype=jnp.float32)
  sum_B = jnp.where(known, value, 0.0).sum(axes)
  loss = masked.mean(sum_B / jnp.maximum(count_B, 1.0), count_B > 0)
  return loss.total, {"loss": loss}
