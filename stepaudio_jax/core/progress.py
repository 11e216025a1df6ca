"""Progress bars with an ETA."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable | None, what: str | None, unit: str, **options: Any) -> tqdm:
  """A bar that comes after two seconds of work and goes with its end.

  Without a terminal it prints a line every 30 s.

  Args:
    items: what it counts; None where the caller updates it.
    what: named beside it.
    **options: of tqdm, over those chosen here.
  """
  chosen = {"delay": 2, "leave": False, "dynamic_ncols": True}
  chosen["mininterval"] = 0.2 if sys.stderr.isatty() else 30
  return tqdm(items, desc=what, unit=unit, **chosen | options)
