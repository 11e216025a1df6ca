"""Errors as people read them."""

import contextlib
import os
import sys
from collections.abc import Iterator

TRACEBACK = "STEPAUDIO_TRACEBACK"
_LONGEST = 300  # letters of another's error that are shown


def origin(error: BaseException) -> BaseException:
  """The error that a library first met, behind those that it made of it."""
  while (before := error.__cause__ or error.__context__) is not None:
    error = before
  return error


def short(error: BaseException) -> str:
  """The first line of what a library says."""
  text = (str(error) or repr(error)).partition("\n")[0]
  return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


@contextlib.contextmanager
def readable(command: str) -> Iterator[None]:
  """What is wrong with the input becomes one message and exit status 2.

  With STEPAUDIO_TRACEBACK=1 in the environment it stays an exception.
  """
  try:
    yield
  except (ValueError, OSError, NotImplementedError) as error:
    if TRACEBACK in os.environ:
      raise
    print(f"{command}: {error}", file=sys.stderr)
    raise SystemExit(2) from error
