"""Rule rewards, one file each: plain Python on text; what they share is in parts/.

A file defines `score(example, text) -> float` and `EXAMPLES`, a list of (example,
text, expected) that a test runs. `example` is a dialogue row; `text` is what a model
sampled after a prompt that opened a thought: thought, `</think>`, answer. It may define
`NEEDS`, the keys of the row without which it has nothing to say, and `check(example)`,
which raises a ValueError where the row cannot be scored.
"""

import sys
from importlib import import_module
from types import ModuleType

from stepaudio_jax.core import recipe


def names() -> list[str]:
  """The files of this folder; its folder parts/ is no reward."""
  return [*_modules()]


def load(name: str) -> ModuleType:
  """rewards/<name>.py."""
  return import_module(recipe.choose("reward", name, _modules()))


def _modules() -> dict[str, str]:
  return recipe.modules(sys.modules[__name__])
