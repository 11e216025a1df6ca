"""Result files: whole or not there."""

import contextlib
from collections.abc import Iterator

from etils import epath


@contextlib.contextmanager
def aside(path: epath.PathLike) -> Iterator[epath.Path]:
  """A path to write to, renamed to `path` once the block has ended well."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + ".partial")
  yield partial
  partial.replace(path)
