"""Low-rank adapters on the decoder's linear maps (LoRA, arXiv 2106.09685).

A kernel W [*inputs, *outputs] is used as W + (α/r)·A·B, A [*inputs, r] random and B
[r, *outputs] 0 at first, so that a new run begins as the model that it starts from. W
itself is frozen. Beside the paper: every linear map of a layer may be adapted. What
they amount to as plain weights: core/low_rank.py.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from stepaudio_jax.core import recipe
from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.sizes import Size

# Map → where it is in a layer.
MAPS = {
  **dict.fromkeys(("query", "key", "value", "out"), "attn"),
  **dict.fromkeys(("gate", "up", "down"), "mlp"),
}
ALPHA = 16.0  # a recipe's own, where it says nothing else
_INPUTS = {"out": 2}  # axes that a kernel contracts, if not 1


def init_params(
  rng: Array, size: Size, *, rank: int, alpha: float, maps: Sequence[str]
) -> Params:
  """{"scale": α/r, "layers": {room: {map: {"a", "b"}}}}, layers stacked, float32.

  Raises:
    ValueError: an unknown map, or none; a rank or α that is not above 0.
  """
  check(rank, alpha, maps)
  kernels = step_audio.abstract_params(size)["decoder"]["layers"]
  layers: Params = {}
  for index, name in enumerate(sorted(maps)):
    room = MAPS[name]
    shape = kernels[room][name]["kernel"].shape
    inputs = shape[1 : 1 + _INPUTS.get(name, 1)]
    outputs = shape[1 + len(inputs) :]
    a = jax.random.normal(
      jax.random.fold_in(rng, index), (shape[0], *inputs, rank), jnp.float32
    )
    layers.setdefault(room, {})[name] = {
      "a": a * math.prod(inputs) ** -0.5,
      "b": jnp.zeros((shape[0], rank, *outputs), jnp.float32),
    }
  return {"scale": jnp.asarray(alpha / rank, jnp.float32), "layers": layers}


def check(rank: int, alpha: float, maps: Sequence[str]) -> None:
  """Raises:
  ValueError: see `init_params`.
  """
  for name in maps:
    recipe.choose("map of a layer", name, MAPS)
  if rank < 1 or alpha <= 0 or not maps or len(set(maps)) < len(maps):
    raise ValueError(
      f"adapters of rank={rank} and alpha={alpha} on maps={tuple(maps)}: both above 0, "
      f"and each at most once of {sorted(MAPS)}"
    )


def variables(params: Params) -> dict[str, Params]:
  """What a model's `apply` takes beside "params": {} where there are no adapters."""
  if "adapters" not in params:
    return {}
  # A leaf of what is trained, so that it is kept beside A and B; no gradient moves it.
  scale = jax.lax.stop_gradient(params["adapters"]["scale"])
  layers = {
    room: {
      name: {"a": pair["a"], "b": scale.reshape((1,) * pair["b"].ndim) * pair["b"]}
      for name, pair in maps.items()
    }
    for room, maps in params["adapters"]["layers"].items()
  }
  return {"adapters": {"decoder": {"layers": layers}}}
