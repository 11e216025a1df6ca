"""Bytes that an operation moves to and from HBM.

A slice of a large operand counts as the slice, an update in place as the update; what
lies in VMEM costs nothing here, unless `anywhere` asks for bytes of every memory.
"""

import functools
from collections.abc import Callable

from stepaudio_jax.pricing import hlo

_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {
  "dynamic-update-slice": 1,
  "scatter": -1,
}  # which operand has the new values
_LINKS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all")  # fused: theirs
_SAME = ("bitcast", "reshape", "get-tuple-element")


def moved(
  module: hlo.Module,
  computation: hlo.Computation,
  op: hlo.Op,
  *,
  anywhere: bool = False,
) -> float:
  """Bytes read and written by one scheduled operation of the computation."""
  size = _bytes if anywhere else in_hbm
  full = size(op)
  made = full and min(full, _made(module, computation, op))
  return made + _read(module, computation, op, size)


def in_hbm(op: hlo.Op) -> float:
  return sum(array.bytes for array in op.arrays if array.space == hlo.HBM)


def _bytes(op: hlo.Op) -> float:
  return sum(array.bytes for array in op.arrays)


def _read(
  module: hlo.Module,
  computation: hlo.Computation,
  op: hlo.Op,
  size: Callable[[hlo.Op], float],
) -> float:
  operands = computation.operands(op)
  if op.code == "fusion":
    inner, total = module.called(op), 0.0
    for number, operand in enumerate(operands):
      full = size(operand)
      total += full and min(full, _used(module, inner, inner.parameters[number], full))
    return total
  if op.code in _SLICES:  # indices are small
    return min(size(operands[0]), _bytes(op))
  if op.code == "dynamic-update-slice":
    return size(operands[1])
  if op.code == "scatter":
    return _bytes(operands[-1]) + size(operands[-1])
  return sum(size(operand) for operand in operands)


def _used(
  module: hlo.Module, computation: hlo.Computation, name: str, full: float
) -> float:
  """Of a parameter of `full` bytes: what the operations inside read of it."""
  total = 0.0
  for user in computation.users.get(name, ()):
    if user.code in _LINKS:
      continue
    if user.code in _SLICES and user.operands[0] == name:
      total += _bytes(user)
    elif user.code in _UPDATES and user.operands[0] == name:
      # What a scatter adds to must be read first, where an update only overwrites.
      changed = _bytes(computation.operands(user)[_UPDATES[user.code]])
      total += changed if user.code == "scatter" else 0.0
    elif user.code in _SAME:
      total += full if user.is_root else _used(module, computation, user.name, full)
    elif user.code == "fusion":
      inner = module.called(user)
      numbers = [i for i, operand in enumerate(user.operands) if operand == name]
      total += sum(
        _used(module, inner, inner.parameters[number], full) for number in numbers
      )
    else:
      return full
  return min(total, full)


def _made(module: hlo.Module, computation: hlo.Computation, op: hlo.Op) -> float:
  """What is written for a result: of an update in place the update alone."""
  again = functools.partial(_made, module)
  operands = computation.operands(op)
  if op.code == "tuple":
    return sum(again(computation, operand) for operand in operands)
  if op.code == "bitcast" and operands:
    return again(computation, operands[0])
  if op.code == "parameter" or op.code in _LINKS:
    return 0.0  # handed on as it is
  if op.code in _UPDATES:
    return _bytes(operands[_UPDATES[op.code]])
  if op.code == "fusion":
    inner = module.called(op)
    return again(inner, inner.root)
  return _bytes(op)
