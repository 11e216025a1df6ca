"""Every command as a person types it: --help, wrong flags, the doctor."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = {
  "stepaudio_jax.train": "--config",
  "stepaudio_jax.generate": "--prompt",
  "stepaudio_jax.evaluate": "--benchmark",
  "stepaudio_jax.doctor": "--workdir",
  "experiments.quickstart": "--smoke",
}


def call(module: str, *args: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", module, *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
    env=os.environ | {"COLUMNS": "100"},
  )


@pytest.mark.parametrize("module", COMMANDS)
def test_help_names_the_flags(module):
  done = call(module, "--help" if module != "stepaudio_jax.train" else "--helpfull")
  # absl answers --help with status 1, argparse with 0.
  assert COMMANDS[module].lstrip("-") in done.stdout, done.stderr


@pytest.mark.parametrize("module", COMMANDS)
def test_an_unknown_flag_is_an_error_that_names_it(module):
  needed = {
    "stepaudio_jax.generate": ("--checkpoint", "x"),
    "stepaudio_jax.evaluate": (
      "--checkpoint",
      "x",
      "--benchmark",
      "world",
      "--data",
      "x",
    ),
    "experiments.quickstart": ("--workdir", "x"),
  }
  done = call(module, "--nonsense=1", *needed.get(module, ()))
  assert done.returncode != 0
  assert "nonsense" in done.stderr + done.stdout


def test_a_wrong_key_on_the_command_line_suggests_the_near_one():
  args = ("--config", "configs/sft.py", "--workdir", "x", "--config.optim.lrr=1.0")
  done = call("stepaudio_jax.train", *args)
  assert done.returncode != 0
  assert "lrr" in done.stderr
  assert "lr" in done.stderr.replace("lrr", "")


def test_a_wrong_recipe_argument_lists_the_choices(tmp_path):
  workdir = str(tmp_path / "run")
  done = call(
    "stepaudio_jax.train", "--config", "configs/sft.py:sizes=tiny", "--workdir", workdir
  )
  assert done.returncode != 0
  assert "'sizes'" in done.stderr
  assert "'size'" in done.stderr
  assert not os.path.exists(workdir)


def test_the_doctor_looks_at_the_disk_of_a_workdir_to_be(tmp_path):
  done = call("stepaudio_jax.doctor", "--workdir", str(tmp_path / "runs" / "new"))
  assert f"GiB free in {tmp_path}\n" in done.stdout
  assert not list(tmp_path.iterdir())


def test_the_doctor_finds_this_environment_in_order():
  done = call("stepaudio_jax.doctor")
  assert "speech synthesis" in done.stdout
  assert "jax" in done.stdout
  fixes = [line for line in done.stdout.splitlines() if line.startswith("FIX")]
  assert (done.returncode == 0) == (not fixes)
