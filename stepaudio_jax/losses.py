"""Losses as sums: each returns (total, {name: Mean}); "loss" holds the divisor."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Batch, Mean

Sums = tuple[Array, dict[str, Mean]]


def next_token(logits_BTV: Array, batch: Batch, sources: Sequence[str]) -> Sums:
  """Cross-entropy of every token that `loss_BT` marks, given those before it.

  Args:
    logits_BTV: position t predicts token t + 1.
    batch: a marked token that begins its segment has nothing to be predicted from
      and does not count.
    sources: names of the mixture's sets; each one's loss is "loss_<name>".

  Returns:
    The sum in nats, divisor = predicted tokens.
  """
  target_BT = batch.token_BT[:, 1:]
  same_BT = batch.segment_BT[:, 1:] == batch.segment_BT[:, :-1]
  mask_BT = batch.loss_BT[:, 1:] & same_BT & (batch.segment_BT[:, 1:] > 0)
  logits_BTV = logits_BTV[:, :-1].astype(jnp.float32)
  chosen_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], -1)[..., 0]
  nll_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - chosen_BT
  right_BT = chosen_BT >= logits_BTV.max(-1)  # an argmax costs ten times as much
  loss = masked.mean(nll_BT, mask_BT)
  metrics = {
    "loss": loss,
    "accuracy": masked.mean(right_BT.astype(jnp.float32), mask_BT),
  }
  source_BT = batch.source_BT[:, 1:]
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
