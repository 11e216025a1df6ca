"""Meshes, and one data-parallel step on fake devices against a single one."""

import json
import os
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from stepaudio_jax import sharding

ALL = {"data": -1, "fsdp": 1, "tensor": 1, "context": 1}

CHILD = """
import functools, json, sys
import jax, jax.numpy as jnp, optax
from ml_collections import ConfigDict
from stepaudio_jax import sharding, steps
from stepaudio_jax.core import tree
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.models import step_audio
from tests import small

mesh = sharding.mesh(ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "context": 1}))
params = step_audio.init_params(jax.random.key(0), small.SIZE)
trained, frozen = tree.split(params, ("adaptor", "decoder"))
tx = optax.sgd(0.1)
key = jax.random.key_data(jax.random.key(0))
state = TrainState(trained, frozen, tx.init(trained), jnp.int32(0), key)
state = jax.device_put(state, sharding.replicated(mesh))
loss = steps.next_token_loss(step_audio.StepAudio(small.SIZE), ("a",))
step = jax.jit(functools.partial(steps.train_step, loss_fn=loss, tx=tx, microbatches=1))
batch = sharding.put(small.dialogue_batch(rows=4), mesh)
for _ in range(2):
  state, metrics = step(state, batch)
norm = float(optax.tree.norm(state.params))
print(json.dumps([jax.device_count(), float(metrics["loss"]), norm,
                  len(batch.token_BT.sharding.device_set)]))
"""


def run(devices: int) -> list[float]:
  flags = f"--xla_force_host_platform_device_count={devices}"
  env = {"XLA_FLAGS": f"{flags} --xla_backend_optimization_level=0"}
  done = subprocess.run(
    [sys.executable, "-c", CHILD],
    env=os.environ | env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_four_devices_do_what_one_does():
  one, four = run(1), run(4)
  assert (one[0], four[0], four[3]) == (1, 4, 4)
  assert four[1] == pytest.approx(one[1], rel=1e-6)
  assert four[2] == pytest.approx(one[2], rel=1e-6)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"data": 3}, "does not fit 1 devices"),
    ({"data": 0}, "does not fit"),
    ({"fsdp": 2}, r"mesh axes \{'fsdp': 2\} must be 1"),
  ],
)
def test_meshes_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    sharding.mesh(ConfigDict(ALL | change))


def test_the_rest_of_the_devices_go_to_the_free_axis():
  assert dict(sharding.mesh(ConfigDict(ALL)).shape) == ALL | {"data": 1}
