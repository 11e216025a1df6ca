import threading

import pytest

from stepaudio_jax.core import threads


def test_every_item_once_by_several_threads():
  done, workers, both = [], set(), threading.Barrier(2, timeout=60)

  def work(item):
    if item < 2:
      both.wait()  # two are at work at the same time, or this breaks
    workers.add(threading.get_ident())
    done.append(item)

  threads.each(work, iter(range(50)), count=2)
  assert sorted(done) == [*range(50)]
  assert len(workers) == 2
  assert threading.get_ident() not in workers


def test_no_more_items_are_taken_than_are_worked_on():
  lock, alive, most = threading.Lock(), 0, 0

  def items():
    nonlocal alive, most
    for item in range(40):
      alive += 1
      most = max(most, alive)
      yield item

  def work(_):
    nonlocal alive
    with lock:
      alive -= 1

  threads.each(work, items(), count=3)
  assert alive == 0
  assert most <= 3


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_work_ends_all_of_it(count):
  before, done = threading.active_count(), []

  def work(item):
    if item == 3:
      raise ValueError("item 3 is broken")
    done.append(item)

  def items():
    yield from range(10**9)

  with pytest.raises(ValueError, match="item 3 is broken"):
    threads.each(work, items(), count=count)
  assert {0, 1, 2} <= set(done)
  assert threading.active_count() == before


def test_an_error_of_the_items_comes_too():
  def items():
    yield 1
    raise OSError("the source is gone")

  done = []
  with pytest.raises(OSError, match="the source is gone"):
    threads.each(done.append, items(), count=2)
  assert done == [1]


def test_no_items():
  threads.each(pytest.fail, [])


def test_what_is_made_ahead_comes_in_the_items_order():
  later = threading.Event()

  def work(item):
    if item == 0:
      assert later.wait(60)  # until a later one is made, by another thread
    else:
      later.set()
    return item * item

  assert list(threads.ahead(work, range(20), count=2)) == [k * k for k in range(20)]


def test_no_more_than_twice_the_threads_are_ahead():
  taken = []

  def items():
    for item in range(40):
      taken.append(item)
      yield item

  made = threads.ahead(str, items(), count=3)
  for k in range(40):
    assert next(made) == str(k)
    assert len(taken) == min(k + 7, 40)
  assert next(made, None) is None


def test_an_error_ahead_comes_in_its_place():
  before = threading.active_count()
  made = threads.ahead(lambda item: 1 // item, [1, 1, 0, 1], count=2)
  assert [next(made), next(made)] == [1, 1]
  with pytest.raises(ZeroDivisionError):
    next(made)
  assert threading.active_count() == before
