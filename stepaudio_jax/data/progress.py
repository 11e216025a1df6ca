"""A progress bar with an ETA for work that takes longer than two seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(items: Iterable | None, what: str, unit: str, **options: Any) -> tqdm:
  """Without a terminal it prints a line every 30 s."""
  interval_s = 0.2 if sys.stderr.isatty() else 30
  return tqdm(
    items, desc=what, unit=unit, delay=2, mininterval=interval_s, leave=False, **options
  )
