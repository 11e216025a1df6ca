"""Rewards of several dimensions: how they make one advantage, and each one's part."""

import dataclasses
import math

import jax.numpy as jnp

from stepaudio_jax.core import masked
from stepaudio_jax.core.types import Array, Mean
from stepaudio_jax.rl.parts import groups, veto

CLIP = 5.0  # of |A_k| under "gdpo"; no A_k of up to 26 replies is as large

Floor = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Combining:
  """How the dimensions of a reply make its advantage.

  Attributes:
    std_floor: of the spread within a group; one number, or one of every dimension.
    normalisation: "sum" (weighted, then compared) or "gdpo" (compared, then weighted).
    clip: of |A_k| under "gdpo".
    scaled: under "sum", whether differences are divided by their spread.
    veto: threshold of every dimension, see veto.py; () is none.
  """

  std_floor: Floor
  normalisation: str = "gdpo"
  clip: float = CLIP
  scaled: bool = True
  veto: tuple[float, ...] = ()


def weighted_sum(x_BC: Array, weight_BC: Array) -> Array:
  """Σ_c w_c·x_c by reply; NaN where a dimension with a weight is missing.

  A dimension of weight 0 is logged only: it may be missing.
  """
  if weight_BC.shape != x_BC.shape:
    raise ValueError(f"weights of shape {weight_BC.shape} for rewards {x_BC.shape}")
  used_BC = weight_BC != 0
  sum_B = jnp.where(used_BC, weight_BC * x_BC, 0.0).sum(1)
  known_B = (jnp.isfinite(x_BC) | ~used_BC).all(1)
  return jnp.where(known_B, sum_B, jnp.nan)


def floors(std_floor: Floor, columns: int) -> Array | float:
  """Of every dimension: the one number, or floor_1C.

  Raises:
    ValueError: as many floors as there are other things.
  """
  if not isinstance(std_floor, tuple):
    return std_floor
  if len(std_floor) != columns:
    raise ValueError(f"{len(std_floor)} floors of the spread for {columns} dimensions")
  return jnp.asarray(std_floor, jnp.float32)[None]


def sum_floor(std_floor: Floor, weight_BC: Array) -> Array | float:
  """Of a weighted sum: the one number, or √Σ_c (w_c·floor_c)² by reply, floor_B1.

  So noises add up that know nothing of each other.
  """
  if not isinstance(std_floor, tuple):
    return std_floor
  square_BC = jnp.square(weight_BC * floors(std_floor, weight_BC.shape[1]))
  return jnp.sqrt(square_BC.sum(1, keepdims=True))


def normalised(
  reward_BC: Array, group: int, std_floor: Floor, clip: float = CLIP
) -> Array:
  """Each dimension standardised in its group, within ±clip; NaN where it is missing."""
  floor_1C = floors(std_floor, reward_BC.shape[1])
  return jnp.clip(groups.standardised(reward_BC, group, floor_1C), -clip, clip)


def counted(reward_BC: Array, weight_BC: Array, group: int, how: Combining) -> Array:
  """The rewards as they count: where there is a veto, see veto.py."""
  if not how.veto:
    return reward_BC
  return veto.lowered(reward_BC, weight_BC, group, how.veto)


def parts(reward_BC: Array, weight_BC: Array, group: int, how: Combining) -> Array:
  """What each dimension adds to a reply's advantage before any whitening.

  Their sum is the advantage of rl/parts/relative.py: Σ w_k·A_k under "gdpo", and under
  "sum" each dimension's distance from its mean in the group, over the spread of the
  sum. NaN for a reply that has no advantage, since it misses a reward that counts.

  Args:
    reward_BC: as they count.
  """
  used_BC = weight_BC != 0
  if how.normalisation == "gdpo":
    each_BC = weight_BC * normalised(reward_BC, group, how.std_floor, how.clip)
  else:
    total_B1 = weighted_sum(reward_BC, weight_BC)[:, None]
    known_BC = jnp.isfinite(total_B1)
    weighted_BC = jnp.where(used_BC, weight_BC * reward_BC, 0.0)
    each_BC, _ = groups.deviations(jnp.where(known_BC, weighted_BC, jnp.nan), group)
    if how.scaled:
      _, std_B1 = groups.deviations(total_B1, group)
      each_BC = each_BC / jnp.maximum(std_B1, sum_floor(how.std_floor, weight_BC))
  whole_B1 = (jnp.isfinite(each_BC) | ~used_BC).all(1, keepdims=True)
  return jnp.where(whole_B1, jnp.where(used_BC, each_BC, 0.0), jnp.nan)


