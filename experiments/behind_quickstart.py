"""What experiments on a finished quick start share: its check, and their results."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stepaudio_jax.core import files
from stepaudio_jax.evals.parts import tables


def check(quickstart: Path, needed: Sequence[str]) -> None:
  """Whether the quick start has what is needed of it.

  Raises:
    ValueError: naming what it lacks.
  """
  lacking = [name for name in needed if not (quickstart / name).exists()]
  if lacking:
    raise ValueError(f"{quickstart} is no finished quick start: it lacks {lacking}")


def write(
  folder: Path, name: str, result: dict[str, Any], page: str, plot: Callable[[], Figure]
) -> None:
  """Writes NAME.json, NAME.md and NAME.png, each whole or not at all."""
  picture = io.BytesIO()
  tables.png(plot, picture)
  for ending, content in {
    "json": json.dumps(result, indent=1, allow_nan=False).encode(),
    "md": page.encode(),
    "png": picture.getvalue(),
  }.items():
    with files.aside(folder / f"{name}.{ending}") as partial:
      partial.write_bytes(content)
