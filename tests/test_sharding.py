"""Meshes, and one data-parallel step on fake devices against a single one."""

import functools
import json
import os
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

from stepaudio_jax import meshes, sharding
from stepaudio_jax.core.types import TrainState
from tests.fit.slices import described
from tests.flags import QUICK

ALL = {"data": -1, "fsdp": 1, "tensor": 1, "context": 1}
OF_THREE = AbstractMesh((3, 1, 1, 1), meshes.MESH_AXES)

CHILD = """
import functools, json, re, sys
import jax, jax.numpy as jnp, optax
from ml_collections import ConfigDict
from stepaudio_jax import meshes, sharding, steps
from stepaudio_jax.core import tree
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.models import step_audio
from tests import small

mesh = meshes.mesh(ConfigDict({"data": -1, "fsdp": 1, "tensor": 1, "context": 1}))
params = step_audio.init_params(jax.random.key(0), small.SIZE)
trained, frozen = tree.split(params, ("adaptor", "decoder"))
tx = optax.sgd(0.1)
key = jax.random.key_data(jax.random.key(0))
state = TrainState(trained, frozen, tx.init(trained), jnp.int32(0), key)
state = jax.device_put(state, sharding.replicated(mesh))
loss = steps.next_token_loss(step_audio.StepAudio(small.SIZE), ("a",))
step = functools.partial(
  steps.train_step, loss_fn=loss, tx=tx, microbatches=int(sys.argv[1])
)
batch = sharding.put(small.dialogue_batch(rows=8), mesh)
step = jax.jit(step).lower(state, batch).compile()
for _ in range(2):
  state, metrics = step(state, batch)
print(json.dumps({
  "devices": jax.device_count(),
  "mesh": dict(mesh.shape),
  "batch on": len(batch.token_BT.sharding.device_set),
  "loss": float(metrics["loss"]),
  "norm": float(optax.tree.norm(state.params)),
  "moves": sorted(set(re.findall("all-gather|all-to-all|collective-permute|all-reduce",
                                 step.as_text()))),
}))
"""


