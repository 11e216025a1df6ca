"""Errors as people read them."""

import contextlib
import os
import sys
from collections.abc import Iterator

TRACEBACK = "STEPAUDIO_TRACEBACK"


@contextlib.contextmanager
def readable(command: str) -> Iterator[None]:
  """What is wrong with the input becomes one message and exit status 2.

  With STEPAUDIO_TRACEBACK=1 in the environment it stays an exception.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    if TRACEBACK in os.environ:
      raise
    print(f"{command}: {error}", file=sys.stderr)
    raise SystemExit(2) from error
