"""Checkpoints: written while the run goes on, proved when read, never half there."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from stepaudio_jax import checkpoint
from stepaudio_jax.core import checksum, files, seal, tree
from stepaudio_jax.core.types import TrainState
from tests.flags import EIGHT_DEVICES, QUICK

ROOT = pathlib.Path(__file__).resolve().parents[1]
TX = optax.adam(0.1)


def state(step: int) -> TrainState:
  """Large enough for files of their own; every number depends on the step."""
  params = {
    "kernel": jnp.sin(jnp.arange(6000.0) + step).reshape(60, 100),
    "half": jnp.full((7,), step, jnp.bfloat16),
  }
  rng = jax.random.key_data(jax.random.key(step))
  return TrainState(params, {}, TX.init(params), jnp.int32(step), rng)


def opened(folder, keep=2):
  return checkpoint.Checkpoints(folder, every_steps=1, keep=keep)


def written(folder, steps=(1, 2, 3), keep=2):
  saved = opened(folder, keep)
  for step in steps:
    saved.save(step, state(step), {"batch": step})
  saved.close()
  return folder / "checkpoints"


def restored(folder):
  saved = opened(folder)
  found, data = saved.restore(state(0))
  saved.close()
  return found, data


def assert_is(found: TrainState, step: int) -> None:
  wanted = state(step)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  assert tree.content_hash(found) == tree.content_hash(wanted)


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_what_is_restored_is_bit_for_bit_what_was_saved(tmp_path):
  written(tmp_path)
  found, data = restored(tmp_path)
  assert_is(found, 3)
  assert data == {"batch": 3}


def test_moments_that_wait_in_the_hosts_memory_are_saved_and_come_back_there(tmp_path):
  def waiting(value):
    far = jax.tree.map(lambda x: x.sharding.with_memory_kind("pinned_host"), value)
    return dataclasses.replace(
      value, opt_state=jax.device_put(value.opt_state, far.opt_state)
    )

  saved = opened(tmp_path)
  saved.save(1, waiting(state(1)), {})
  saved.wait()
  found, _ = saved.restore(waiting(state(0)))
  saved.close()
  assert_is(found, 1)
  kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(found.opt_state)}
  assert kinds == {"pinned_host"}


def test_the_newest_stay(tmp_path):
  assert names(written(tmp_path, range(1, 6), keep=2)) == ["4", "5"]


def test_the_run_goes_on_while_a_thread_writes(tmp_path, monkeypatch):
  """Nothing can be written before the loop has donated what was saved."""
  gate, make = threading.Event(), os.makedirs

  def gated(path, *args, **kwargs):
    assert "tmp" not in pathlib.Path(path).name or gate.wait(30)
    make(path, *args, **kwargs)

  monkeypatch.setattr(os, "makedirs", gated)
  saved, now = opened(tmp_path), state(1)
  saved.save(1, now, {})
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + x, s), donate_argnums=0)
  for _ in range(3):
    now = step(now)
  jax.block_until_ready(now)
  assert saved.latest() is None
  gate.set()
  saved.close()
  assert saved.latest() == 1
  assert_is(restored(tmp_path)[0], 1)


def test_an_error_of_the_writer_comes_with_the_next_save_and_names_the_step(
  tmp_path, monkeypatch
):
  written(tmp_path, [1])

  def full(folder):
    raise OSError(28, "No space left on device", str(folder))

  saved = opened(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.seal, "seal", full)
    saved.save(2, state(2), {})
    with pytest.raises(checkpoint.NotSaved, match=r"step 2 was not .*No space left"):
      saved.save(3, state(3), {})
    saved.save(4, state(4), {})
    with pytest.raises(checkpoint.NotSaved, match="the checkpoint of step 4 was not"):
      saved.close()


FULL = """
import resource, sys
from tests import test_checkpoint
from stepaudio_jax import checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))  # no file may become longer
saved = test_checkpoint.opened(test_checkpoint.pathlib.Path(sys.argv[1]))
saved.save(2, test_checkpoint.state(2), {})
try:
  saved.close()
except checkpoint.NotSaved as error:
  sys.exit(f"not saved: {error}")
