"""Leaves on a mesh of four fake devices, in a process that has them."""

import json
import os
import subprocess
import sys

import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from stepaudio_jax import meshes, sharding
from stepaudio_jax.models import layers
from tests.flags import QUICK
from tests.hf import directories

MESH = AbstractMesh((1, 2, 2, 1), meshes.MESH_AXES)
CHILD = """
import functools, json, sys
import numpy as np
from stepaudio_jax import convert, meshes, sharding, workdirs
from stepaudio_jax.core import tree
from stepaudio_jax.hf import plan, reading

source, folder = sys.argv[1:]
mesh = meshes.mesh(meshes.named_lengths("fsdp=2,tensor=-1"))
made = plan.plan([source], dtype="keep")
whole = dict(reading.leaves(made))
seen = {}
split = functools.partial(sharding.parameter, mesh)
for path, leaf in reading.leaves(made, split=split):
  np.testing.assert_array_equal(np.asarray(leaf), whole[path], err_msg=path)
  seen[path] = [leaf.addressable_shards[0].data.shape, len(leaf.addressable_shards)]
convert.import_([source], folder, dtype="keep", mesh="data=1,fsdp=2,tensor=2")
back = dict(tree.named_leaves(workdirs.load_params(folder, keep_dtype=True)))
assert back.keys() == whole.keys()
for path, leaf in back.items():
  np.testing.assert_array_equal(leaf, whole[path], err_msg=path)
try:
  convert.import_([source], folder + "-2", mesh="tensor=4")
except ValueError as error:
  seen["error"] = str(error)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
  folder = tmp_path_factory.mktemp("mesh")
  source = directories.step_audio(folder / "hf", directories.tensors())
  flags = "--xla_force_host_platform_device_count=4"
  env = {"XLA_FLAGS": f"{flags} {QUICK}"}
  done = subprocess.run(
    [sys.executable, "-c", CHILD, str(source), str(folder / "ckpt")],
    env=os.environ | env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert [p.name for p in folder.iterdir() if p.name.startswith("ckpt")] == ["ckpt"]
  return json.loads(done.stdout.splitlines()[-1])


def test_each_device_holds_its_shard(seen):
  """embed and audio_embed over fsdp = 2, heads, mlp and vocab over tensor = 2."""
  assert seen["decoder/layers/mlp/up/kernel"] == [[3, 96 // 2, 160 // 2], 4]
  assert seen["decoder/layers/attn/query/kernel"] == [[3, 96 // 2, 6 // 2, 16], 4]
  assert seen["decoder/layers/attn/key/bias"] == [[3, 2 // 2, 16], 4]
  assert seen["decoder/embed/embedding"] == [[1040 // 2, 96 // 2], 4]
  assert seen["encoder/blocks/attn/out/kernel"] == [[2, 2 // 2, 32, 64 // 2], 4]
  assert seen["decoder/norm/scale"] == [[96], 4]


def test_axes_that_do_not_divide_are_told_all_at_once(seen):
  lines = seen["error"].splitlines()
  assert lines[0] == "the mesh does not fit:"
  key = "decoder/layers/attn/key/kernel: its axis 'kv_heads' of 2 cannot be split over"
  assert any(f"parameter {key} the 4 devices of" in line for line in lines)
  assert any("encoder/blocks/attn/query/kernel: its axis 'audio_h" in s for s in lines)


def test_rules_name_axes_that_there_are():
  assert set(sharding.PARAMETER_RULES) <= set(layers.PARAMETER_AXES)
  split = [(x,) if isinstance(x, str) else x for x in sharding.PARAMETER_RULES.values()]
  assert {axis for axes in split for axis in axes} <= set(meshes.MESH_AXES)


def test_a_parameter_by_hand():
  mesh = meshes.mesh(meshes.named_lengths("data=1"))
  found = sharding.parameter(mesh, "x", (4, 6, 8), ("layers", "embed", "kv_heads"))
  assert found.spec == PartitionSpec(None, ("fsdp", "context"), "tensor")
  with pytest.raises(ValueError, match=r"parameter x: its axis 'embed' of 7 cannot be"):
    sharding.parameter(MESH, "x", (7,), ("embed",))


def test_mesh_lengths_on_the_command_line():
  wanted = {"data": 1, "fsdp": 2, "tensor": -1, "context": 1}
  assert meshes.named_lengths("fsdp=2,tensor=-1") == wanted
  for text in ("fsdp", "model=2", "fsdp=two"):
    with pytest.raises(ValueError, match=r"the choices are data=N, fsdp=N, tensor=N"):
      meshes.named_lengths(text)
  with pytest.raises(ValueError, match="does not fit 1 devices"):
    meshes.mesh(wanted | {"data": -1})
