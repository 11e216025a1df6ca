"""One program compiled and priced: a row of the report."""

import importlib.metadata
from typing import Any

import jax

from stepaudio_jax.fit.programs import Program
from stepaudio_jax.pricing import hlo, timeline, topology, totals
from stepaudio_jax.pricing.collectives import KINDS
from stepaudio_jax.pricing.timeline import Line
from stepaudio_jax.pricing.topology import Compiled, Topology


def row(program: Program, where: Topology, size: str) -> dict[str, Any]:
  """Compiles and prices; all times are of one step, in seconds, predicted."""
  made = topology.compiled(program.lowered(), where)
  chips, memory = len(where.devices), made.memory
  found = {
    "program": program.name,
    "size": size,
    "topology": where.name,
    "mesh": {name: length for name, length in program.mesh.shape.items() if length > 1},
    "tokens": program.tokens,
    "fits": memory.fits,
    "hbm_peak_bytes": memory.peak,
    "hbm_limit_bytes": memory.limit,
    "compile_s": round(made.seconds, 1),
    "model_flops_per_chip": program.flops / chips,
    "versions": versions(),
  }
  if made.text is None:
    return found | dict.fromkeys(_PRICES)
  kinds = ("arguments", "outputs", "aliased", "temporaries", "code", "host")
  found["hbm_bytes_by_kind"] = {kind: getattr(memory, kind) for kind in kinds}
  return found | _priced(program, made, where)


_PRICES = (
  *("seconds_floor", "seconds_expected", "seconds_pessimistic", "mfu_expected"),
  "unpriced_share",
)


def _priced(program: Program, made: Compiled, where: Topology) -> dict[str, Any]:
  chip, runs = where.links.chip, program.runs
  # A block of tokens has a loop whose rounds its own text does not tell.
  rounds = (lambda name: runs) if runs > 1 else timeline.unknown
  found = totals.totals(hlo.parse(made.text), where.links, rounds)
  flops = program.flops / len(where.devices)
  expected = found.expected / runs
  out = {
    "seconds_floor": found.floor / runs,
    "seconds_expected": expected,
    "seconds_pessimistic": found.pessimistic / runs,
    "mfu_expected": flops / expected / chip.peak,
    "unpriced_share": found.unpriced_share,
    "unpriced": list(found.unpriced),
    "flops_per_chip": found.flops / runs,
    "hbm_bytes_moved": found.hbm_bytes / runs,
    "link_bytes": found.link_bytes / runs,
    "collectives_exposed_s": found.exposed / runs,
    "collectives_overlapped_s": found.overlapped / runs,
    "seconds_by_kind": {kind: s / runs for kind, s in found.by_kind.items()},
    "loops": [
      {"name": name, "rounds": rounds, "may_end_earlier": early}
      for name, rounds, early in found.loops
    ],
    "dearest": [_dear(line, found.expected, chip.peak) for line in found.dearest],
  }
  if program.streamed is not None:
    bound = program.streamed / chip.hbm_bandwidth
    out["streamed_bytes"] = program.streamed
    out["expected_over_streamed"] = expected / bound
  return out


def _dear(line: Line, whole: float, peak: float) -> dict[str, Any]:
  busy = line.expected * peak
  return {
    "operation": line.name,
    "kind": line.kind,
    "from": line.source,
    "runs": round(line.runs),
    "share": line.expected / whole,
    "of_peak": line.flops / busy if busy and line.flops else None,
    "hidden_s": line.hidden if line.kind in KINDS else None,
  }


def versions() -> dict[str, str]:
  names = ("libtpu", "jaxlib")
  return {"jax": jax.__version__} | {n: importlib.metadata.version(n) for n in names}
