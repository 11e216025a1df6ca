"""Arrays at odd places of files, past the page cache and through it."""

import errno
import fcntl
import itertools
import os

import ml_dtypes
import numpy as np
import pytest

from stepaudio_jax.core import disk
from stepaudio_jax.core.disk import Stored

BF16 = np.dtype(ml_dtypes.bfloat16)
MB = 1 << 20


@pytest.fixture(params=["direct", "refused", "cached"])
def road(request, tmp_path, monkeypatch):
  """A file system with O_DIRECT, one that takes the flag and refuses, one without."""
  calls, probe = [], tmp_path / "probe"
  if not disk._DIRECT:
    pytest.skip("a system without O_DIRECT")
  probe.touch()
  try:
    os.close(os.open(probe, os.O_RDONLY | disk._DIRECT))
  except OSError:
    pytest.skip(f"{tmp_path} lies on a file system without O_DIRECT")
  disk_flag = disk._DIRECT
  if request.param == "cached":
    monkeypatch.setattr(disk, "_DIRECT", 0)
  real = {"read": os.preadv, "write": os.pwrite}

  def through(name):
    def call(descriptor, data, start):
      direct = bool(disk_flag & fcntl.fcntl(descriptor, fcntl.F_GETFL))
      if direct and request.param == "refused":
        raise OSError(errno.EINVAL, "not past the cache")
      calls.append((name, direct))
      return real[name](descriptor, data, start)

    return call

  monkeypatch.setattr(os, "preadv", through("read"))
  monkeypatch.setattr(os, "pwrite", through("write"))
  yield request.param
  assert ("read", True) in calls or request.param != "direct"
  assert ("write", True) in calls or request.param != "direct"
  assert request.param == "direct" or not any(direct for _, direct in calls)


def bits(count, seed=0):
  return np.random.default_rng(seed).integers(0, 2**16, count, np.uint16)


def test_pieces_side_by_side_share_pages(tmp_path, road, monkeypatch):
  """Cut at odd places, written from last to first, each by its own road."""
  monkeypatch.setattr(disk, "_MOST", MB)  # so that a read takes several requests
  wanted = bits(4 * MB)
  cuts = [0, 3, 5_000, 1_100_007, 2_500_001, 2_500_002, len(wanted) - 1, len(wanted)]
  head, path, scratch = 104, tmp_path / "a", disk.Scratch()
  with disk.writable([path]) as targets:
    targets[path].resize(head + wanted.nbytes)
    for a, b in reversed([*itertools.pairwise(cuts)]):
      start = head + 2 * a
      piece = scratch.array((b - a,), wanted.dtype, start)
      piece[...] = wanted[a:b]
      targets[path].write(piece, start)
    targets[path].write(np.full(head, 7, np.uint8), 0)
  assert path.read_bytes() == bytes([7]) * head + wanted.tobytes()
  for a, b in itertools.pairwise(cuts):
    stored = Stored(path, wanted.dtype, (b - a,), head + 2 * a)
    assert stored.read(scratch).tobytes() == wanted[a:b].tobytes(), (a, b)
  # At a byte where no element of the array may lie in memory.
  odd = Stored(path, np.dtype(np.float32), (MB,), head + 2)
  assert odd.read(scratch).tobytes() == wanted[1 : 1 + 2 * MB].tobytes()
  assert odd.read(scratch).flags.aligned


def test_an_array_that_lies_otherwise_is_written_too(tmp_path):
  wanted, path = bits(2 * MB), tmp_path / "a"
  with disk.writable([path]) as targets:
    targets[path].write(wanted, 6)
  assert path.read_bytes() == bytes(6) + wanted.tobytes()


def test_layers_and_parts(tmp_path, monkeypatch):
  array = np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5)
  path = tmp_path / "a"
  path.write_bytes(b"12345678" + array.tobytes())
  stored = Stored(path, array.dtype, array.shape, 8)
  assert stored.layer(None) is stored
  np.testing.assert_array_equal(stored.layer(1).read(), array[1])
  monkeypatch.setattr(disk, "SOME_BYTES", 4 * 4)
  parts = [(first, part.read()) for first, part in stored.layer(1).parts()]
  assert [first for first, _ in parts] == [0, 4, 8, 12]
  assert np.concatenate([part for _, part in parts]).tolist() == [*range(15, 30)]


@pytest.mark.parametrize("size", [10, 3 * MB])
def test_a_file_that_ends_early(tmp_path, size):
  path = tmp_path / "a"
  path.write_bytes(bytes(size - 1))
  stored = Stored(path, np.dtype(np.uint8), (size,))
  with pytest.raises(ValueError, match=r"a ended early"):
    stored.read()


def test_other_errors_are_told(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, "no space left")

  monkeypatch.setattr(os, "pwrite", full)
  scratch = disk.Scratch()
  with (
    pytest.raises(OSError, match="no space left"),
    disk.writable([tmp_path / "a"]) as targets,
  ):
    targets[tmp_path / "a"].write(scratch.array((2 * MB,), BF16), 0)


def test_nothing_is_left_open(tmp_path):
  before = len(os.listdir("/dev/fd"))
  paths = [tmp_path / name for name in "ab"]
  with disk.writable(paths) as targets:
    targets[paths[0]].write(bits(MB), 0)
    assert len(os.listdir("/dev/fd")) > before
  Stored(paths[0], np.dtype(np.uint16), (MB,)).read()
  assert len(os.listdir("/dev/fd")) == before
