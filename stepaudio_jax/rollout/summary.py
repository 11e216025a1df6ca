"""What a step's replies look like, as numbers to be logged."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepaudio_jax.core import masked
from stepaudio_jax.rl.parts import agreement, dimensions
from stepaudio_jax.rl.parts.kl import kl
from stepaudio_jax.rollout import said
from stepaudio_jax.rollout.actor import Played

_SPREAD = 1e-4  # rewards of a group that differ by less have no spread


def summary(played: Played, group: int) -> dict[str, float]:
  """Rewards by dimension, KL to the reference, entropy, lengths, agreement."""
  e, drawn = played.experience, played.drawn
  scores, rollout = drawn.scores, drawn.rollout
  mean = lambda x_BT: float(masked.ratio(masked.mean(x_BT, e.mask_BT)))  # noqa: E731
  by_name = dimensions.statistics(e.reward_BC, e.weight_BC, group, _SPREAD)
  tokens_B = rollout.mask_BT.sum(axis=1)
  unclosed = [text.answer is None for text in drawn.texts]
  agreed = agreement.agreement(e.sampler_BT, e.old_BT, e.mask_BT)
  out = {
    f"reward/{name}/{kind}": float(value_C[k])
    for kind, value_C in by_name.items()
    for k, name in enumerate(scores.names)
  }
  out |= {f"train/agreement_{name}": float(x) for name, x in agreed.items()}
  return out | {
    "reward/objective": _finite_mean(scores.objective_B),
    "reward/masked_share": float(np.isnan(scores.objective_B).mean()),
    "train/kl_k1": mean(kl(e.old_BT, e.reference_BT, "k1")),
    "train/kl_k3": mean(kl(e.old_BT, e.reference_BT, "k3")),
    "train/entropy": mean(played.entropy_BT),
    "train/reply_tokens": float(tokens_B.mean()),
    "train/truncated_share": float(rollout.truncated_B.mean()),
    "train/unclosed_share": float(np.mean(unclosed)),
  }


def rows(step: int, asked: Sequence[Any], played: Played, prompts: int) -> list[Any]:
  """Rollout rows (said.rows) of the first so many prompts.

  Args:
    asked: the dialogue rows of all prompts.
    played: with advantages, or all 0 where nobody trains on them.
  """
  e, drawn = played.experience, played.drawn
  scores = drawn.scores
  copies = len(drawn.texts) // len(asked)
  kept = min(prompts, len(asked)) * copies
  mask_BT = drawn.rollout.mask_BT
  count_B = np.maximum(mask_BT.sum(axis=1), 1)
  norm_BC = np.asarray(dimensions.normalised(e.reward_BC, copies, _SPREAD))
  kl_BT = np.where(mask_BT, kl(e.old_BT, e.reference_BT, "k3"), 0.0)

  def named(x_BC):
    return dict(zip(scores.names, x_BC.T, strict=True))

  shown = {
    "reward": named(scores.reward_BC),
    "normalised": named(norm_BC),
    "weighted": named(np.where(scores.weight_BC == 0, 0, scores.weight_BC * norm_BC)),
    "objective": scores.objective_B,
    "advantage": np.asarray(e.advantage_BT)[:, 0],
    "tokens": mask_BT.sum(axis=1),
    "kl": kl_BT.sum(axis=1) / count_B,
    "entropy": np.asarray(played.entropy_BT).sum(axis=1) / count_B,
  }
  return said.rows(step, asked[:prompts], drawn.rollout, drawn.texts[:kept], shown)


def _finite_mean(x_B: np.ndarray) -> float:
  finite_B = np.isfinite(x_B)
  return float(x_B[finite_B].mean()) if finite_B.any() else float("nan")
