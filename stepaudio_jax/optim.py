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
  """AdamW or SGD with momentum after a clip of the global norm.

  Args:
    c: `name`, `lr`, `schedule`, `warmup_steps`, `b1` (SGD: the momentum), `b2` and
      `eps` (SGD has none: 0), `weight_decay` and `clip_norm` (0 clips nothing).
    total_steps: where the schedule ends.

  Raises:
    ValueError: an unknown name or schedule; the choices are listed. A value that the
      optimiser would not read.
  """
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  make = recipe.choose("optimiser", c.name, {"adamw": _adamw, "sgd": _sgd})
  return optax.chain(clip, make(c, schedule(c, total_steps)))


def schedule(c: ConfigDict, total_steps: int) -> optax.Schedule:
  """Linear warm-up to `lr`, then constant, or a cosine or line towards 0.

  No update has the rate 0: the first has lr / warmup_steps, and 0 is where the one
  after the last would be.
  """
  shift = min(c.warmup_steps, 1)  # updates are counted from 0, the warm-up from 1
  rest = max(total_steps - c.warmup_steps + shift, 1)
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
  joined = optax.join_schedules([warmup, after], [c.warmup_steps])
  return lambda count: joined(count + shift)


def _adamw(c: ConfigDict, lr: optax.Schedule) -> optax.GradientTransformation:
  return optax.adamw(
    lr, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay, mask=_matrices
  )


def _sgd(c: ConfigDict, lr: optax.Schedule) -> optax.GradientTransformation:
  unread = {name: c[name] for name in ("b2", "eps") if c[name]}
  if unread:
    raise ValueError(f"optimiser 'sgd' has no {unread}: set them to 0")
  return optax.chain(
    optax.add_decayed_weights(c.weight_decay, mask=_matrices),
    optax.sgd(lr, momentum=c.b1 or None),
  )


def _matrices(params: Params) -> Params:
  """True at kernels and embeddings; scales, biases and positions do not decay."""

  def decayed(path, _):
    return path[-1].key in _DECAYED

  return jax.tree_util.tree_map_with_path(decayed, params)
