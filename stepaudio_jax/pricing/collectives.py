"""Collectives: the bytes that each chip sends, over the links that carry them.

The compiler's cost model says nothing about them. An all-gather, a reduce-scatter and
an all-to-all of n chips send (n − 1)/n of the whole, an all-reduce twice that (a
reduce-scatter and an all-gather); rings run both ways around every torus axis that the
group spans. On an axis that does not close to a ring, or that the group has a part of,
half the bandwidth is left. Start latencies, and congestion between groups, are not in
it.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from stepaudio_jax.pricing import hlo
from stepaudio_jax.pricing.chips import Chip

KINDS = (
  *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
  *("ragged-all-to-all", "collective-broadcast"),
)


@dataclasses.dataclass(frozen=True)
class Links:
  """Of a slice.

  Attributes:
    shape: chips along every axis of the torus.
    wrap: whether an axis closes to a ring.
  """

  chip: Chip
  shape: tuple[int, ...]
  wrap: tuple[bool, ...]

  @property
  def chips(self) -> int:
    return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective.

  Attributes:
    kind: one of `KINDS`.
    group: chips that take part with each other.
    sent: bytes that leave each chip.
    channel: number that all parts of one collective share; None where it has none.
  """

  kind: str
  group: int
  sent: float
  channel: int | None

  def seconds(self, links: Links) -> float:
    lengths = _spanned(self.group, links)
    ways = sum(2 if wraps else 1 for _, wraps in lengths)
    bandwidth = links.chip.link_bandwidth
    if self.kind == "collective-permute":
      return self.sent / bandwidth  # to one neighbour
    hops = 1.0
    if self.kind.endswith("all-to-all"):
      # A byte travels a quarter of each ring on the way, a third of each line.
      hops = max(sum(n / 4 if wraps else n / 3 for n, wraps in lengths), 1.0)
    return hops * self.sent / (max(ways, 1) * bandwidth)


def is_collective(op: hlo.Op) -> bool:
  return op.code.removesuffix("-start") in KINDS


def collective(computation: hlo.Computation, op: hlo.Op, chips: int) -> Collective:
  """What a collective operation, or the start of one, sends in a slice of `chips`."""
  kind = op.code.removesuffix("-start")
  taken = sum(
    array.bytes for operand in computation.operands(op) for array in operand.arrays
  )
  given = sum(array.bytes for array in op.arrays)
  if op.code.endswith("-start") and kind != "all-reduce":
    given = max(given - taken, 0.0)  # a start gives its operands back beside the result
  group = group_size(op, chips)
  share = (group - 1) / group
  sent = {
    "all-gather": given * share,
    "all-reduce": 2 * taken * share,
    "collective-permute": taken,
    "collective-broadcast": taken,
  }.get(kind, taken * share)
  channel = op.find(r"channel_id=(\d+)")
  return Collective(kind, group, sent, int(channel) if channel else None)


def inside(
  module: hlo.Module, computation: hlo.Computation
) -> Iterator[tuple[hlo.Computation, hlo.Op]]:
  """Collectives of a fused or asynchronous computation and of those it calls."""
  for op in computation.ops.values():
    if is_collective(op):
      yield computation, op
    for key in ("calls", "to_apply"):
      inner = module.called(op, key)
      if inner and op.code in ("fusion", "call", "async-start"):
        yield from inside(module, inner)


def group_size(op: hlo.Op, chips: int) -> int:
  """Chips of a group: [groups,size]<=…, {{0,1},…}, mesh['a'=4,…] {'a'}; {} is all."""
  if re.search(r"replica_groups=\{\}", op.attributes):
    return chips
  found = op.find(r"replica_groups=\[\d+,(\d+)\]")
  if found:
    return int(found)
  found = op.find(r"replica_groups=\{\{([\d,]+)\}")
  if found:
    return len(found.split(","))
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", op.attributes)
  if mesh:
    lengths = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
    return math.prod(lengths[name] for name in re.findall(r"'([^']+)'", mesh[2]))
  if "source_target_pairs=" in op.attributes:
    return 2
  raise ValueError(
    f"{op.code} {op.name}: its groups cannot be read in {op.attributes[:200]!r}"
  )


def _spanned(group: int, links: Links) -> list[tuple[int, bool]]:
  """(length, wraps) along the fewest torus axes that hold a group, the longest first.

  Of the last axis a group may have a part, which is no ring.
  """
  axes = sorted(zip(links.shape, links.wrap, strict=True), reverse=True)
  chosen, left = [], group
  for length, wraps in axes:
    if left == 1 or length == 1:
      break
    part = min(length, left)
    chosen.append((part, wraps and part == length))
    left = -(-left // part)
  return chosen
