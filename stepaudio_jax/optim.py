"""The optimiser of a recipe: schedule, clipping, decay of matrices only."""

import jax
import optax
from ml_collections import ConfigDict

from stepaudio_jax.core import recipe
from stepaudio_jax.core.types import Params

KEYS = (
  *("name", "lr", "schedule", "warmup_steps"),
  *("b1", "b2", "eps", "weight_decay", "clip_norm"),
)
_DECAYED = ("kernel", "embedding")


def optimiser(c: ConfigDict, total_steps: int) -> optax.GradientTransformation:
  """AdamW or SGD after a clip of the global norm.

  Args:
    c: `name`, `lr`, `schedule`, `warmup_steps`, `b1`, `b2`, `eps`, `weight_decay`
      and `clip_norm` (0 clips nothing).
    total_steps: where the schedule ends.

  Raises:
    ValueError: an unknown name or schedule; the choices are listed.
  """
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  make = recipe.choose("optimiser", c.name, {"adamw": _adamw, "sgd": _sgd})
  return optax.chain(clip, make(c, schedule(c, total_steps)))


def schedule(c: ConfigDict, total_steps: int) -> optax.Schedule:
  """Linear warm-up to `lr`, then constant, or a cosine or line down to 0."""
  rest = max(total_steps - c.warmup_steps, 1)
  after = recipe.choose(
    "schedule",
    c.schedule,
    {
      "constant": lambda: optax.constant_schedule(c.lr),
      "cosine": lambda: optax.cosine_decay_schedule(c.lr, rest),
      "linear": lambda: optax.linear_schedule(c.lr, 0.0, rest),
    },
  )()
  warmup = optax.linear_schedule(0.0, c.lr, max(c.warmup_steps, 1))
  # The count starts at 0: without the shift the first update would do nothing.
  joined = optax.join_schedules([warmup, after], [c.warmup_steps])
  return lambda count: joined(count + 1) if c.warmup_steps else joined(count)


def _adamw(c: ConfigDict, lr: optax.Schedule) -> optax.GradientTransformation:
  return optax.adamw(
    lr, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay, mask=_matrices
  )


def _sgd(c: ConfigDict, lr: optax.Schedule) -> optax.GradientTransformation:
  return optax.sgd(lr)


def _matrices(params: Params) -> Params:
  """True at kernels and embeddings; scales, biases and positions do not decay."""

  def decayed(path, _):
    return path[-1].key in _DECAYED

  return jax.tree_util.tree_map_with_path(decayed, params)
