"""A schedule summed up: three times, and what nothing prices."""

import dataclasses

from stepaudio_jax.pricing import hlo, timeline
from stepaudio_jax.pricing.collectives import KINDS, Links


@dataclasses.dataclass(frozen=True)
class Totals:
  """Of one run of a program on each chip, predicted.

  Attributes:
    floor: seconds by the roofline of every operation, with nothing exposed; nor can it
      be faster than HBM or the links take for all that goes over them.
    expected: seconds with the prices that are believed, and what is exposed.
    pessimistic: seconds by the raw cost model, with every collective exposed.
    exposed, overlapped: seconds of collectives, of `expected` and beside it.
    unpriced: names of operations and loops of which nothing is known.
    unpriced_share: of `expected`.
    loops: (name, rounds, whether it may end earlier).
    dearest: operations by expected seconds.
  """

  floor: float
  expected: float
  pessimistic: float
  exposed: float
  overlapped: float
  flops: float
  hbm_bytes: float
  link_bytes: float
  by_kind: dict[str, float]
  unpriced: tuple[str, ...]
  unpriced_share: float
  loops: tuple[tuple[str, int, bool], ...]
  dearest: tuple[timeline.Line, ...]


def totals(
  module: hlo.Module,
  links: Links,
  rounds: timeline.Rounds = timeline.unknown,
  top: int = 20,
) -> Totals:
  """Prices a program; see `timeline.schedule`."""
  found = timeline.schedule(module, links, rounds)
  lines = found.lines

  def total(name: str, *kinds: str) -> float:
    return sum(getattr(line, name) for line in lines if not kinds or line.kind in kinds)

  expected = total("expected")
  unpriced = [line for line in lines if not line.priced]
  by_kind: dict[str, float] = {}
  for line in lines:
    by_kind[line.kind] = by_kind.get(line.kind, 0.0) + line.expected
  bandwidth = links.chip.hbm_bandwidth
  hbm_s = sum(
    min(line.hbm_bytes / bandwidth, line.expected + line.hidden) for line in lines
  )
  return Totals(
    floor=max(total("floor"), hbm_s, found.links_busy),
    expected=expected,
    pessimistic=total("raw") + total("expected", "prefetch"),
    exposed=total("expected", *KINDS),
    overlapped=total("hidden", *KINDS),
    flops=total("flops"),
    hbm_bytes=total("hbm_bytes"),
    link_bytes=total("link_bytes"),
    by_kind=dict(sorted(by_kind.items(), key=lambda item: -item[1])),
    unpriced=tuple(dict.fromkeys(line.name for line in unpriced)),
    unpriced_share=sum(line.expected for line in unpriced) / expected
    if expected
    else 0.0,
    loops=tuple(found.loops),
    dearest=tuple(sorted(lines, key=lambda line: -line.expected)[:top]),
  )
