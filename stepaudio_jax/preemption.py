"""SIGTERM, by which a machine that is about to be taken away is announced.

The run finishes its step, saves, and exits with status 0; the same command goes on.
"""

import signal
import threading
from types import FrameType
from typing import Any, NoReturn, Self

import jax
from etils import epath
from jax.experimental import multihost_utils

from stepaudio_jax import logs


class Notice:
  """Whether notice was given while the block runs; more SIGTERMs change nothing.

  In several processes JAX's own service listens: a SIGTERM that reaches any of them
  stops all of them after the same step. A block in another than the main thread of its
  process hears nothing.
  """

  def __init__(self):
    self._given, self._before = False, None

  def __enter__(self) -> Self:
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *error: Any) -> None:
    if self._before is not None:
      # After notice the program is about to end, and a second one must not hurry it.
      signal.signal(signal.SIGTERM, signal.SIG_IGN if self._given else self._before)

  def _note(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._given = True

  def given(self, step: int) -> bool:
    """Whether to stop after this step; every process must ask after every step."""
    if jax.process_count() > 1:
      self._given |= multihost_utils.reached_preemption_sync_point(step)
    return self._given


def leave(step: int, workdir: epath.PathLike) -> NoReturn:
  """Ends the program with status 0, once the step is saved."""
  logs.say(f"SIGTERM: {workdir} is saved after step {step}; the same command goes on")
  raise SystemExit(0)
