"""Terms of single raters, learnt beside a reward model and thrown away with the run.

A rater may lean to the reply that is shown second, whatever it says, and may give
higher marks than others. Each has one number of either kind for each dimension: the
first is added to the gap of the two rewards where that rater's choice is predicted, the
second to the reward where that rater's mark is. So the heads need not explain them. A
rater without a number, such as none at all in use, has 0.
"""

import jax.numpy as jnp

from stepaudio_jax.core.types import Array, Params

NOBODY = -1


def init_params(room: int, dimensions: int) -> Params:
  """{"lean" [raters, C], "leniency" [raters, C]}, all 0."""
  zero = jnp.zeros((room, dimensions), jnp.float32)
  return {"lean": zero, "leniency": jnp.copy(zero)}


def terms(params: Params, rater_BJ: Array, turned_BJ: Array) -> tuple[Array, Array]:
  """(lean_BJC, leniency_BJC) of the raters of comparisons.

  Args:
    rater_BJ: number of each, NOBODY where there is none.
    turned_BJ: where that rater saw the second reply first.
  """
  known_BJ1 = (rater_BJ >= 0)[..., None]
  index_BJ = jnp.maximum(rater_BJ, 0)
  lean_BJC, leniency_BJC = (
    jnp.where(known_BJ1, params[name][index_BJ], 0.0) for name in ("lean", "leniency")
  )
  return jnp.where(turned_BJ[..., None], -lean_BJC, lean_BJC), leniency_BJC
