"""Errors as people read them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from types import TracebackType

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

  An interrupt (Ctrl-C) becomes one line; the process still ends by the signal, which
  ends a shell's loop around it too. With STEPAUDIO_TRACEBACK=1 in the environment both
  stay exceptions.
  """
  try:
    yield
  except KeyboardInterrupt:
    if TRACEBACK not in os.environ:
      print(f"\n{command}: interrupted", file=sys.stderr)  # behind a progress bar
      sys.excepthook = _unless_interrupt
    raise
  except (ValueError, OSError, NotImplementedError) as error:
    if TRACEBACK in os.environ:
      raise
    print(f"{command}: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def _unless_interrupt(
  kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
  if not issubclass(kind, KeyboardInterrupt):
    sys.__excepthook__(kind, error, trace)
