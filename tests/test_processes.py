"""Two processes with two devices each do what one process with four does."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from stepaudio_jax import workdirs
from stepaudio_jax.core import processes, tree
from tests import child, kill

ROOT = pathlib.Path(__file__).resolve().parents[1]
LAUNCHER = [sys.executable, "-m", "experiments.launch_local"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  return child.make_world(tmp_path_factory.mktemp("world"))


def launched(count, devices, stage, world, workdir, **environ):
  """tests/child.py in so many processes."""
  command = [sys.executable, "-m", "tests.child", stage, str(world), str(workdir)]
  sizes = ["--processes", str(count), "--devices", str(devices)]
  return subprocess.run(
    [*LAUNCHER, *sizes, "--", *command],
    cwd=ROOT,
    env=os.environ | environ,
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )


def gradients(count, devices, world, workdir):
  done = launched(count, devices, "gradients", world, workdir)
  assert done.returncode == 0, done.stderr
  return dict(np.load(workdir.with_suffix(".npz")))


def assert_same_gradients(ours, theirs):
  assert ours.keys() == theirs.keys()
  assert len(ours) > 10
  assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
  for name, leaf in theirs.items():
    error = np.abs(ours[name] - leaf).max()
    assert error <= 1e-5 * np.abs(leaf).max(), name


def test_two_processes_give_the_gradient_of_one(world, tmp_path):
  two = gradients(2, 2, world, tmp_path / "two")
  assert_same_gradients(two, gradients(1, 4, world, tmp_path / "one"))


@pytest.mark.slow
def test_four_processes_give_the_gradient_of_one(world, tmp_path):
  four = gradients(4, 2, world, tmp_path / "four")
  assert_same_gradients(four, gradients(1, 8, world, tmp_path / "one"))


@pytest.mark.slow
def test_one_that_dies_ends_the_others_and_a_restart_goes_on_exactly(world, tmp_path):
  """Also that a second run of the same layout has the same bits."""
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  done = launched(2, 2, "sft", world, whole)
  assert done.returncode == 0, done.stderr
  done = launched(2, 2, "sft", world, killed, DIE="1 update 4")
  assert done.returncode == 1
  assert "process 1 ended with signal SIGKILL; its last lines:\n" in done.stderr
  assert [row["step"] for row in kill.rows(killed, "metrics")] == [1, 2, 3]
  done = launched(2, 2, "sft", world, killed)
  assert done.returncode == 0, done.stderr
  assert re.search("resumed after step [23]", done.stderr)
  assert kill.differences("sft", killed, whole) == []


def numbers(workdir):
  found = kill.rows(workdir, "metrics")
  return [{k: np.nan if x is None else x for k, x in row.items()} for row in found]


@pytest.mark.slow
def test_rlhf_in_two_processes_is_that_of_one_and_survives_a_death(world, tmp_path):
  """The same replies to the same prompts, and numbers that differ by rounding alone."""
  whole, one, killed = (tmp_path / name for name in ("whole", "one", "killed"))
  for workdir, count in ((whole, 2), (one, 1)):
    done = launched(count, 4 // count, "rlhf", world, workdir)
    assert done.returncode == 0, done.stderr
  ours, theirs = (kill.rows(d, "samples") for d in (whole, one))
  for name in ("step", "prompt_id", "sample", "token_ids"):
    assert [row[name] for row in ours] == [row[name] for row in theirs], name
  for ours, theirs in zip(numbers(whole), numbers(one), strict=True):
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6, nan_ok=True)
    assert ours["train/grad_norm"] > 0
  done = launched(2, 2, "rlhf", world, killed, DIE="1 update 3")
  assert done.returncode == 1
  assert "process 1 ended with signal SIGKILL" in done.stderr
  done = launched(2, 2, "rlhf", world, killed)
  assert done.returncode == 0, done.stderr
  assert kill.differences("rlhf", killed, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["judged", "chosen"])
def test_packed_comparisons_in_two_processes_are_those_of_one(stage, world, tmp_path):
  """Packs of the same shapes, the same parameters but for rounding, exact restarts."""
  whole, one, killed = (tmp_path / name for name in ("whole", "one", "killed"))
  for workdir, count in ((whole, 2), (one, 1)):
    done = launched(count, 4 // count, stage, world, workdir)
    assert done.returncode == 0, done.stderr
  slots = []
  for ours, theirs in zip(numbers(whole), numbers(one), strict=True):
    # Slots and padding are told of the first process's packs, a half of all.
    slots.append(2 * ours.pop("data/slots"))
    assert slots[-1] == theirs.pop("data/slots")
    assert 0 <= ours.pop("data/padding") < 1 > theirs.pop("data/padding")
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6, nan_ok=True)
  assert len({*slots}) == {"judged": 1, "chosen": 2}[stage]
  start, two, alone = (flat(folder) for folder in (world / "sft", whole, one))
  moved = [np.abs(alone[name] - start[name]).max() for name in alone if name in start]
  assert max(moved) > 1e-3
  for name, leaf in alone.items():
    np.testing.assert_allclose(two[name], leaf, rtol=0, atol=1e-5 * max(moved))
  done = launched(2, 2, stage, world, killed, DIE="1 update 3")
  assert done.returncode == 1
  assert "process 1 ended with signal SIGKILL" in done.stderr
  done = launched(2, 2, stage, world, killed)
  assert done.returncode == 0, done.stderr
  assert re.search("resumed after step [12]", done.stderr)
  assert kill.differences(stage, killed, whole) == []


def flat(folder):
  return dict(tree.named_leaves(workdirs.load_params(folder)))


@pytest.mark.slow
def test_dialogues_played_in_two_processes_are_those_of_one(world, tmp_path):
  two, one = tmp_path / "two", tmp_path / "one"
  for workdir, count in ((two, 2), (one, 1)):
    done = launched(count, 4 // count, "talks", world, workdir)
    assert done.returncode == 0, done.stderr
  ours, theirs = (kill.rows(d, "samples") for d in (two, one))
  assert {row["turn"] for row in ours} == {2, 3, 4}
  for name in ("step", "prompt_id", "turn", "sample", "token_ids"):
    assert [row[name] for row in ours] == [row[name] for row in theirs], name
  for ours, theirs in zip(numbers(two), numbers(one), strict=True):
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6, nan_ok=True)


@pytest.mark.slow
def test_sigterm_at_one_process_ends_all_after_the_same_step(world, tmp_path):
  run, whole = tmp_path / "run", tmp_path / "whole"
  done = launched(2, 2, "sft", world, run, LEAVE="1 update 2")
  assert done.returncode == 0, done.stderr
  (step,) = re.findall(r"run is saved after step (\d); the same command", done.stderr)
  assert [row["step"] for row in kill.rows(run, "metrics")][-1] == int(step) < 4
  for workdir in (run, whole):
    assert launched(2, 2, "sft", world, workdir).returncode == 0
  assert kill.differences("sft", run, whole) == []


@pytest.mark.parametrize(
  ("environ", "wanted"),
  [
    ({}, None),
    ({"SLURM_STEP_NUM_TASKS": "1"}, None),
    ({"SLURM_STEP_NUM_TASKS": "2"}, {}),
    ({"STEPAUDIO_PROCESSES": "auto"}, {}),
    (
      {
        "STEPAUDIO_COORDINATOR": "a:1",
        "STEPAUDIO_PROCESSES": "2",
        "STEPAUDIO_PROCESS": "1",
      },
      {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1},
    ),
  ],
)
def test_a_process_learns_of_the_others_from_its_environment(environ, wanted):
  assert processes._known(environ) == wanted


@pytest.mark.parametrize(
  "environ",
  [
    {"STEPAUDIO_PROCESSES": "2"},
    {"STEPAUDIO_PROCESSES": "two", "STEPAUDIO_COORDINATOR": "a:1"},
    {
      "STEPAUDIO_COORDINATOR": "a:1",
      "STEPAUDIO_PROCESSES": "2",
      "STEPAUDIO_PROCESS": "2",
    },
  ],
)
def test_an_environment_that_says_half_is_an_error_that_shows_it(environ):
  with pytest.raises(ValueError, match=r"has \{'STEP.*it needs STEPAUDIO_COORDINATOR="):
    processes._known(environ)


def test_the_launcher_names_the_process_that_failed_with_its_last_lines():
  program = (
    "import os, sys, time\n"
    "me = os.environ['STEPAUDIO_PROCESS']\n"
    "print('I am', me, os.environ['XLA_FLAGS'].split('=')[-1], flush=True)\n"
    "sys.exit('no such file') if me == '1' else time.sleep(100)\n"
  )
  interpreter = [sys.executable, "-c"]
  start = time.monotonic()
  done = subprocess.run(
    [*LAUNCHER, "--processes", "3", "--devices", "5", "--", *interpreter, program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  said = "process 1 ended with status 1; its last lines:\nI am 1 5\nno such file\n"
  assert f"launch_local: {said}" in done.stderr
  assert "[2] I am 2 5\n" in done.stderr
  assert time.monotonic() - start < 60


def test_the_launcher_hands_sigterm_on_to_all():
  program = (
    "import signal, sys, time\n"
    "def leave(*_):\n"
    "  print('saved', flush=True)\n"
    "  sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, leave)\n"
    "print('ready', flush=True)\n"
    "time.sleep(100)\n"
  )
  launcher = subprocess.Popen(
    [*LAUNCHER, "--processes", "2", "--", sys.executable, "-c", program],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  heard = [launcher.stderr.readline() for _ in range(2)]
  assert sorted(heard) == ["[0] ready\n", "[1] ready\n"]
  launcher.send_signal(signal.SIGTERM)
  heard = launcher.communicate(timeout=60)[1].splitlines()
  assert sorted(heard) == ["[0] saved", "[1] saved"]
  assert launcher.returncode == 0


def test_a_command_that_is_not_there_is_one_line():
  done = subprocess.run(
    [*LAUNCHER, "--processes", "2", "--", "no-such-command"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr == "launch_local: there is no command 'no-such-command'\n"


LATE = """
import sys, time
from stepaudio_jax.core import processes
processes.start()
time.sleep(int(sys.argv[1]) * processes.index())
for _ in range(2):
  processes.barrier("here")
print("met", processes.index())
"""


def met(seconds):
  command = [sys.executable, "-c", LATE, str(seconds)]
  return subprocess.run(
    [*LAUNCHER, "--processes", "2", "--devices", "1", "--", *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


@pytest.mark.slow
def test_one_that_comes_late_is_waited_for():
  done = met(45)  # devices alone would have given up after 30
  assert done.returncode == 0, done.stderr
  assert "met 0" in done.stdout + done.stderr
  assert "met 1" in done.stdout + done.stderr


def test_those_that_start_a_run_wait_before_the_devices_do(monkeypatch):
  calls = []

  class Client:
    def wait_at_barrier(self, name, timeout_ms):
      calls.append(name)
      assert timeout_ms > 24 * 3600 * 1000

  utils = processes.multihost_utils
  monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
  monkeypatch.setattr(utils, "sync_global_devices", lambda name: calls.append("met"))
  monkeypatch.setattr(utils.distributed.global_state, "client", Client())
  processes.barrier("a")
  processes.barrier("a")
  first, _, second, _ = calls
  assert calls[1::2] == ["met", "met"]
  assert first != second
  monkeypatch.setattr(utils.distributed.global_state, "client", None)
  processes.barrier("a")
  assert calls[4:] == ["met"]
