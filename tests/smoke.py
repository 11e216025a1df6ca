"""The smoke quick start in a process of its own, which tests may kill."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE_S = 600


def start(workdir: pathlib.Path) -> subprocess.Popen:
  """Compiles without optimising, as all tests do, and each program but once for all."""
  programs = {
    "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
  }
  command = [sys.executable, "-m", "experiments.quickstart", "--smoke", "--workdir"]
  with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
    return subprocess.Popen(
      [*command, str(workdir)],
      cwd=ROOT,
      env=os.environ | programs,
      stdout=log,
      stderr=log,
      stdin=subprocess.DEVNULL,
      start_new_session=True,
    )


def finish(workdir: pathlib.Path) -> None:
  process = start(workdir)
  assert process.wait(PATIENCE_S) == 0, tail(workdir)


def tail(workdir: pathlib.Path) -> str:
  return (workdir.parent / f"{workdir.name}.log").read_text()[-3000:]
