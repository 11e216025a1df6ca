"""Every stage's step on every mesh of 8 fake devices does what one device does."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests import stages
from tests.flags import EIGHT_DEVICES, QUICK


def rows(stage: str, *cases: str) -> list[dict[str, Any]]:
  """One child a stage, since a process has its number of devices for good."""
  flags = f"{EIGHT_DEVICES} {QUICK}"
  done = subprocess.run(
    [sys.executable, "-m", "tests.mesh_child", stage, *cases],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict[str, Any]]) -> None:
  for row in found:
    assert row["loss"] <= 1e-6, row
    assert row["gradient"][0] <= 1e-5, row
    assert row["params"][0] <= 1e-5, row


@pytest.mark.parametrize(
  "stage",
  [
    "sft",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("reward_model", "ppo")),
  ],
)
def test_parameters_split_over_a_mesh_change_nothing(stage):
  """Micro-batches and packing neither, on the second mesh."""
  found = rows(stage)
  assert [row["mesh"] for row in found] == ["1×8", "2×2×2"]
  check(found)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*stages.STAGES])
def test_nor_does_any_mesh_with_micro_batches_and_packing_on_and_off(stage):
  found = rows(stage, "every")
  assert {row["mesh"] for row in found} == {"one", "8×1", "1×8", "2×2×2", "context"}
  check(found)
