"""How often the body of a loop runs, read from its condition.

libtpu drops XLA's own `known_trip_count`, so the bound, the start and the step of the
counter are looked up in the text.
"""

import dataclasses
import re
from collections.abc import Iterator

from stepaudio_jax.pricing import hlo

_SAME = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")


@dataclasses.dataclass(frozen=True)
class Trips:
  """`count` rounds; with `at_most` the loop may end earlier, as run time has it."""

  count: int
  at_most: bool = False


@dataclasses.dataclass(frozen=True)
class _Scope:
  """A computation, and the places that its parameters stand for (None: unknown)."""

  computation: hlo.Computation
  arguments: tuple["_Place", ...] | None = None


@dataclasses.dataclass(frozen=True)
class _Place:
  """An operation in its scope; `index` picks from a tuple."""

  scope: _Scope
  name: str
  index: int | None = None

  @property
  def op(self) -> hlo.Op:
    return self.scope.computation.ops[self.name]

  def operand(self, number: int) -> "_Place":
    return _Place(self.scope, self.op.operands[number])


def trips(
  module: hlo.Module, computation: hlo.Computation, loop: hlo.Op
) -> Trips | None:
  """Rounds of the while loop `loop` of that computation; None where nothing tells."""
  known = loop.find(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)')
  if known:
    return Trips(int(known))
  condition = _Scope(module.called(loop, "condition"))
  body = _Scope(module.called(loop, "body"))
  start = _Place(_Scope(computation), loop.operands[0])
  found, parts = [], 0
  for place in _conjuncts(module, _Place(condition, condition.computation.root.name)):
    parts += 1
    count = _rounds(module, place, body, start)
    found += [] if count is None else [count]
  return Trips(min(found), at_most=len(found) < parts) if found else None


def _conjuncts(module: hlo.Module, place: _Place) -> Iterator[_Place]:
  """The comparisons that must all hold."""
  place = _followed(module, place)
  if place.op.code == "and":
    for number in range(2):
      yield from _conjuncts(module, place.operand(number))
  else:
    yield place


def _rounds(
  module: hlo.Module, place: _Place, body: _Scope, start: _Place
) -> int | None:
  """Rounds after which a comparison of a counter with a bound fails."""
  if place.op.code != "compare":
    return None
  sides = [_followed(module, place.operand(number)) for number in range(2)]
  direction = re.search(r"direction=(\w\w)", place.op.attributes).group(1)
  for counter, bound in (sides, sides[::-1]):
    step = _step(module, body, counter)
    end = _value(module, bound)
    if end is None and bound.index is not None and _step(module, body, bound) == 0:
      end = _value(module, _element(module, start, bound.index))
    first = _value(module, _element(module, start, counter.index)) if step else None
    if step and end is not None and first is not None:
      span = abs(end - first) + (direction in ("LE", "GE"))
      return -(-span // abs(step))
  return None


def _step(module: hlo.Module, body: _Scope, counter: _Place) -> int | None:
  """What a round adds to the loop's element or takes from it; None where unknown."""
  if counter.index is None:
    return None
  root = _Place(body, body.computation.root.name)
  new = _element(module, root, counter.index)
  if _is_element(new, counter.index):
    return 0
  if new.op.code not in ("add", "subtract"):
    return None
  sides = [_followed(module, new.operand(number)) for number in range(2)]
  for old, other in (sides, sides[::-1]):
    value = _value(module, other)
    if _is_element(old, counter.index) and value is not None:
      return value
  return None


def _is_element(place: _Place, index: int) -> bool:
  """Whether it is element `index` of the body's own parameter."""
  return place.op.code == "parameter" and place.index == index


def _element(module: hlo.Module, place: _Place, index: int) -> _Place:
  return _followed(module, _Place(place.scope, place.name, index))


def _value(module: hlo.Module, place: _Place) -> int | None:
  place = _followed(module, place)
  if place.op.code != "constant" or not re.fullmatch(r"-?\d+", place.op.literal):
    return None
  return int(place.op.literal)


def _followed(module: hlo.Module, place: _Place) -> _Place:
  """Through copies, tuples and fusions to where a value is made."""
  while True:
    op, scope, index = place.op, place.scope, place.index
    if op.code in _SAME and op.operands:
      place = _Place(scope, op.operands[0], index)
    elif op.code == "get-tuple-element" and index is None:
      number = int(op.find(r"\bindex=(\d+)"))
      place = _Place(scope, op.operands[0], number)
    elif op.code == "tuple" and index is not None:
      place = _Place(scope, op.operands[index])
    elif op.code == "parameter" and scope.arguments is not None:
      outer = scope.arguments[int(op.literal)]
      place = _Place(outer.scope, outer.name, index)
    elif op.code in ("fusion", "call"):
      inner = module.called(op, "calls") or module.called(op, "to_apply")
      arguments = tuple(_Place(scope, name) for name in op.operands)
      place = _Place(_Scope(inner, arguments), inner.root.name, index)
    else:
      return place
