"""Statistics of the replies that share a prompt."""

import jax.numpy as jnp

from stepaudio_jax.core.types import Array


def check(rows: int, group: int) -> None:
  """Whether the rows are groups.

  Raises:
    ValueError: they are no whole number of them.
  """
  if group < 1 or rows % group:
    raise ValueError(f"{rows} replies are no whole number of groups of {group}")


def check_several(group: int) -> None:
  """Whether a group has replies to compare.

  Raises:
    ValueError: groups of one.
  """
  if group < 2:
    raise ValueError(
      f"group={group} (sampling.samples); a group needs at least 2 replies to compare"
    )


def deviations(x_BC: Array, group: int) -> tuple[Array, Array]:
  """Each reply's distance from the mean of its group, and the group's spread.

  Members that are not finite are left out; a group with fewer than two others has no
  statistics.

  Args:
    x_BC: replies to one prompt touch.
    group: replies to each prompt.

  Returns:
    deviation_BC and std_BC (ddof 1, the same for the whole group), NaN where there is
    none.

  Raises:
    ValueError: the rows are no whole number of groups.
  """
  rows, columns = x_BC.shape
  check(rows, group)
  x_BGC = x_BC.reshape(rows // group, group, columns)
  known_BGC = jnp.isfinite(x_BGC)
  count_B1C = known_BGC.sum(1, keepdims=True).astype(jnp.float32)
  # Measured from a member instead of from 0, equal rewards have exactly no spread;
  # otherwise the rounding of their mean, divided by a small floor, looks like one.
  anchor_B1C = jnp.where(known_BGC, x_BGC, -jnp.inf).max(1, keepdims=True)
  moved_BGC = jnp.where(known_BGC, x_BGC - anchor_B1C, 0.0)
  mean_B1C = moved_BGC.sum(1, keepdims=True) / jnp.maximum(count_B1C, 1.0)
  deviation_BGC = jnp.where(known_BGC, moved_BGC - mean_B1C, 0.0)
  square_B1C = jnp.square(deviation_BGC).sum(1, keepdims=True)
  std_B1C = jnp.sqrt(square_B1C / jnp.maximum(count_B1C - 1.0, 1.0))
  enough_B1C = count_B1C >= 2
  deviation_BGC = jnp.where(known_BGC & enough_B1C, deviation_BGC, jnp.nan)
  std_B1C = jnp.where(enough_B1C, std_B1C, jnp.nan)
  std_BGC = jnp.broadcast_to(std_B1C, x_BGC.shape)
  return deviation_BGC.reshape(rows, columns), std_BGC.reshape(rows, columns)


def standardised(x_BC: Array, group: int, std_floor: Array | float) -> Array:
  """(x − mean_g) / max(std_g, floor), NaN where the group has no statistics.

  Args:
    std_floor: one number, or floor_1C of every column, or floor_BC.
  """
  deviation_BC, std_BC = deviations(x_BC, group)
  return deviation_BC / jnp.maximum(std_BC, std_floor)
