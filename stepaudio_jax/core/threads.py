"""Work on many items by a few threads."""

import collections
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
Made = TypeVar("Made")
_END = object()
# For work that reads, copies and writes memory: more of them only wait for the disk.
COUNT = min(4, os.cpu_count() or 1)


def each(
  work: Callable[[T], None],
  items: Iterable[T],
  count: int = COUNT,
  stop: threading.Event | None = None,
) -> None:
  """Calls `work` with every item, `count` at a time; returns when all are done.

  An item is taken when a thread is free for it, so no more than `count` are in memory.
  What `work` or `items` raises is raised here, once no thread is left at work; items
  that had not begun by then are left out.

  Args:
    stop: is set where all is to end early, such as by Ctrl-C, for work that waits.
  """
  lock, stop, coming = threading.Lock(), stop or threading.Event(), iter(items)

  def some() -> None:
    while not stop.is_set():
      with lock:
        item = next(coming, _END)
      if item is _END:
        return
      work(item)
      del item  # not kept while the next is made

  with ThreadPoolExecutor(count) as pool:
    try:
      for future in as_completed([pool.submit(some) for _ in range(count)]):
        future.result()
    except BaseException:
      stop.set()
      raise


def ahead(
  work: Callable[[T], Made], items: Iterable[T], count: int = COUNT
) -> Iterator[Made]:
  """`work` of every item, in their order; `count` threads are that far ahead at most.

  What `work` raises is raised in the place of what it would have made.
  """
  with ThreadPoolExecutor(count) as pool:
    coming = (pool.submit(work, item) for item in items)
    begun = collections.deque(itertools.islice(coming, 2 * count))
    try:
      while begun:
        made = begun.popleft().result()
        begun.extend(itertools.islice(coming, 1))
        yield made
        del made  # not kept while the next is waited for
    finally:
      for future in begun:
        future.cancel()
