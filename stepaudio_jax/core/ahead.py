"""Work that is done before it is asked for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
  """The same items; while one is used, a thread makes the next."""
  with ThreadPoolExecutor(1) as pool:
    coming = pool.submit(next, items, _END)
    while (item := coming.result()) is not _END:
      coming = pool.submit(next, items, _END)
      yield item
      del item  # not kept until there is another
