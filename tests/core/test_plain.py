"""Our files of arrays against orbax's own, byte by byte."""

import json

import ml_dtypes
import numpy as np
import pytest

from stepaudio_jax import workdirs
from stepaudio_jax.checkpoint import Checkpoints
from stepaudio_jax.core import disk, plain, seal, storage
from stepaudio_jax.core.types import TrainState

LEAVES = {
  "decoder/a/kernel": np.arange(24).reshape(2, 3, 4).astype(ml_dtypes.bfloat16),
  "decoder/b": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
  "encoder/c": np.zeros(5, np.float16),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """The same leaves written by orbax, and by us into what orbax left blank."""
  room = tmp_path_factory.mktemp("plain")
  sizes = {path: leaf.nbytes for path, leaf in LEAVES.items()}
  storage.save_leaves(room / "orbax", sizes, iter(LEAVES.items()))
  shapes = {path: leaf.shape for path, leaf in LEAVES.items()}
  dtypes = {path: leaf.dtype for path, leaf in LEAVES.items()}
  files = storage.save_blank(room / "ours", shapes, dtypes)
  with disk.writable(file.file for file in files.values()) as targets:
    for path, leaf in LEAVES.items():
      targets[files[path].file].write(leaf, 0)
  return room


def state_files(folder):
  state = folder / "checkpoints" / "0" / "state"
  return {
    path.relative_to(state): path.read_bytes()
    for path in state.rglob("*")
    if path.is_file()
  }


def test_every_byte_is_what_orbax_writes(folders):
  ours, theirs = (state_files(folders / name) for name in ("ours", "orbax"))
  assert ours.keys() == theirs.keys()
  for path, content in theirs.items():
    if path.suffix == ".json":
      assert json.loads(ours[path]) == json.loads(content), path
    assert ours[path] == content, path


def test_orbax_reads_it(folders):
  read = dict(storage.Leaves(folders / "ours").read())
  assert read.keys() == LEAVES.keys()
  for path, leaf in LEAVES.items():
    assert (read[path].dtype, read[path].tolist()) == (leaf.dtype, leaf.tolist())


@pytest.mark.parametrize("name", ["ours", "orbax"])
def test_we_read_it_without_orbax(folders, name):
  files = storage.Leaves(folders / name).files
  assert files.keys() == LEAVES.keys()
  for path, leaf in LEAVES.items():
    array = files[path].read()
    assert (array.dtype, array.tolist()) == (leaf.dtype, leaf.tolist())


def test_a_training_run_is_not_plain(tmp_path):
  saved = Checkpoints(tmp_path, every_steps=1, keep=1)
  zero, params = np.zeros((), np.int32), {"a": LEAVES["decoder/b"]}
  saved.save(1, TrainState(params, {}, (), zero, np.zeros(2, np.uint32)), {})
  saved.close()
  leaves = storage.Leaves(tmp_path)
  assert leaves.shapes == {"a": (2, 3)}
  assert leaves.files == {}
  assert workdirs.load_params(tmp_path)["a"].tolist() == LEAVES["decoder/b"].tolist()


def array_folder(folder):
  return folder / "checkpoints" / "0" / "state" / "params.decoder.b"


@pytest.mark.parametrize("damage", ["cut", "longer", "index", "gone"])
def test_a_damaged_file_is_told(tmp_path, damage):
  leaves = {"decoder/b": LEAVES["decoder/b"]}
  storage.save_leaves(tmp_path, {"decoder/b": 24}, iter(leaves.items()))
  path = array_folder(tmp_path) / "c" / "0" / "0"
  content = path.read_bytes()
  changed = {
    "cut": content[:-24],
    "longer": content + bytes(4),
    "index": content[:-1] + bytes([content[-1] ^ 1]),
  }
  path.unlink()
  if damage in changed:
    path.write_bytes(changed[damage])
  (tmp_path / "checkpoints" / "0" / seal.NAME).unlink()  # it would know
  with pytest.raises(ValueError, match="damaged: no array of 24 bytes"):
    storage.Leaves(tmp_path)


@pytest.mark.parametrize(
  "change",
  [
    {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3]}}},
    {"codecs": [{"name": "zstd", "configuration": {"level": 1}}]},
    {"data_type": "int32"},
    {"zarr_format": 2},
  ],
)
def test_other_layouts_are_left_to_orbax(tmp_path, change):
  leaves = {"decoder/b": LEAVES["decoder/b"]}
  storage.save_leaves(tmp_path, {"decoder/b": 24}, iter(leaves.items()))
  folder = array_folder(tmp_path)
  assert plain.opened(folder) is not None
  meta = json.loads((folder / "zarr.json").read_text()) | change
  (folder / "zarr.json").write_text(json.dumps(meta))
  assert plain.opened(folder) is None
  with pytest.raises(ValueError, match="no array of one uncompressed chunk"):
    plain.enlarged(folder, (4, 4))


def test_the_checksum():
  """RFC 3720, B.4: of 32 bytes 0, of 32 bytes 0xFF, of 0x00 to 0x1F."""
  data = (bytes(32), b"\xff" * 32, bytes(range(32)))
  assert [*map(plain._crc32c, data)] == [0x8A9136AA, 0x62A8AB43, 0x46DD794E]
