"""Files that are whole or not there."""

import contextlib
import uuid
from collections.abc import Iterator

from etils import epath

PARTIAL = ".partial"


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