"""


def test_a_disk_that_is_full_leaves_the_one_before(tmp_path):
  """The kernel cuts every file short, as it does on a disk that is full."""
  folder = written(tmp_path, [1])
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1, done.stderr
  assert "not saved: the checkpoint of step 2 was not written to" in done.stderr
  assert "(step 1 is whole; the same command goes on from there)" in done.stderr
  assert names(folder) == ["1"]
  assert_is(restored(tmp_path)[0], 1)


def largest(folder: epath.Path) -> epath.Path:
  return max(files.within(folder), key=lambda path: path.stat().length)


def cut(folder):
  path = largest(folder)
  path.write_bytes(path.read_bytes()[:1000])


def lose(folder):
  largest(folder).unlink()


def flip(folder):
  """One bit of an array, in a file that the seal found too long to be hashed."""
  content = bytearray(largest(folder).read_bytes())
  content[content.index(np.asarray(state(3).params["kernel"]).tobytes()) + 77] ^= 1
  largest(folder).write_bytes(bytes(content))


def empty(folder):
  (folder / "_CHECKPOINT_METADATA").write_text("{}")


@pytest.mark.parametrize(
  ("harm", "why"),
  [
    (cut, r"has 1000 bytes, not \d+"),
    (lose, "is missing"),
    (empty, "_CHECKPOINT_METADATA has 2 bytes"),
    (flip, "changed since it was written: params/kernel"),
  ],
)
def test_a_damaged_newest_is_set_aside_and_the_one_before_goes_on(
  tmp_path, caplog, monkeypatch, harm, why
):
  monkeypatch.setattr(seal, "_SMALL", 10_000)  # as if the arrays were gigabytes
  folder = written(tmp_path)
  harm(folder / "3")
  found, data = restored(tmp_path)
  assert_is(found, 2)
  assert data == {"batch": 2}
  assert caplog.text.count("the checkpoint of step 3 in") == 1
  assert re.search(rf"{why}.*; it is set aside and the run goes on from", caplog.text)
  assert names(folder) == ["2", "3.damaged"]
  assert names(written(tmp_path, [3])) == ["2", "3", "3.damaged"]


def test_all_damaged_is_an_error_that_names_each_and_moves_none(tmp_path):
  folder = written(tmp_path)
  lose(folder / "2")
  cut(folder / "3")
  message = r"no checkpoint in .* is whole: step 3: .* 1000 bytes.*; step 2: .* missing"
  for _ in range(2):
    with pytest.raises(ValueError, match=message):
      restored(tmp_path)
  assert names(folder) == ["2", "3"]


def test_what_a_kill_leaves_is_swept_away(tmp_path):
  folder = written(tmp_path)
  (folder / "4.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  (folder / "1.leaving").mkdir()
  assert_is(restored(tmp_path)[0], 3)
  assert names(folder) == ["2", "3"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_a_checksum_is_that_of_numpy(dtype):
  """The same sum by arithmetic on the host: an element and its place, hashed."""
  x = np.asarray((jnp.arange(24) % 7).astype(dtype).reshape(2, 3, 4))

  def mixed(value: int) -> int:
    value = (value ^ value >> 16) * 0x85EBCA6B % 2**32
    value = (value ^ value >> 13) * 0xC2B2AE35 % 2**32
    return value ^ value >> 16

  words = x.view(f"u{x.dtype.itemsize}").ravel().tolist()
  total = sum(mixed((word + mixed(i)) % 2**32) for i, word in enumerate(words)) % 2**32
  assert checksum.checksums({"x": x}) == {"x": total}


def test_any_change_of_an_array_changes_its_checksum():
  x = np.zeros((50, 40), np.float32)
  x[3, 5], swapped, bit = 1.5, x.copy(), x.copy()
  swapped[3, 5], swapped[5, 3] = 0, 1.5
  bit.view(np.uint32)[49, 39] ^= 1
  before = checksum.checksums({"a": x, "b": x.T})
  assert checksum.changed(before, checksum.checksums({"a": x, "b": x.T})) == []
  for other in (swapped, bit):
    now = checksum.checksums({"a": other, "b": x.T})
    assert checksum.changed(before, now) == ["a"]
  assert checksum.changed(before, {"a": before["a"]}) == ["b"]


MESHES = """
import json, sys
import jax
from jax.sharding import NamedSharding, PartitionSpec
from stepaudio_jax import checkpoint
from stepaudio_jax.core import checksum, tree
from tests import test_checkpoint

def laid(value, data, tensor):
  mesh = jax.make_mesh((data, tensor), ("data", "tensor"),
                       axis_types=(jax.sharding.AxisType.Auto,) * 2)
  def one(x):
    split = x.ndim == 2
    return jax.device_put(
      x, NamedSharding(mesh, PartitionSpec(*[None, "tensor"][: 2 if split else 0])))
  return jax.tree.map(one, value)

out = {"devices": jax.device_count()}
folder = sys.argv[1]
saved = checkpoint.Checkpoints(folder, every_steps=1, keep=9)
first = laid(test_checkpoint.state(5), 2, 4)
saved.save(5, first, {})
saved.wait()
for name, mesh in {"same": (2, 4), "other": (4, 2), "whole": (8, 1)}.items():
  found, _ = saved.restore(laid(test_checkpoint.state(0), *mesh))
  kernel = found.params["kernel"]
  out[name] = [tree.content_hash(found), kernel.sharding.num_devices,
               kernel.addressable_shards[0].data.shape]
out["sums"] = checksum.checksums(first.params) == checksum.checksums(found.params)
saved.close()
print(json.dumps(out))
"""


def test_eight_devices_restore_onto_the_same_mesh_and_onto_others(tmp_path):
  flags = f"{EIGHT_DEVICES} {QUICK}"
  done = subprocess.run(
    [sys.executable, "-c", MESHES, str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found, whole = json.loads(done.stdout.splitlines()[-1]), tree.content_hash(state(5))
  assert found == {
    "devices": 8,
    "same": [whole, 8, [60, 25]],
    "other": [whole, 8, [60, 50]],
    "whole": [whole, 8, [60, 100]],
    "sums": True,
  }
  assert_is(restored(tmp_path)[0], 5)  # and onto one device
