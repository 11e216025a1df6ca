"""Rule rewards, one file each: plain Python on text; what they share is in parts/.

A file defines `score(example, text) -> float` and `EXAMPLES`, a list of (example,
text, expected) that a test runs. `example` is a dialogue row; `text` is what a model
sampled after a prompt that opened a thought: thought, `</think>`, answer.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
  """The files of this folder; its folder parts/ is no reward."""
  modules = pkgutil.iter_modules(__path__)
  return sorted(module.name for module in modules if not module.ispkg)


def load(name: str) -> ModuleType:
  """rewards/<name>.py."""
  if name not in names():
    raise ValueError(f"unknown reward {name!r}; the choices are {names()}")
  return import_module(f"{__name__}.{name}")
