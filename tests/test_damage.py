"""A checkpoint that is not what was written is never used: each command says so."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stepaudio_jax import checkpoint, convert, generate, origins, workdirs
from stepaudio_jax.core import checksum, seal, storage
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.text import tokenizer as tokenizers
from tests.hf import directories, exports

ROOT = pathlib.Path(__file__).resolve().parents[1]
BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Two steps of a run, whose arrays share a store; the seal has sums of tiny files."""
  folder = tmp_path_factory.mktemp("damage") / "run"
  params, zero = exports.random_params(exports.SIZE, seed=3), np.zeros((), np.int32)
  with pytest.MonkeyPatch.context() as patch:
    # Which arrays share a file, and so how long it is, is decided as they are written.
    patch.setattr(seal, "_SMALL", 4096)
    saved = checkpoint.Checkpoints(folder, every_steps=1, keep=2)
    for step in (4, 5):
      state = TrainState(params, {}, (), zero, np.zeros(2, np.uint32))
      saved.save(step, state, {})
    saved.close()
  workdirs.describe(folder, exports.SIZE, tokenizers.load("tiny"))
  return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """An import, whose arrays lie in files of their own."""
  room = tmp_path_factory.mktemp("damage")
  source = directories.step_audio(room / "hf", directories.tensors())
  convert.import_([source], room / "ckpt")
  return room / "ckpt"


def copied(folder, to):
  shutil.copytree(folder, to)
  return to


def largest(folder: pathlib.Path) -> pathlib.Path:
  found = [path for path in folder.rglob("*") if path.is_file()]
  return max(found, key=lambda path: path.stat().st_size)


def flip(path: pathlib.Path, content: bytes, offset: int) -> None:
  """One bit of an array, whose bytes are somewhere in that file."""
  whole = bytearray(path.read_bytes())
  whole[whole.index(content) + offset] ^= 1
  path.write_bytes(bytes(whole))


def flipped_run(run, to):
  """A bit of one array of its newest step, in a file too long for the seal."""
  kernel = exports.random_params(exports.SIZE, seed=3)["decoder"]["embed"]["embedding"]
  content = np.asarray(kernel).tobytes()
  files = (copied(run, to) / "checkpoints" / "5").rglob("*")
  held = [path for path in files if path.is_file() and content in path.read_bytes()]
  assert held[0].stat().st_size > 4096
  flip(held[0], content, 77)
  return to


def refused(main, arguments, capsys) -> str:
  capsys.readouterr()
  with pytest.raises(SystemExit) as stop:
    main([str(argument) for argument in arguments])
  assert stop.value.code == 2
  lines = capsys.readouterr().err.splitlines()
  assert "Traceback" not in "\n".join(lines)
  return lines[-1]


def commands(folder, out):
  """Every way to read it that needs no data, and the command's own name for it."""
  ask = ["--prompt", "Hello", "--max_new_tokens", "1", "--checkpoint", folder]
  return {
    "convert export": (convert.main, ["export", "--from", folder, "--to", out]),
    "convert check": (
      convert.main,
      ["check", "--no-logits", "--a", folder, "--b", folder],
    ),
    "generate": (generate.main, ask),
  }


@pytest.mark.parametrize("command", ["convert export", "convert check", "generate"])
def test_a_flipped_bit_of_a_run_is_one_line(run, tmp_path, capsys, command):
  folder = flipped_run(run, tmp_path / "run")
  line = refused(*commands(folder, tmp_path / "hf")[command], capsys)
  steps = folder / "checkpoints"
  assert line == (
    f"{command}: the checkpoint {steps / '5'} is damaged: parameter "
    "decoder/embed/embedding changed since it was written; name an earlier step "
    f"folder: {steps / '4'}"
  )
  assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("command", ["convert export", "convert check", "generate"])
def test_a_file_cut_short_is_one_line(run, tmp_path, capsys, command):
  folder = copied(run, tmp_path / "run")
  path = largest(folder / "checkpoints" / "5")
  path.write_bytes(path.read_bytes()[:1000])
  line = refused(*commands(folder, tmp_path / "hf")[command], capsys)
  assert f"{path.name} has 1000 bytes, not " in line
  assert line.endswith(f"earlier step folder: {folder / 'checkpoints' / '4'}")


