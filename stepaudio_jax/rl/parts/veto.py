"""A veto: replies that fail in one dimension gain nothing by the others.

The rubric literature has a failed criterion of this kind cancel what all others give
(Rubicon, arXiv 2508.12790, "veto mechanism"), GDPO (arXiv 2601.05242) gives the easier
reward only where the harder one is earned. Both set rewards to 0; the 0 of a learned
reward means nothing, so here a vetoed reply has in every other dimension the worst
reward of its group. That is done to the rewards, before any normalisation: by sum no
vetoed reply is above one of its group that is better in the vetoing dimension, and
where all are vetoed only that dimension is learnt from.
"""

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from stepaudio_jax.core.types import Array
from stepaudio_jax.rl.parts import groups


def thresholds(given: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
  """Of every dimension, −∞ where it has no veto; () where none has.

  Raises:
    ValueError: no such dimension, or a threshold that is no finite number.
  """
  unknown = sorted(set(given) - set(names))
  if unknown:
    raise ValueError(f"rewards.veto of {unknown}; the rewards are {[*names]}")
  odd = {name: value for name, value in given.items() if not math.isfinite(value)}
  if odd:
    raise ValueError(f"rewards.veto {odd}: thresholds are finite numbers")
  if not given:
    return ()
  return tuple(float(given[name]) if name in given else -math.inf for name in names)


def vetoed(reward_BC: Array, threshold_C: Sequence[float]) -> Array:
  """bool_B: below a threshold. What is missing (NaN) vetoes nothing."""
  return (reward_BC < jnp.asarray(threshold_C, jnp.float32)[None]).any(1)


def lowered(
  reward_BC: Array, weight_BC: Array, group: int, threshold_C: Sequence[float]
) -> Array:
  """Rewards where vetoed replies have the worst of their group, see above.

  The worst is the least where a dimension's weight is above 0, the greatest where it is
  below. Missing rewards stay missing, and those of weight 0 as they are.
  """
  rows, columns = reward_BC.shape
  groups.check(rows, group)
  sign_BC = jnp.sign(weight_BC)
  good_BC = jnp.where(jnp.isfinite(reward_BC), sign_BC * reward_BC, jnp.inf)
  least_B1C = good_BC.reshape(rows // group, group, columns).min(1, keepdims=True)
  least_BC = jnp.broadcast_to(least_B1C, (rows // group, group, columns))
  worst_BC = sign_BC * least_BC.reshape(rows, columns)
  others_1C = ~jnp.isfinite(jnp.asarray(threshold_C, jnp.float32))[None]
  falls_BC = vetoed(reward_BC, threshold_C)[:, None] & others_1C & (weight_BC != 0)
  return jnp.where(falls_BC & jnp.isfinite(reward_BC), worst_BC, reward_BC)
