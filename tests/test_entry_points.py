"""Every command as a person types it: --help, wrong flags, the doctor."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from stepaudio_jax import doctor

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = {
  "stepaudio_jax.train": "--config",
  "stepaudio_jax.train_rl": "--config",
  "stepaudio_jax.generate": "--prompt",
  "stepaudio_jax.evaluate": "--benchmark",
  "stepaudio_jax.ablate": "--config",
  "stepaudio_jax.convert": "export",
  "stepaudio_jax.report": "--published",
  "stepaudio_jax.inspect": "--audio-mb",
  "stepaudio_jax.preferences": "convert",
  "stepaudio_jax.doctor": "--workdir",
  "experiments.quickstart": "--smoke",
  "experiments.launch_local": "--processes",
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
  done = call(module, "--help")
  assert done.returncode == 0, done.stderr
  assert COMMANDS[module] in done.stdout


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
    "stepaudio_jax.report": ("--results", "x", "--out", "y"),
    "stepaudio_jax.inspect": ("--results", "x", "--benchmark", "world"),
    "stepaudio_jax.convert": ("import", "--from", "x", "--to", "y"),
    "stepaudio_jax.preferences": ("validate", "x"),
    "experiments.quickstart": ("--workdir", "x"),
    "experiments.launch_local": ("--processes", "1"),
  }
  done = call(module, "--nonsense=1", *needed.get(module, ()))
  assert done.returncode != 0
  assert "nonsense" in done.stderr + done.stdout


def test_a_wrong_key_on_the_command_line_suggests_the_near_one():
  args = ("--config", "configs/sft.py", "--workdir", "x", "--config.optim.lrr=1.0")
  done = call("stepaudio_jax.train", *args)
  assert done.returncode == 2
  wanted = "train: unknown key 'optim.lrr' (did you mean 'optim.lr'"
  assert done.stderr.startswith(wanted)
  assert "--help with --config FILE lists all" in done.stderr
  assert len(done.stderr) < 200
  assert done.stderr.count("\n") == 1


def test_a_recipe_of_the_other_loop_is_one_line(tmp_path):
  args = ("--config", "configs/rlhf.py:smoke", "--workdir", str(tmp_path / "run"))
  done = call("stepaudio_jax.train", *args)
  assert done.returncode == 2
  told = "train: a recipe of the stage 'rlhf' has no 'objective'; python -m "
  assert done.stderr.startswith(told)
  assert done.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())


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
  assert "ok    device cpu:0 (cpu)" in done.stdout
  fixes = [line for line in done.stdout.splitlines() if line.startswith("FIX")]
  # This checkout may be used without being installed; nothing else is amiss.
  installed = "stepaudio_jax itself is not installed"
  assert [fix for fix in fixes if installed not in fix and " GiB of " not in fix] == []
  assert done.returncode == (1 if fixes else 0)


def test_the_doctor_tells_what_to_fix(monkeypatch, capsys):
  wanted = ["numpy>=1", "no-such-package>=2; extra == 'x'", "no-such-package>=3"]
  monkeypatch.setattr(doctor.metadata, "requires", lambda _: [*wanted, "pytest<1"])
  monkeypatch.setattr(doctor, "_devices", list)
  monkeypatch.setattr(doctor, "_machine", lambda workdir: [f"{workdir} is full"])
  monkeypatch.setattr(sys, "argv", ["doctor", "--workdir", "w"])
  with pytest.raises(SystemExit) as stop:
    doctor.main()
  assert stop.value.code == 1
  printed = capsys.readouterr().out
  assert f"ok    numpy {np.__version__}" in printed
  assert [line for line in printed.splitlines() if line.startswith("FIX")] == [
    "FIX   no-such-package>=3 is missing: pip install -e .",
    f"FIX   pytest {pytest.__version__} is outside <1: pip install -e .",
    "FIX   w is full",
  ]