def test_training_and_rewards_do_not_start_from_it(run, tmp_path):
  folder = flipped_run(run, tmp_path / "run")
  for load in (origins.load_params, origins.load_reward_model, workdirs.load_model):
    with pytest.raises(seal.Damaged, match="embedding changed since"):
      load(folder)
  place = {}
  with pytest.raises(seal.Damaged, match="embedding changed since"):
    origins.load_params(folder, place=lambda path, leaf: place.update({path: leaf}))
  assert "decoder/embed/embedding" not in place
  origins.load_params(folder / "checkpoints" / "4")  # as the error says


def test_a_truncated_one_without_a_seal_is_one_line_too(run, tmp_path):
  """In a process of its own, for orbax leaves threads of its own behind."""
  folder = copied(run, tmp_path / "run") / "checkpoints" / "4"
  shutil.rmtree(folder.parent / "5")
  (folder / seal.NAME).unlink()
  path = largest(folder)
  path.write_bytes(path.read_bytes()[:1000])
  command = ["export", "--from", str(tmp_path / "run"), "--to", str(tmp_path / "hf")]
  done = subprocess.run(
    [sys.executable, "-m", "stepaudio_jax.convert", *command],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2, done.stderr
  *_, line = done.stderr.splitlines()
  # Threads that orbax leaves behind may log an error of theirs at the end.
  assert f'File "{ROOT / "stepaudio_jax"}' not in done.stderr
  assert f"the checkpoint {folder} is damaged: it cannot be read: OUT_OF_RANGE" in line
  assert line.endswith(
    "no earlier one is whole: make it again, by the same import or training"
  )


def kernel_file(imported):
  """Not the shortest: it is turned on its way, in layers."""
  name = "params.decoder.layers.mlp.up.kernel"
  return largest(imported / "checkpoints" / "0" / "state" / name)


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
@pytest.mark.parametrize("command", ["convert export", "generate"])
def test_a_damaged_import(imported, tmp_path, capsys, monkeypatch, command, harm):
  monkeypatch.setattr(seal, "_SMALL", 3000)  # as if the arrays were gigabytes
  folder = copied(imported, tmp_path / "ckpt")
  path = kernel_file(folder)
  if harm == "flip":
    flip(path, path.read_bytes(), 777)
    why = "parameter decoder/layers/mlp/up/kernel changed since it was written"
  elif harm == "cut":
    path.write_bytes(path.read_bytes()[:1000])
    why = "state/params.decoder.layers.mlp.up.kernel/c/0/0/0 has 1000 bytes, not 92180"
  else:
    path.unlink()
    why = "state/params.decoder.layers.mlp.up.kernel/c/0/0/0 is missing"
  line = refused(*commands(folder, tmp_path / "hf")[command], capsys)
  assert f"{folder / 'checkpoints' / '0'} is damaged: {why}; no earlier" in line
  assert {path.name for path in tmp_path.iterdir()} == {"ckpt"}


def test_an_import_that_goes_through_orbax_is_proved_too(imported, tmp_path):
  """As one on a mesh or to a bucket is."""
  leaves = dict(storage.Leaves(imported).read())
  sizes = {path: leaf.nbytes for path, leaf in leaves.items()}
  storage.save_leaves(tmp_path, sizes, iter(leaves.items()))
  path = kernel_file(tmp_path)
  flip(path, path.read_bytes(), 777)
  (tmp_path / "checkpoints" / "0" / seal.NAME).unlink()  # it would see a small file
  with pytest.raises(seal.Damaged, match="up/kernel changed since it was written"):
    dict(storage.Leaves(tmp_path).read())


def test_one_without_a_seal_is_read_with_one_warning(
  imported, tmp_path, capsys, caplog
):
  folder = copied(imported, tmp_path / "ckpt")
  (folder / "checkpoints" / "0" / seal.NAME).unlink()
  convert.main(["export", "--from", str(folder), "--to", str(tmp_path / "hf")])
  workdirs.load_params(folder)
  assert caplog.text.count("has no seal.json, as of an earlier version") == 1
  assert (tmp_path / "hf" / "config.json").exists()


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.int32, np.bool_])
def test_the_hosts_checksum_is_the_devices(dtype, monkeypatch):
  monkeypatch.setattr(checksum, "_PART", 64)
  monkeypatch.setattr(checksum, "_SOME", 16)
  x = (np.arange(510) % 7).reshape(3, 10, 17).astype(dtype)
  wanted = checksum.checksums({"x": x, "y": x.T})  # by a program
  assert {"x": checksum.of_host(x), "y": checksum.of_host(x.T)} == wanted
  monkeypatch.setattr(checksum, "_program", None)  # what lies here needs none
  near = {"x": jnp.asarray(x), "y": jnp.asarray(x.T)}
  assert checksum.checksums(near) == wanted
