"""Floating-point operations of matrix products: a multiplication and an addition each.

libtpu writes nearly every product as a convolution, batched ones with the batch in a
window whose padding and dilation make all but one tap fall outside. Only taps on real
inputs are counted.
"""

import functools
import re

import numpy as np

from stepaudio_jax.pricing import hlo


def of_op(computation: hlo.Computation, op: hlo.Op) -> float:
  """Of a "dot" or "convolution"; 0 of any other operation."""
  if op.code == "dot":
    return _dot(computation, op)
  if op.code == "convolution":
    return _convolution(computation, op)
  return 0.0


def inside(module: hlo.Module, computation: hlo.Computation) -> float:
  """Of all products in a fused computation and those that it calls."""
  total = 0.0
  for op in computation.ops.values():
    total += of_op(computation, op)
    inner = module.called(op) or module.called(op, "to_apply")
    if inner and op.code in ("fusion", "call", "async-start"):
      total += inside(module, inner)
  return total


def _dot(computation: hlo.Computation, op: hlo.Op) -> float:
  left = computation.operands(op)[0].arrays[0]
  axes = op.find(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
  contracted = [left.dims[int(axis)] for axis in axes.split(",") if axis]
  return 2.0 * op.arrays[0].elements * np.prod(contracted, dtype=float)


def _convolution(computation: hlo.Computation, op: hlo.Op) -> float:
  left, right = (operand.arrays[0].dims for operand in computation.operands(op)[:2])
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes).groups()
  left_axes, right_axes, out_axes = labels
  out = op.arrays[0]
  window = dict(re.findall(r"(\w+)=(\S+)", op.find(r"window=\{([^}]*)\}") or ""))
  products = float(out.elements * right[right_axes.index("i")])
  for number, axis in enumerate(sorted(filter(str.isdigit, right_axes))):

    def part(key: str, default: str, number: int = number) -> str:
      return window[key].split("x")[number] if key in window else default

    length = out.dims[out_axes.index(axis)]
    products *= (
      _taps(
        inputs=left[left_axes.index(axis)],
        outputs=length,
        size=right[right_axes.index(axis)],
        stride=int(part("stride", "1")),
        before=int(part("pad", "0_0").split("_")[0]),
        left_dilation=int(part("lhs_dilate", "1")),
        right_dilation=int(part("rhs_dilate", "1")),
      )
      / length
    )
  return 2.0 * products


@functools.lru_cache(maxsize=4096)
def _taps(
  *,
  inputs: int,
  outputs: int,
  size: int,
  stride: int,
  before: int,
  left_dilation: int,
  right_dilation: int,
) -> int:
  """Pairs of an output and a tap that falls on an input, along one axis."""
  start = np.arange(outputs) * stride - before
  last = (inputs - 1) * left_dilation
  count = 0
  for tap in range(size):
    place = start + tap * right_dilation
    hits = (place >= 0) & (place <= last) & (place % left_dilation == 0)
    count += int(hits.sum())
  return count
