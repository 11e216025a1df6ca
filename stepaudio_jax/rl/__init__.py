"""Floor 1: one file per RL algorithm, arrays in, arrays out; parts/ is shared."""

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
  """The files of this folder; its folder parts/ is no algorithm."""
  modules = pkgutil.iter_modules(__path__)
  return sorted(module.name for module in modules if not module.ispkg)


def load(name: str) -> ModuleType:
  """rl/<name>.py: `DEFAULTS`, `CRITIC`, `advantages`, `token_loss` (and `value_loss`).

  Raises:
    ValueError: no such file.
  """
  if name not in names():
    raise ValueError(f"unknown algorithm {name!r}; the choices are {names()}")
  return import_module(f"{__name__}.{name}")
