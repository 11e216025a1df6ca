"""Killed anywhere and run again, it ends bit for bit like a run that was left alone.

`python -m tests.kill --n 20` does more of the same.
"""

import hashlib
import os
import pathlib
import signal
import time

import pytest

from stepaudio_jax import logs, workdirs
from stepaudio_jax.core import tree
from tests import kill
from tests.smoke import PATIENCE_S, finish, start, tail

STAGES = ("hear", "speak", "sft", "rm", "rlvr", "rlvr_kl", "rlhf")


def kill_when(workdir: pathlib.Path, phase) -> None:
  """Starts the run and kills it, with SIGKILL, once `phase()` holds."""
  process = start(workdir)
  end = time.monotonic() + PATIENCE_S
  while not phase():
    assert process.poll() is None, f"ended before the phase came: {tail(workdir)}"
    assert time.monotonic() < end, "the phase never came"
    time.sleep(0.0005)
  os.kill(process.pid, signal.SIGKILL)
  assert process.wait(30) == -signal.SIGKILL


def rows(workdir: pathlib.Path, stage: str) -> list[dict]:
  found = logs.read_metrics(workdir / stage / "metrics.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


def entries(folder: pathlib.Path) -> list[str]:
  return os.listdir(folder) if folder.exists() else []


def synthesising(workdir):
  return lambda: any(".partial" in n for n in entries(workdir / "world" / "speech"))


def training(workdir, stage, step):
  return lambda: len(rows(workdir, stage)) >= step


def writing_checkpoint(workdir, stage):
  """orbax writes beside the final name; the name tells that it is not whole."""
  return lambda: any("tmp" in n for n in entries(workdir / stage / "checkpoints"))


def test_killed_in_every_phase_and_run_again_is_bit_identical(smoke_run):
  killed = smoke_run.parent / "killed"
  kill_when(killed, synthesising(killed))
  assert not (killed / "hear").exists()
  kill_when(killed, training(killed, "hear", 6))  # between checkpoints 4 and 8
  kill_when(killed, writing_checkpoint(killed, "sft"))
  assert not (killed / "report.html").exists()
  finish(killed)
  for stage in STAGES:
    assert rows(killed, stage) == rows(smoke_run, stage), stage
    ours, theirs = (workdirs.load_params(d / stage) for d in (killed, smoke_run))
    assert tree.content_hash(ours) == tree.content_hash(theirs), stage
  for name in ("speech", "clips-train.jsonl", "preferences-train.jsonl"):
    assert digest(killed / "world" / name) == digest(smoke_run / "world" / name), name
  assert (killed / "report.html").exists()


@pytest.mark.slow
def test_three_kills_while_it_samples_writes_and_renames(tmp_path):
  hits = kill.kills(3, tmp_path)
  assert hits == {"sample": 1, "update": 0, "write": 1, "rename": 1}


def test_the_plan_of_twenty_kills_has_each_phase_three_times():
  lines = [line.split()[0] for _, line, _ in kill.plan(20, seed=0)]
  assert min(lines.count(phase) for phase in ("sample", "update", "write")) >= 3
  assert lines.count("rename") >= 3


def test_a_finished_run_does_nothing_again(smoke_run):
  before = (smoke_run / "stages.json").read_bytes()
  finish(smoke_run)
  assert (smoke_run / "stages.json").read_bytes() == before


def digest(path: pathlib.Path) -> str:
  """Hash of a file, or of all files of a folder with their names."""
  files = sorted(path.rglob("*")) if path.is_dir() else [path]
  whole = hashlib.blake2b()
  for file in files:
    if file.is_file():
      whole.update(str(file.relative_to(path)).encode() + file.read_bytes())
  return whole.hexdigest()
