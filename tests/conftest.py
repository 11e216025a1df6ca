"""Strict JAX for every test (optax relaxes dtype promotion where it must)."""

import atexit
import functools
import os
import pathlib
import shutil
import tempfile

from tests import flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("XLA_FLAGS", flags.QUICK)
# Two workers that write librosa's compiled loops to one place at a time crash.
os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="numba-")

import jax
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import smoke

atexit.register(shutil.rmtree, os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


class ByFile(LoadScopeScheduling):
  """Two workers share no fixture and no compiled program: a file is one's alone.

  The files that read the smoke run are one's together. (Not by xdist's marks of groups:
  it writes them into node ids, which pytest 9.2 no longer lets it change.)
  """

  def _split_scope(self, nodeid: str) -> str:
    name = nodeid.split("::")[0]
    return "smoke" if _reads_smoke_run(name) else name


@functools.cache
def _reads_smoke_run(name: str) -> bool:
  root = pathlib.Path(__file__).resolve().parents[1]
  return "smoke_run" in (root / name).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  return ByFile(config, log)


def pytest_collection_modifyitems(items):
  """What reads the smoke run comes first, for it takes longest; then whole programs."""

  def place(item: pytest.Item) -> tuple[bool, int]:
    return not _reads_smoke_run(item.nodeid.split("::")[0]), len(item.path.parts)

  items.sort(key=place)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> pathlib.Path:
  """A finished smoke quick start; it takes a minute, and tests only read it."""
  workdir = tmp_path_factory.mktemp("smoke") / "run"
  smoke.finish(workdir)
  return workdir


@pytest.fixture(scope="session")
def shared_audio() -> pathlib.Path:
  """The folder of real recordings, or a skip that says where it was looked for."""
  folder = SHARED / "data" / "audio"
  if not (folder / "manifest.json").exists():
    pytest.skip(f"real recordings are not at {folder}")
  return folder