@functools.cache
def run(devices: int, microbatches: int) -> dict[str, Any]:
  """Two steps on eight rows."""
  flags = f"--xla_force_host_platform_device_count={devices}"
  env = {"XLA_FLAGS": f"{flags} {QUICK}"}
  done = subprocess.run(
    [sys.executable, "-c", CHILD, str(microbatches)],
    env=os.environ | env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("microbatches", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_four_devices_do_what_one_does(microbatches):
  one, four = run(1, 1), run(4, microbatches)
  assert (one["devices"], four["devices"], four["batch on"]) == (1, 4, 4)
  for name in ("loss", "norm"):
    assert four[name] == pytest.approx(one[name], rel=1e-6)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_rows_stay_on_their_devices_and_only_sums_travel(microbatches):
  assert run(4, microbatches)["moves"] == ["all-reduce"]


def test_all_devices_go_to_the_free_axis():
  assert run(4, 1)["mesh"] == ALL | {"data": 4}
  assert dict(meshes.mesh(ConfigDict(ALL)).shape) == ALL | {"data": 1}


@pytest.mark.parametrize(
  ("batch_size", "microbatches", "wanted"), [(12, 2, 2), (12, 1, 4), (12, 4, 1)]
)
def test_rows_of_a_micro_batch_on_one_of_three_devices(
  batch_size, microbatches, wanted
):
  assert sharding.rows(batch_size, microbatches, OF_THREE) == wanted


@pytest.mark.parametrize(("batch_size", "microbatches"), [(8, 1), (6, 4), (6, 0)])
def test_rows_that_do_not_divide_are_named_with_both_numbers(batch_size, microbatches):
  message = (
    f"batch_size {batch_size} is not a multiple of {microbatches} microbatches × 3 "
  )
  with pytest.raises(ValueError, match=message):
    sharding.rows(batch_size, microbatches, OF_THREE)


def slices(count: int, each: int) -> list[Any]:
  """Devices of several slices, as JAX numbers them."""
  return [
    types.SimpleNamespace(
      id=k, slice_index=k // each, process_index=k, platform="cpu", device_kind="cpu"
    )
    for k in range(count * each)
  ]


def test_only_the_data_axis_crosses_the_network_between_slices():
  lengths = {"data": 4, "fsdp": 2, "tensor": 1, "context": 1}
  ordered = meshes._ordered(lengths, slices(2, 4))
  where = [[device.slice_index for device in row.flat] for row in ordered]
  assert where == [[0, 0], [0, 0], [1, 1], [1, 1]]
  with pytest.raises(ValueError, match="`data` is no multiple of the 2 slices"):
    meshes._ordered(lengths | {"data": 1, "fsdp": 8}, slices(2, 4))


@pytest.mark.parametrize(
  ("axis", "other"), [("context", "tensor"), ("tensor", "context")]
)
def test_the_chips_of_a_host_share_a_row(axis, other):
  """The wiring's order has rings of four, each of two hosts; a host is a square."""
  devices = described("v5p:4x4x8").devices
  found = meshes.mesh({"data": 1, "fsdp": -1, axis: 4, other: 1}, devices).devices
  hosts = [{device.process_index for device in row.flat} for row in found[0]]
  assert hosts == [{k} for k in range(32)]
  assert {device.id for device in found.flat} == {*range(128)}
  pairs = meshes.mesh({"data": 2, "fsdp": 32, axis: 2, other: 1}, devices).devices
  hosts = [{device.process_index for device in row.flat} for row in pairs[0]]
  assert all(len(host) == 1 for host in hosts)
  with pytest.raises(ValueError, match="crosses the 32 processes of 4 devices"):
    meshes.mesh({"data": 1, "fsdp": -1, axis: 8, other: 1}, devices)


def test_a_moment_lies_as_its_parameter_and_counters_everywhere():
  mesh = AbstractMesh((1, 2, 2, 1), meshes.MESH_AXES)
  axes = {"decoder/head/kernel": ("embed", "vocab"), "decoder/norm/scale": ("norm",)}
  params = {
    "decoder": {
      "head": {"kernel": jax.ShapeDtypeStruct((8, 4), np.float32)},
      "norm": {"scale": jax.ShapeDtypeStruct((8,), np.float32)},
    }
  }
  lies = sharding.parameters(mesh, axes, params)
  assert lies["decoder"]["head"]["kernel"].spec == jax.P(("fsdp", "context"), "tensor")
  adam = jax.eval_shape(optax.adamw(1.0).init, params)
  state = TrainState(params, {}, adam, None, None)
  found = sharding.state(mesh, state, lies).opt_state[0]
  assert found.mu == found.nu == lies
  assert found.count.spec == jax.P()
  shape = jax.ShapeDtypeStruct((7, 4), np.float32)
  with pytest.raises(ValueError, match=r"parameter decoder/head/kernel: its axis 'em"):
    sharding.parameters(mesh, axes, {"decoder": {"head": {"kernel": shape}}})
  with pytest.raises(ValueError, match=r"parameter kernel: unknown logical axes \['w"):
    sharding.parameters(mesh, {"kernel": ("width", None)}, {"kernel": shape})


def test_a_moment_of_another_shape_is_named():
  mesh = AbstractMesh((1, 2, 1, 1), meshes.MESH_AXES)
  kernel = jax.ShapeDtypeStruct((8, 4), np.float32)
  moment = jax.ShapeDtypeStruct((8,), np.float32)
  lies = sharding.parameters(mesh, {"kernel": ("embed", None)}, {"kernel": kernel})
  state = TrainState({"kernel": kernel}, {}, {"row": {"kernel": moment}}, None, None)
  with pytest.raises(ValueError, match=r"optimiser state row/kernel \(8,\) has not"):
    sharding.state(mesh, state, lies)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"data": 3}, "does not fit 1 devices"),
    ({"data": 0}, "does not fit"),
    ({"data": -1, "fsdp": 0}, "'fsdp': 0.* does not fit 1 devices"),
    ({"fsdp": 2}, "'fsdp': 2.* does not fit 1 devices"),
  ],
)
def test_meshes_that_do_not_fit(change, message):
  with pytest.raises(ValueError, match=message):
    meshes.mesh(ConfigDict(ALL | change))
