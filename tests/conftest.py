"""Strict JAX for every test (optax relaxes dtype promotion where it must)."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests compile much and run little: unoptimised programs take half the time in all.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import pytest

from tests import smoke

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

_PLACE = pytest.StashKey[tuple[bool, int]]()
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.hookimpl(tryfirst=True)  # xdist's own reads the groups
def pytest_collection_modifyitems(items):
  """Two workers share no fixture and no compiled program: a file is one's alone.

  What reads the smoke run is one's too, and comes first, for it takes longest; then
  the whole programs, which lie at the top.
  """
  for item in items:
    smoky = "smoke_run" in getattr(item, "fixturenames", ())
    group = "smoke" if smoky else str(item.path)
    item.add_marker(pytest.mark.xdist_group(group))
    item.stash[_PLACE] = (not smoky, len(item.path.parts))
  items.sort(key=lambda item: item.stash[_PLACE])


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
