"""compat/check.py in the installed transformers and, slowly, in the oldest ones."""

import pathlib
import subprocess
import sys

import pytest
import torch

from tests.compat import case as case_lib
from tests.compat import check

SCRIPT = pathlib.Path(__file__).parents[1] / "compat" / "run.sh"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
  with torch.no_grad():
    yield check.Case(case_lib.write(tmp_path_factory.mktemp("compat")))


@pytest.mark.parametrize("name", [function.__name__ for function in check.CHECKS])
def test_installed_release(case, name):
  getattr(check, name)(case)


def test_every_check_is_run():
  """By another road: the functions of the file that take a case alone."""
  found = [
    name
    for name, value in vars(check).items()
    if getattr(value, "__module__", None) == check.__name__
    and getattr(value, "__code__", None)
    and value.__code__.co_varnames[: value.__code__.co_argcount] == ("case",)
  ]
  assert found == [function.__name__ for function in check.CHECKS]


def test_our_package_beside_it_is_refused(case):
  """Here stepaudio_jax can be imported, so the script must not go on."""
  with pytest.raises(SystemExit, match="must work without it"):
    check.main(case.folder.parent)


@pytest.mark.slow
def test_oldest_releases():
  """Two virtual environments of their own; they need a package index to be made."""
  run = subprocess.run(
    [str(SCRIPT), sys.executable],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
  assert run.stdout.count(f"{len(check.CHECKS)} passed, 0 failed") == 2
