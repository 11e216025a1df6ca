"""Files and folders that are whole or not there."""

import contextlib
import uuid
from collections.abc import Iterator

from etils import epath

PARTIAL = ".partial"


def is_remote(path: epath.PathLike) -> bool:
  """Whether a path is in an object store ("gs://…"), not on a disk.

  There nothing is mapped into memory, and a folder is no thing that can be renamed.
  """
  return "://" in str(path)


def absolute(path: epath.PathLike) -> epath.Path:
  """The same place, whatever folder the process is in."""
  path = epath.Path(path)
  return path if is_remote(path) else path.resolve()


@contextlib.contextmanager
def aside(path: epath.PathLike) -> Iterator[epath.Path]:
  """A path to write to, renamed to `path` once the block has ended well.

  Its name is this block's alone: another process may be writing the same file. What a
  kill leaves behind ends with PARTIAL.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
  try:
    yield partial
  except BaseException:
    partial.unlink(missing_ok=True)
    raise
  partial.replace(path)


@contextlib.contextmanager
def folder_aside(path: epath.PathLike) -> Iterator[epath.Path]:
  """A new folder to fill, renamed to `path` once the block has ended well.

  What a kill leaves behind is "<name>.partial" beside it, which the next block for the
  same path replaces.

  Raises:
    FileExistsError: there is something under that name already.
  """
  path = epath.Path(path)
  if path.exists():
    raise FileExistsError(f"{path} exists; name a new folder")
  partial = path.with_name(path.name + PARTIAL)
  if partial.exists():
    partial.rmtree()
  partial.mkdir(parents=True)
  try:
    yield partial
  except BaseException:
    partial.rmtree()
    raise
  partial.rename(path)
