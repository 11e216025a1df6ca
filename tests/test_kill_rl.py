"""RLHF killed while it samples, updates and saves ends like a run left alone."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from stepaudio_jax import logs, workdirs
from stepaudio_jax.core import tree
from tests import tones
from tests.rl_child import STEPS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE_S = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  folder = tones.world(tmp_path_factory.mktemp("rl"))
  tones.policy(folder / "sft")
  tones.reward_model(folder / "rm", ("correctness", "naturalness"))
  return folder


def start(world, workdir) -> subprocess.Popen:
  with (world / f"{workdir.name}.log").open("ab") as log:
    return subprocess.Popen(
      [sys.executable, "-m", "tests.rl_child", str(world), str(workdir)],
      cwd=ROOT,
      stdout=log,
      stderr=log,
      stdin=subprocess.DEVNULL,
    )


def tail(world, workdir) -> str:
  return (world / f"{workdir.name}.log").read_text()[-2000:]


def finish(world, workdir) -> None:
  assert start(world, workdir).wait(PATIENCE_S) == 0, tail(world, workdir)


def kill_at(world, workdir, phase: str, delay_s: float = 0.0) -> None:
  """Starts the run and kills it once it says that it begins this phase."""
  phases = workdir.with_suffix(".phases")
  phases.unlink(missing_ok=True)
  process = start(world, workdir)
  end = time.monotonic() + PATIENCE_S
  while not phases.exists() or f"{phase}\n" not in phases.read_text():
    assert process.poll() is None, f"ended before {phase}: {tail(world, workdir)}"
    assert time.monotonic() < end, f"{phase} never came"
    time.sleep(0.0005)
  time.sleep(delay_s)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait(30) == -signal.SIGKILL


def kept(workdir, name: str) -> list[dict]:
  found = logs.read_metrics(workdir / f"{name}.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


def test_killed_while_sampling_updating_and_saving_is_bit_identical(world):
  whole, killed = world / "whole", world / "killed"
  finish(world, whole)
  # An exam of 2 batches, then a sampling for each step; a checkpoint every 2 steps.
  kill_at(world, killed, "sample 1")  # the exam at the start
  kill_at(world, killed, "update 1")  # the first step
  kill_at(world, killed, "save 1", 0.01)  # the first checkpoint
  kill_at(world, killed, "sample 4")  # later than the first checkpoint
  kill_at(world, killed, "update 1")  # the step after a resume
  finish(world, killed)
  for name in ("metrics", "samples", "heldout"):
    assert kept(killed, name) == kept(whole, name), name
  assert [row["step"] for row in kept(killed, "metrics")] == [*range(1, STEPS + 1)]
  ours, theirs = (workdirs.load_params(d) for d in (killed, whole))
  assert tree.content_hash(ours) == tree.content_hash(theirs)
