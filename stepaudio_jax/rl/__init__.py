"""Floor 1: one file per RL algorithm, arrays in, arrays out; parts/ is shared."""

import sys
from importlib import import_module
from types import ModuleType

from stepaudio_jax.core import recipe


def names() -> list[str]:
  """The files of this folder; its folder parts/ is no algorithm."""
  return [*_modules()]


def load(name: str) -> ModuleType:
  """rl/<name>.py: `DEFAULTS`, `CRITIC`, `AGGREGATIONS`, `advantages`, `token_loss`.

  A critic's also has `value_loss`. `AGGREGATIONS` are those of the loss that it allows,
  its own first.

  Raises:
    ValueError: no such file.
  """
  return import_module(recipe.choose("algorithm", name, _modules()))


def _modules() -> dict[str, str]:
  return recipe.modules(sys.modules[__name__])
