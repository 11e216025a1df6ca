"""What one scheduled operation costs the core that runs it.

libtpu's cost model writes cycles beside most fusions; kernels are priced by their
products, and what moves data and carries no estimate by its bytes.
"""

import dataclasses
import math

from stepaudio_jax.pricing import flops, hlo, kernels, traffic
from stepaudio_jax.pricing.chips import Chip

# Of HBM's published bandwidth, for long streams. What HBM bounds the cost model prices
# at up to four times its bytes' time on v5p: row sums 4.4, x + 1 2.8, [32, 5120]·[5120,
# 27648] 1.6–2.0 (v6e: 4.0, 2.5 and 1.1).
HBM_SHARE = 0.8
MATMUL_SHARE = 0.9  # of the peak, for a product without an estimate
FREE = (
  *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"),
  *("partition-id", "replica-id", "opt-barrier", "add-dependency", "async-update"),
)
# Preparations and promises to the compiler, which run nothing.
_FREE_CALLS = (
  *("AllocateBuffer", "ConcatBitcast"),
  *("PrepareAsyncCallStart", "PrepareAsyncCallDone"),
  *("AssumeGatherIndicesInBound", "Sharding", "SPMDFullToShardShape"),
)
# Operations that do little but move data, so that their bytes are their price.
_MOVES = (
  *("fusion", "copy", "transpose", "reshape", "slice", "dynamic-slice", "concatenate"),
  *("dynamic-update-slice", "gather", "scatter", "broadcast", "pad", "iota", "reverse"),
  *("convert", "select", "reduce", "reduce-window", "call", "rng-bit-generator"),
)
_SCALARS = 4096  # bytes: whatever is done to so few, the scalar unit or one pass does
_SORT_LANES = 1024 / 8  # elements compared and exchanged in a cycle of a vector unit


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one run of an operation.

  Attributes:
    kind: "matmul", "attention kernel", "copy", "gather, scatter, sort", "elementwise"
      or "kernel".
    hbm_bytes: moved to and from HBM.
    floor: seconds by the roofline; no run takes less.
    expected, raw: seconds; `raw` takes the cost model at its word.
    priced: whether anything is known of it. If not, the seconds are those of its bytes.
  """

  kind: str
  flops: float
  hbm_bytes: float
  floor: float
  expected: float
  raw: float
  priced: bool = True


def cost(
  module: hlo.Module, computation: hlo.Computation, op: hlo.Op, chip: Chip
) -> Cost | None:
  """None for what costs nothing: names, tuples, views."""
  target = op.find(r'custom_call_target="([^"]+)"')
  if op.code in FREE or target in _FREE_CALLS:
    return None
  bytes_ = traffic.moved(module, computation, op)
  kernel = None
  if target == "tpu_custom_call":
    kernel = kernels.kernel(computation, op, chip)
  products = kernel.flops if kernel else _products(module, computation, op)
  roofline = max(products / chip.peak, bytes_ / chip.hbm_bandwidth)
  kind = "attention kernel" if kernel else _kind(op, products)
  priced = True
  if kernel:
    raw = expected = max(kernel.seconds(chip), bytes_ / _stream(chip))
  elif op.cycles is not None:
    raw = expected = op.cycles / chip.clock
    if bytes_ / chip.hbm_bandwidth > products / chip.peak:
      expected = min(raw, bytes_ / _stream(chip))
  else:
    raw = expected = _unestimated(module, computation, op, products, chip)
    priced = op.code in _MOVES or _is_small(computation, op) or bool(products)
    priced = priced or op.code == "sort"
  # Where the cost model is below our roofline we have counted too many bytes.
  floor = min(roofline, expected)
  return Cost(kind, products, bytes_, floor, expected, raw, priced)


def _stream(chip: Chip) -> float:
  return HBM_SHARE * chip.hbm_bandwidth


def _products(module: hlo.Module, computation: hlo.Computation, op: hlo.Op) -> float:
  inner = module.called(op) if op.code == "fusion" else None
  return flops.inside(module, inner) if inner else flops.of_op(computation, op)


def _unestimated(
  module: hlo.Module,
  computation: hlo.Computation,
  op: hlo.Op,
  products: float,
  chip: Chip,
) -> float:
  if _is_small(computation, op):
    return 0.0
  bytes_ = traffic.moved(module, computation, op, anywhere=True)
  seconds = max(bytes_ / _stream(chip), products / (MATMUL_SHARE * chip.peak))
  if op.code == "sort":
    seconds = max(seconds, _sort_seconds(op, chip))
  return seconds


def _sort_seconds(op: hlo.Op, chip: Chip) -> float:
  """A bitonic network: log₂n (log₂n + 1)/2 passes over keys and what goes with them."""
  length = max(op.arrays[0].dims, default=1)
  depth = math.ceil(math.log2(max(length, 2)))
  elements = sum(array.elements for array in op.arrays)
  return elements * depth * (depth + 1) / 2 / _SORT_LANES / chip.clock


def _is_small(computation: hlo.Computation, op: hlo.Op) -> bool:
  ops = [op, *computation.operands(op)]
  return sum(array.bytes for one in ops for array in one.arrays) <= _SCALARS


def _kind(op: hlo.Op, products: float) -> str:
  if products:
    return "matmul"
  if op.code == "copy" or op.code == "transpose":
    return "copy"
  moves = ("gather", "scatter", "sort", "dynamic-slice", "dynamic-update-slice")
  if op.code in moves or "gather" in op.name or "scatter" in op.name:
    return "gather, scatter, sort"
  return "kernel" if op.code == "custom-call" else "elementwise"