def statistics(
  reward_BC: Array, weight_BC: Array, group: int, how: Combining
) -> dict[str, Array]:
  """To be logged: what each dimension looks like, and its part of the advantage.

  Algorithms that do not compare within groups (PPO, REINFORCE++ without its baseline)
  are told of as if they did: parts and shares are of what separates replies to one
  prompt.

  Args:
    group: of one reply there is "raw" and "missing" alone.

  Returns:
    By name, one number a dimension (NaN where nothing is known of it): "raw" mean
    reward; "std" mean over the groups of the spread within them; "norm" mean |A_k| of
    the standardised rewards; "weighted" mean |part| of the advantage (`parts`) where it
    has a reward; "share" Σ|part| of that of all dimensions; "no_spread" share of the
    groups whose std is at most the floor, or that have fewer than two rewards, of
    those in which it has a weight or a reward (a rubric is not of plain prompts);
    "missing" share of the replies without one.
  """
  known_BC = jnp.isfinite(reward_BC)
  out = {
    "raw": _mean(reward_BC),
    "missing": 1.0 - known_BC.astype(jnp.float32).mean(0),
  }
  if group < 2:
    return out
  _, std_BC = groups.deviations(reward_BC, group)
  std_BC = std_BC[::group]  # a row for each group
  counted_BC = counted(reward_BC, weight_BC, group, how)
  norm_BC = jnp.abs(normalised(counted_BC, group, how.std_floor, how.clip))
  part_BC = jnp.abs(parts(counted_BC, weight_BC, group, how))
  part_C = jnp.where(jnp.isfinite(part_BC), part_BC, 0.0).sum(0)
  whole = part_C.sum()
  share_C = part_C / jnp.where(whole > 0, whole, jnp.nan)
  flat_BC = ~(std_BC > floors(how.std_floor, reward_BC.shape[1]))
  asked_BC = (known_BC | (weight_BC != 0)).reshape(-1, group, known_BC.shape[1]).any(1)
  return out | {
    "std": _mean(std_BC),
    "norm": _mean(norm_BC),
    "weighted": _mean(jnp.where(known_BC, part_BC, jnp.nan)),
    "share": jnp.where(jnp.isfinite(norm_BC).any(0), share_C, jnp.nan),
    "no_spread": _mean(jnp.where(asked_BC, flat_BC.astype(jnp.float32), jnp.nan)),
  }


def check_clip(clip: float, normalisation: str, group: int) -> None:
  """Whether another clip than the usual one acts.

  Raises:
    ValueError: nothing is standardised by dimension, or no A_k can be as large.
  """
  if clip == CLIP:
    return
  if normalisation != "gdpo":
    raise ValueError(
      f"reward_clip={clip} with normalisation {normalisation!r}: dimensions are "
      f"clipped under 'gdpo' alone; leave it at {CLIP}"
    )
  most = (group - 1) / math.sqrt(group)
  if clip >= most:
    raise ValueError(
      f"reward_clip={clip} would do nothing: in groups of {group} no standardised "
      f"reward is beyond ±{most:.2f}"
    )


def _mean(x_BC: Array) -> Array:
  """Mean over the finite rows of each column."""
  known_BC = jnp.isfinite(x_BC)
  sum_C = jnp.where(known_BC, x_BC, 0.0).sum(0)
  return masked.ratio(Mean(sum_C, known_BC.sum(0).astype(jnp.float32)))
