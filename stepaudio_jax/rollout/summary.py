"""What a step's replies look like, as numbers to be logged."""

from typing import Any

import numpy as np

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Experience
from stepaudio_jax.rl.parts import dimensions, veto
from stepaudio_jax.rl.parts.dimensions import Combining
from stepaudio_jax.rl.parts.kl import kl
from stepaudio_jax.rollout import drawn as drawn_lib
from stepaudio_jax.rollout import rubric
from stepaudio_jax.rollout.actor import Played
from stepaudio_jax.rollout.drawn import SPREAD, Drawn
from stepaudio_jax.rollout.scorer import Scores

PLAIN = Combining(std_floor=SPREAD)


def summary(
  played: Played, group: int, budget: int = 0, how: Combining = PLAIN
) -> dict[str, float]:
  """Rewards by dimension, KL to the reference, entropy, lengths.

  Args:
    group: replies to each prompt.
    budget: tokens after which a thought was closed; 0 if none was.
    how: the dimensions make the advantage.
  """
  e, drawn = played.experience, played.drawn
  scores, rollout = drawn.scores, drawn.rollout
  mean = lambda x_BT: float(masked.ratio(masked.mean(x_BT, e.mask_BT)))  # noqa: E731
  by_name = dimensions.statistics(e.reward_BC, e.weight_BC, group, how)
  tokens_B = rollout.count_B
  forced_B = tokens_B > rollout.mask_BT.sum(axis=1)
  unclosed = [text.answer is None for text in drawn.texts]
  out = {
    f"reward/{name}/{kind}": float(value_C[k])
    for kind, value_C in by_name.items()
    for k, name in enumerate(scores.names)
  }
  if rubric.NAME in scores.names:
    out["reward/rubric/unread"] = _unread(scores)
  if how.veto:
    vetoed_B = veto.vetoed(scores.reward_BC, how.veto)
    out["reward/vetoed_share"] = float(vetoed_B.mean())
  return out | {
    "reward/objective": _finite_mean(scores.objective_B),
    "reward/masked_share": float(np.isnan(scores.objective_B).mean()),
    "train/kl_k1": mean(kl(e.old_BT, e.reference_BT, "k1")),
    "train/kl_k3": mean(kl(e.old_BT, e.reference_BT, "k3")),
    "train/entropy": mean(played.entropy_BT),
    "train/reply_tokens": float(tokens_B.mean()),
    "train/truncated_share": float(rollout.truncated_B.mean()),
    "train/unclosed_share": float(np.mean(unclosed)),
    **({"train/forced_share": float(forced_B.mean())} if budget else {}),
    **(_by_turn(drawn) if drawn.turns > 1 else {}),
  }


def rows(
  step: int,
  played: Played,
  advantage_BT: np.ndarray,
  prompts: int,
  how: Combining = PLAIN,
) -> list[Any]:
  """Rollout rows (drawn.rows) of the first so many prompts.

  "reward" is raw, "normalised" standardised in the group, and "weighted" the part that
  a dimension has in the advantage before any whitening.

  Args:
    advantage_BT: all 0 where nobody trains on them.
    how: the dimensions make the advantage.
  """
  e, drawn = played.experience, played.drawn
  scores = drawn.scores
  mask_BT = drawn.rollout.mask_BT
  count_B = np.maximum(mask_BT.sum(axis=1), 1)
  norm_BC, part_BC = _compared(e, drawn.samples, how)
  kl_BT = np.where(mask_BT, kl(e.old_BT, e.reference_BT, "k3"), 0.0)

  def named(x_BC):
    return dict(zip(scores.names, x_BC.T, strict=True))

  shown = {
    "reward": named(scores.reward_BC),
    "normalised": named(norm_BC),
    "weight": named(scores.weight_BC),
    "weighted": named(part_BC),
    "objective": scores.objective_B,
    "advantage": np.asarray(advantage_BT)[:, 0],
    "tokens": drawn.rollout.count_B,
    "kl": kl_BT.sum(axis=1) / count_B,
    "entropy": np.asarray(played.entropy_BT).sum(axis=1) / count_B,
  }
  kept = drawn_lib.chosen(drawn, range(min(prompts, len(drawn.asked))))
  return drawn_lib.rows(step, kept, shown)


def _compared(
  e: Experience, group: int, how: Combining
) -> tuple[np.ndarray, np.ndarray]:
  """Standardised rewards and parts of the advantage; NaN without a group."""
  if group < 2:
    nothing_BC = np.full(e.reward_BC.shape, np.nan)
    return nothing_BC, nothing_BC
  counted_BC = dimensions.counted(e.reward_BC, e.weight_BC, group, how)
  norm_BC = dimensions.normalised(counted_BC, group, how.std_floor, how.clip)
  part_BC = dimensions.parts(counted_BC, e.weight_BC, group, how)
  return np.asarray(norm_BC), np.asarray(part_BC)


def _unread(scores: Scores) -> float:
  """Of the replies that a rubric counts for, the share without a reward by it."""
  place = scores.names.index(rubric.NAME)
  counts_B = scores.weight_BC[:, place] != 0
  unread_B = np.isnan(scores.reward_BC[counts_B, place])
  return float(unread_B.mean()) if counts_B.any() else float("nan")


def _by_turn(drawn: Drawn) -> dict[str, float]:
  """Objectives of the played turns, from 1, and what later turns have to do without."""
  shape = (len(drawn.asked), drawn.turns, -1)
  objective_BTG = drawn.scores.objective_B.reshape(shape)
  failed_BTG = (drawn.rollout.count_B == 0).reshape(shape)
  empty_BTG = np.asarray([not text.answer for text in drawn.texts]).reshape(shape)
  left_BTG = (empty_BTG & ~failed_BTG)[:, :-1]
  return {
    **{
      f"reward/turn_{k + 1}": _finite_mean(objective_BTG[:, k])
      for k in range(drawn.turns)
    },
    "data/turns_empty": float(left_BTG.sum()),
    "data/turns_failed": float(failed_BTG.sum()),
  }


def _finite_mean(x_B: np.ndarray) -> float:
  finite_B = np.isfinite(x_B)
  return float(x_B[finite_B].mean()) if finite_B.any() else float("nan")
