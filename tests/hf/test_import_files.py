"""A file that is bad is told once, with how many tensors depend on it."""

import os

import pytest
import safetensors.numpy

from tests.hf import directories
from tests.hf.test_import_failures import INDEX, NAMES, problems_of


@pytest.fixture(scope="module")
def arrays():
  return directories.tensors()


@pytest.fixture
def source(tmp_path, arrays):
  """The first tensor in a file, the others in another."""
  return directories.step_audio(tmp_path / "hf", dict(arrays), names=NAMES)


def absent(path):
  path.unlink()
  return "is not there (81 tensors depend on it)"


def garbled(path):
  content = path.read_bytes()
  path.write_bytes(content[:9] + b"?" + content[10:])
  return "is no JSON object of tensors"


def emptied(path):
  path.write_bytes(b"")
  return "(81 tensors depend on it)"


def shortened(path):
  os.truncate(path, path.stat().st_size - 1000)
  return " of its 81 tensors are cut off"


@pytest.mark.parametrize("harm", [absent, garbled, emptied, shortened])
def test_a_bad_file_is_told_once_with_what_depends_on_it(source, harm):
  said = harm(source / NAMES[1])
  (problem,) = problems_of(source)
  assert NAMES[1] in problem
  assert said in problem


def no_index(path):
  path.unlink()
  return "only an index tells what 2 .safetensors files hold"


def broken_index(path):
  path.write_text("{")
  return f"{INDEX} is no JSON"


@pytest.mark.parametrize("harm", [no_index, broken_index])
def test_a_bad_index_is_told_once(source, harm):
  said = harm(source / INDEX)
  (problem,) = problems_of(source)
  assert said in problem


def test_one_file_without_an_index_is_told_once(tmp_path, arrays):
  source = directories.step_audio(tmp_path / "hf", dict(arrays))
  shortened(source / "model.safetensors")
  (problem,) = problems_of(source)
  assert " of its 82 tensors are cut off" in problem


def test_a_tensor_that_a_file_lacks_is_told_once(source):
  held = safetensors.numpy.load_file(source / NAMES[1])
  del held["adapter.conv.bias"]
  safetensors.numpy.save_file(held, source / NAMES[1])
  (problem,) = problems_of(source)
  assert f"{NAMES[1]} has no usable tensor 'adapter.conv.bias', which" in problem
