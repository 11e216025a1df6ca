r"""Starts a command in several processes of one machine, as a pod's workers run it.

  python -m experiments.launch_local --processes 2 --devices 2 -- \\
    python -m stepaudio_jax.train --config configs/sft.py:smoke --workdir runs/sft

Every line is printed behind the number of its process. If one ends badly the others are
ended within a minute, and the status is 1; the same command then goes on where the run
was. SIGTERM and Ctrl-C are handed on to all of them: they save and exit.
"""

import argparse
import collections
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from stepaudio_jax.core import processes

_TAIL = 20  # lines of the one that failed
# The others' own error, such as a lost connection, may come first.
_GRACE_S = 5
_FLAG = "--xla_force_host_platform_device_count"


class Child:
  """One process, whose output is printed line by line and remembered."""

  def __init__(self, index: int, command: Sequence[str], env: dict[str, str]):
    self.index = index
    self.last: collections.deque[str] = collections.deque(maxlen=_TAIL)
    self.process = subprocess.Popen(
      command,
      env=env,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors="replace",
    )
    self._reader = threading.Thread(target=self._read, daemon=True)
    self._reader.start()

  def _read(self) -> None:
    for line in self.process.stdout:
      self.last.append(line)
      sys.stderr.write(f"[{self.index}] {line}")

  @property
  def status(self) -> int | None:
    return self.process.poll()

  def end(self) -> None:
    self.process.kill()
    self.process.wait()

  def told(self) -> str:
    """How it ended and its last lines."""
    self._reader.join(_GRACE_S)
    code = self.status
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
    return (
      f"process {self.index} ended with {how}; its last lines:\n{''.join(self.last)}"
    )


def launch(command: Sequence[str], count: int, devices: int | None) -> int:
  """Runs `count` copies of a command; returns the exit status.

  Args:
    devices: fake CPU devices of each process; None leaves the platform as it is.
  """
  address = f"127.0.0.1:{_free_port()}"
  children = [
    Child(index, command, _environment(address, count, index, devices))
    for index in range(count)
  ]
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: _hand_on(children))
  try:
    while None in (statuses := [child.status for child in children]):
      if any(statuses):
        break
      time.sleep(0.1)
    failed = next((child for child in children if child.status), None)
    if failed is None:
      return 0
    end = time.monotonic() + _GRACE_S
    while time.monotonic() < end and None in [child.status for child in children]:
      time.sleep(0.1)
    print(f"launch_local: {failed.told()}", file=sys.stderr)
    return 1
  finally:
    for child in children:
      child.end()


def _hand_on(children: Sequence[Child]) -> None:
  for child in children:
    if child.status is None:
      child.process.send_signal(signal.SIGTERM)


def _environment(
  address: str, count: int, index: int, devices: int | None
) -> dict[str, str]:
  out = os.environ | {
    processes.COORDINATOR: address,
    processes.COUNT: str(count),
    processes.INDEX: str(index),
  }
  if devices is not None:
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if _FLAG not in f]
    out["XLA_FLAGS"] = " ".join([*flags, f"{_FLAG}={devices}"])
    out["JAX_PLATFORMS"] = "cpu"
  return out


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.launch_local",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--processes", type=int, required=True, metavar="N")
  add("--devices", type=int, metavar="N", help="fake CPU devices of each process")
  add("command", nargs=argparse.REMAINDER, help="-- COMMAND …")
  args = parser.parse_args()
  command = args.command[1:] if args.command[:1] == ["--"] else args.command
  if args.processes < 1 or (args.devices or 1) < 1:
    parser.error(f"--processes {args.processes} --devices {args.devices}: at least 1")
  if not command:
    parser.error("no command; put it behind --")
  if shutil.which(command[0]) is None:
    parser.exit(2, f"launch_local: there is no command {command[0]!r}\n")
  sys.exit(launch(command, args.processes, args.devices))


if __name__ == "__main__":
  main()
