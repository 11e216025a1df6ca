"""A policy that is sampled on another mesh than it is trained on draws the same."""

import os
import pathlib
import subprocess
import sys

import pytest

from stepaudio_jax import logs

ROOT = pathlib.Path(__file__).resolve().parents[1]


def child(*arguments, processes=1, devices=1):
  command = [sys.executable, "-m", "experiments.launch_local"]
  command += ["--processes", str(processes), "--devices", str(devices), "--"]
  command += [sys.executable, "-m", "tests.sampling_child", *map(str, arguments)]
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=os.environ,
    capture_output=True,
    text=True,
    check=False,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr


def numbers(workdir):
  """Of every step what the sampler decides or what follows from it."""
  found = []
  for row in logs.read_metrics(workdir / "metrics.jsonl"):
    kept = {k: v for k, v in row.items() if k.startswith(("reward/", "train/"))}
    found.append({k: v for k, v in kept.items() if "agreement" not in k})
    assert row["train/agreement_max_abs"] < 1e-4  # nats between sampler and trainer
  return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  folder = tmp_path_factory.mktemp("sampling")
  child(folder / "world", "", 1, 1)
  child(folder / "world", folder / "alone", 1, 1)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  ("processes", "fsdp", "tensor"), [(1, 4, 2), (1, 2, 4), (2, 4, 4)]
)
def test_a_mesh_for_sampling_changes_nothing(alone, tmp_path, processes, fsdp, tensor):
  """Two processes: the mesh of sampling splits matrices over both of them."""
  split = {"processes": processes, "devices": 4 // processes}
  child(alone / "world", tmp_path / "run", fsdp, tensor, **split)
  ours, theirs = numbers(tmp_path / "run"), numbers(alone / "alone")
  assert len(ours) == len(theirs) == 2
  for mine, other in zip(ours, theirs, strict=True):
    assert mine["train/grad_norm"] > 0.1
    assert mine == pytest.approx(other, rel=1e-4, abs=1e-6, nan_ok=True)
