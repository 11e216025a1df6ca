"""Files and folders that are whole or not there."""

import contextlib
import errno
import uuid
from collections.abc import Iterator

from etils import epath

PARTIAL = ".partial"
# What a write is answered that has no name of its file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def refuse_existing(path: epath.PathLike) -> None:
  """Raises FileExistsError: there is something under that name."""
  if epath.Path(path).exists():
    raise FileExistsError(f"{path} exists; name a new folder")


@contextlib.contextmanager
def folder_aside(path: epath.PathLike) -> Iterator[epath.Path]:
  """A new folder to fill, renamed to `path` once the block has ended well.

  What a kill leaves behind is "<name>.partial" beside it, which the next block for the
  same path replaces.

  Raises:
    FileExistsError: there is something under that name already.
    OSError: naming `path`, if the disk is full.
  """
  refuse_existing(path)
  path = epath.Path(path)
  partial = path.with_name(path.name + PARTIAL)
  if partial.exists():
    partial.rmtree()
  partial.mkdir(parents=True)
  try:
    yield partial
  except BaseException as error:
    partial.rmtree()
    if isinstance(error, OSError) and error.errno in _FULL and not error.filename:
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise
  partial.rename(path)


def within(folder: epath.PathLike) -> Iterator[epath.Path]:
  """The files of a folder, those of sub-folders too."""
  for path in sorted(epath.Path(folder).iterdir()):
    if path.is_dir():
      yield from within(path)
    else:
      yield path
