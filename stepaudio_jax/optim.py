"""The optimiser of a recipe: schedule, clipping, decay of matrices only."""

import jax
import optax
from ml_collections import ConfigDict
from optax import contrib

from stepaudio_jax.core import recipe
from stepaudio_jax.core.types import Params
from stepaudio_jax.models.step_audio import PARTS

KEYS = (
  *("name", "lr", "schedule", "warmup_steps"),
  *("b1", "b2", "eps", "weight_decay", "clip_norm"),
)
_DECAYED = ("kernel", "embedding")
_STACKED = ("layers", "blocks")  # their leaves begin with the axis of the layers
_MUON_RMS = 0.2  # of an update at lr 1, about AdamW's (arXiv 2502.16982, equation 4)


def optimiser(c: ConfigDict, total_steps: int) -> optax.GradientTransformation:
  """AdamW, Muon or SGD with momentum after a clip of the global norm.

  Args:
    c: `name`, `lr`, `schedule`, `warmup_steps`, `b1` (SGD, Muon: the momentum), `b2`
      and `eps` (SGD has none: 0), `weight_decay` and `clip_norm` (0 clips nothing).
    total_steps: where the schedule ends.

  Raises:
    ValueError: an unknown name or schedule; the choices are listed. A value that the
      optimiser would not read.
  """
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  known = {"adamw": _adamw, "muon": _muon, "sgd": _sgd}
  make = recipe.choose("optimiser", c.name, known)
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


def _muon(c: ConfigDict, lr: optax.Schedule) -> optax.GradientTransformation:
  """Muon on the kernels inside the model, AdamW on the rest; one learning rate.

  Muon makes a matrix's momentum orthogonal (K. Jordan 2024); updates are scaled to the
  size of AdamW's (arXiv 2502.16982). Embeddings and output heads stay with AdamW.
  """
  inside = contrib.muon(
    lr,
    beta=c.b1,
    weight_decay=c.weight_decay,
    muon_weight_dimension_numbers=_matrix_axes,
    consistent_rms=_MUON_RMS,
  )

  def labels(params: Params) -> Params:
    return jax.tree.map(
      lambda axes: "adamw" if axes is None else "muon",
      _matrix_axes(params),
      is_leaf=lambda x: x is None or isinstance(x, contrib.MuonDimensionNumbers),
    )

  return optax.partition({"muon": inside, "adamw": _adamw(c, lr)}, labels)


def _matrix_axes(params: Params) -> Params:
  """Axes in and out of every kernel inside the model, None at all other leaves."""

  def axes(path, leaf):
    *rooms, name = [key.key for key in path]
    if name != "kernel" or not {*PARTS} & set(rooms):
      return None
    if rooms[-1] == "head":
      return None
    first = int(any(room in _STACKED for room in rooms))
    inputs = 1
    if leaf.ndim - first == 3 and (rooms[-1] == "out" or rooms[-1].startswith("conv")):
      inputs = 2  # heads × head width, or taps × channels
    middle = first + inputs
    return contrib.MuonDimensionNumbers(
      tuple(range(first, middle)), tuple(range(middle, leaf.ndim))
    )

  return jax.tree_util.tree_map_with_path(axes, params)


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
