"""What a command says when it cannot go on."""

import signal
import subprocess
import sys

import pytest

from stepaudio_jax.core import errors

_COMMAND = """
import os, signal
from stepaudio_jax.core import errors
# A shell that runs tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with errors.readable("it"):
  os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("traceback", [False, True])
def test_an_interrupt_is_one_line_and_still_the_signal(monkeypatch, traceback):
  monkeypatch.delenv(errors.TRACEBACK, raising=False)
  if traceback:
    monkeypatch.setenv(errors.TRACEBACK, "1")
  done = subprocess.run(
    [sys.executable, "-c", _COMMAND], capture_output=True, text=True, check=False
  )
  assert done.returncode == -signal.SIGINT
  assert ("Traceback" in done.stderr) == traceback
  assert (done.stderr == "\nit: interrupted\n") == (not traceback)
