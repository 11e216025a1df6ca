import threading

import pytest

from stepaudio_jax.core import ahead


def test_the_same_items_in_order():
  assert list(ahead.ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
  assert list(ahead.ahead(iter([None, None]))) == [None, None]
  assert list(ahead.ahead(iter([]))) == []


def test_the_next_is_made_while_one_is_used_and_no_more():
  made = [threading.Event() for _ in range(4)]

  def items():
    for i, event in enumerate(made):
      event.set()
      yield i

  coming = ahead.ahead(items())
  assert next(coming) == 0
  assert made[1].wait(10)
  assert not made[2].is_set()
  assert next(coming) == 1
  assert made[2].wait(10)


def test_an_error_comes_where_its_item_would():
  def items():
    yield 1
    raise ValueError("broken")

  coming = ahead.ahead(items())
  assert next(coming) == 1
  with pytest.raises(ValueError, match="broken"):
    next(coming)
