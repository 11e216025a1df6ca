"""The command of evaluation in two processes does what it does in one."""

import json
import pathlib
import subprocess
import sys

import pytest

from experiments import harness_speed
from tests.evals import worlds

ROOT = pathlib.Path(__file__).resolve().parents[1]


def evaluated(folder, out, processes):
  command = [sys.executable, "-m", "experiments.launch_local"]
  command += ["--processes", str(processes), "--devices", "1", "--", sys.executable]
  command += ["-m", "stepaudio_jax.evaluate", "--checkpoint", str(folder / "run")]
  command += ["--benchmark", "mmau", "--data", str(folder / "data"), "--out", str(out)]
  command += ["--batch_size", "2", "--max_new_tokens", "8", "--samples", "2"]
  command += ["--controls", "silence", "swapped", "flat", "--budgets", "0", "3"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  text = (out / "mmau.items.jsonl").read_text().replace(str(out), "OUT")
  return json.loads((out / "mmau.json").read_text()), text


@pytest.mark.slow
def test_two_processes_give_every_byte_of_one(tmp_path):
  worlds.write_checkpoint(tmp_path / "run")
  harness_speed.write(37, tmp_path / "data")
  alone = evaluated(tmp_path, tmp_path / "one", 1)
  assert alone == evaluated(tmp_path, tmp_path / "two", 2)
  parts = (tmp_path / "two" / "journal" / "mmau" / "replies").glob("*/*.jsonl")
  assert {path.name[:3] for path in parts} == {"000", "001"}
