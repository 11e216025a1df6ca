"""The schedule of a program, run through with prices in place of work.

The core runs one operation after another. Asynchronous collectives and copies go on
beside it, one after another on the links, on HBM's bandwidth that the core leaves, and
on the way to the host; where the schedule waits for one that is not done, the core
stands still: that time is *exposed*, the rest of it *overlapped*.
"""

import collections
import dataclasses
from collections.abc import Callable

from stepaudio_jax.pricing import collectives, costs, hlo, loops
from stepaudio_jax.pricing.collectives import Links

Rounds = Callable[[str], int | None]
# Of a computation; XLA prints an asynchronous call in either way.
_STARTS = ("async-start", "call-start")
_COPIES = ("copy", "slice", "dynamic-slice", "dynamic-update-slice", "send", "recv")


@dataclasses.dataclass(frozen=True)
class Line:
  """One operation of the schedule, all its runs together.

  Attributes:
    source: the line of the model that it comes from; "" where XLA made it itself.
    runs: how often the core comes to it.
    expected: seconds of the core; of collectives and copies those exposed.
    raw: seconds of the core by the cost model's word, and of a collective or a copy to
      the host as if nothing hid it.
    hidden: seconds of collectives and copies that ran beside the core.
  """

  name: str
  source: str
  kind: str
  runs: float
  flops: float
  hbm_bytes: float
  link_bytes: float
  floor: float
  expected: float
  raw: float
  hidden: float
  priced: bool

  def times(self, count: float) -> "Line":
    scaled = {name: getattr(self, name) * count for name in _ADDED}
    return dataclasses.replace(self, **scaled)


_ADDED = (
  *("runs", "flops", "hbm_bytes", "link_bytes"),
  *("floor", "expected", "raw", "hidden"),
)


@dataclasses.dataclass
class Schedule:
  """What became of one pass through a computation.

  Attributes:
    loops: (name, rounds, whether it may end earlier) of every loop inside.
    links_busy, hbm_busy, host_busy: seconds, whether exposed or not.
  """

  lines: list[Line] = dataclasses.field(default_factory=list)
  loops: list[tuple[str, int, bool]] = dataclasses.field(default_factory=list)
  links_busy: float = 0.0
  hbm_busy: float = 0.0
  host_busy: float = 0.0

  @property
  def expected(self) -> float:
    return sum(line.expected for line in self.lines)


class _Channel:
  """Work in the background, in the order in which it was given."""

  def __init__(self):
    self._waiting: collections.OrderedDict[str, float] = collections.OrderedDict()
    self.busy = 0.0

  def give(self, name: str, seconds: float) -> None:
    self._waiting[name] = seconds
    self.busy += seconds

  def work(self, seconds: float) -> None:
    """Goes on for so long."""
    while seconds > 0 and self._waiting:
      name, left = next(iter(self._waiting.items()))
      done = min(left, seconds)
      seconds -= done
      self._waiting[name] = left - done
      if done == left:
        del self._waiting[name]

  def wait(self, name: str | None = None) -> float:
    """Seconds until that work, or all, is done."""
    if name is not None and name not in self._waiting:
      return 0.0
    total = 0.0
    for other, left in self._waiting.items():
      total += left
      if other == name:
        break
    self.work(total)
    # Rounding may leave a trace of it.
    self._waiting.pop(name, None)
    return total


def unknown(name: str) -> int | None:
  """Rounds of a loop that no one knows."""
  del name


def schedule(module: hlo.Module, links: Links, rounds: Rounds = unknown) -> Schedule:
  """Prices a whole program.

  Args:
    rounds: of a loop whose own text does not tell, by its name; None is one round, and
      the loop's lines then count as not priced.
  """
  return _Pass(module, links, rounds).run(module.computations[module.entry])


class _Pass:
  """One pass through a computation."""

  def __init__(self, module: hlo.Module, links: Links, rounds: Rounds):
    self._module, self._links, self._rounds = module, links, rounds
    self._out = Schedule()
    self._on_links, self._on_hbm, self._on_host = (_Channel() for _ in range(3))
    self._started: dict[str, tuple[_Channel, int]] = {}
    self._ends: dict[str, str] = {}  # of collectives spread over fusions, the last

  def run(self, computation: hlo.Computation) -> Schedule:
    for op in computation.ops.values():
      if op.code == "fusion":
        for _, one in collectives.inside(self._module, self._module.called(op)):
          if _part(one):
            self._ends[_part(one)] = op.name
    for op in computation.ops.values():
      self._step(computation, op)
    out = self._out
    out.links_busy += self._on_links.busy
    out.hbm_busy += self._on_hbm.busy
    out.host_busy += self._on_host.busy
    return out

  def _step(self, computation: hlo.Computation, op: hlo.Op) -> None:
    if op.code == "while":
      self._loop(computation, op)
    elif op.code in ("call", "conditional"):
      self._dearest(op)
    elif op.code.endswith("-done") and op.operands:
      self._wait(computation, op)
    elif op.code in _STARTS:
      self._start_computation(computation, op)
    elif op.code.endswith("-start") and collectives.is_collective(op):
      self._start_collective(computation, op, op.name)
    elif collectives.is_collective(op):
      self._collective(computation, op)
    elif op.code.removesuffix("-start") in _COPIES and op.code.endswith("-start"):
      self._start_copy(op)
    else:
      self._core(computation, op)

  # Control flow.

  def _loop(self, computation: hlo.Computation, op: hlo.Op) -> None:
    found = loops.trips(self._module, computation, op)
    assumed = self._rounds(op.name) if found is None or found.at_most else None
    count = assumed or (found.count if found else 1)
    known = found is not None or assumed is not None
    inner = self._inside(self._module.called(op, "body"))
    self._out.loops.append((op.name, count, found is None or found.at_most))
    self._out.loops.extend(
      (name, count * rounds, early) for name, rounds, early in inner.loops
    )
    self._include(inner, count, known)

  def _dearest(self, op: hlo.Op) -> None:
    """Of a condition's branches the one that takes longest."""
    names = op.find(r"branch_computations=\{([^}]*)\}")
    keys = ("to_apply", "true_computation", "false_computation")
    if names:
      branches = [name.strip().lstrip("%") for name in names.split(",")]
    else:
      branches = [name for name in map(op.called, keys) if name]
    passes = [self._inside(self._module.computations[name]) for name in branches]
    inner = max(passes, key=lambda schedule: schedule.expected)
    self._out.loops.extend(inner.loops)
    self._include(inner, 1, True)

  def _inside(self, computation: hlo.Computation) -> Schedule:
    return _Pass(self._module, self._links, self._rounds).run(computation)

  def _include(self, inner: Schedule, count: int, known: bool) -> None:
    out, seconds = self._out, inner.expected * count
    for line in inner.lines:
      scaled = line.times(count)
      out.lines.append(scaled if known else dataclasses.replace(scaled, priced=False))
    for name, channel in (
      ("links_busy", self._on_links),
      ("hbm_busy", self._on_hbm),
      ("host_busy", self._on_host),
    ):
      busy = getattr(inner, name) * count
      setattr(out, name, getattr(out, name) + busy)
      channel.work(seconds - busy)

  # The core.

  def _core(self, computation: hlo.Computation, op: hlo.Op) -> None:
    inside = []
    if op.code == "fusion":
      inside = list(collectives.inside(self._module, self._module.called(op)))
    spread = {name: place for place in inside if (name := _part(place[1]))}
    for name, (where, one) in spread.items():
      if name not in self._started:
        self._start_collective(where, one, name)
    if not inside or op.cycles is not None:
      self._run(computation, op)
    for where, one in inside:
      if not _part(one):
        self._collective(where, one)
    for name in spread:
      if self._ends.get(name) == op.name:
        self._stall(self._on_links, name)

  def _run(self, computation: hlo.Computation, op: hlo.Op) -> None:
    cost = costs.cost(self._module, computation, op, self._links.chip)
    if cost is None:
      return
    values = dataclasses.asdict(cost)
    self._out.lines.append(_line(op, values.pop("kind"), **values))
    hbm_s = min(cost.hbm_bytes / self._links.chip.hbm_bandwidth, cost.expected)
    self._out.hbm_busy += hbm_s
    self._pass(cost.expected, hbm_s)

  def _pass(self, seconds: float, hbm_s: float = 0.0) -> None:
    """The core is busy or stands still; what is beside it goes on."""
    self._on_links.work(seconds)
    self._on_host.work(seconds)
    self._on_hbm.work(seconds - hbm_s)

  # Beside the core.

  def _collective(self, computation: hlo.Computation, op: hlo.Op) -> None:
    """A synchronous one: the core waits for the links, and then for it."""
    self._start_collective(computation, op, op.name)
    self._stall(self._on_links, op.name)

  def _start_collective(
    self, computation: hlo.Computation, op: hlo.Op, name: str
  ) -> None:
    found = collectives.collective(computation, op, self._links.chips)
    seconds = found.seconds(self._links)
    self._on_links.give(name, seconds)
    self._note(
      name,
      self._on_links,
      _line(op, found.kind, link_bytes=found.sent, raw=seconds, hidden=seconds),
    )

  def _start_computation(self, computation: hlo.Computation, op: hlo.Op) -> None:
    inner = self._asynchronous(op)
    found = list(collectives.inside(self._module, inner))
    for number, (where, one) in enumerate(found):
      last = number + 1 == len(found)
      name = op.name if last else f"{op.name}.{number}"
      self._start_collective(where, one, name)
    if not found:  # something else that the sparse core does
      self._start_copy(op)

  def _start_copy(self, op: hlo.Op) -> None:
    chip = self._links.chip
    moved, ends = self._transfer(op)
    if hlo.HOST in ends:
      channel, kind, hbm_bytes = self._on_host, "host copy", moved
      seconds = raw = moved / chip.host_bandwidth
    else:
      channel, kind, raw = self._on_hbm, "prefetch", 0.0
      hbm_bytes = moved * ends.count(hlo.HBM)
      seconds = hbm_bytes / (costs.HBM_SHARE * chip.hbm_bandwidth)
    channel.give(op.name, seconds)
    line = _line(op, kind, hbm_bytes=hbm_bytes, raw=raw, hidden=seconds)
    self._note(op.name, channel, line)

  def _asynchronous(self, op: hlo.Op) -> hlo.Computation:
    return self._module.called(op) or self._module.called(op, "to_apply")

  def _transfer(self, op: hlo.Op) -> tuple[float, tuple[int, int]]:
    """Bytes that a copy in the background moves, and from and to which memory."""
    if op.code not in _STARTS:  # (result, source, …)
      return op.arrays[0].bytes, (op.arrays[1].space, op.arrays[0].space)
    inner = self._asynchronous(op)  # ((operands), result, …)
    result = op.arrays[len(op.operands)]
    if inner.root.code == "dynamic-update-slice":
      update = op.arrays[1]
      return update.bytes, (update.space, result.space)
    return result.bytes, (op.arrays[0].space, result.space)

  def _note(self, name: str, channel: _Channel, line: Line) -> None:
    self._started[name] = (channel, len(self._out.lines))
    self._out.lines.append(line)

  def _wait(self, computation: hlo.Computation, op: hlo.Op) -> None:
    name = op.operands[0]
    while name not in self._started and name in computation.ops:
      start = computation.ops[name]
      if not start.operands:
        return
      name = start.operands[0]
    if name in self._started:
      self._stall(self._started[name][0], name)

  def _stall(self, channel: _Channel, name: str) -> None:
    seconds = channel.wait(name)
    for other in (self._on_links, self._on_hbm, self._on_host):
      if other is not channel:
        other.work(seconds)
    number = self._started.pop(name)[1]
    line = self._out.lines[number]
    self._out.lines[number] = dataclasses.replace(
      line, expected=seconds, hidden=max(line.hidden - seconds, 0.0)
    )


def _part(op: hlo.Op) -> str | None:
  """Name of the collective of which a fusion runs a part (v5e: no sparse cores)."""
  if "async_collective_fusion_config" not in op.attributes:
    return None
  return f"{op.code} of channel {op.find(r'channel_id=(?P<n>[0-9]+)')}"


def _line(op: hlo.Op, kind: str, **values: float | bool) -> Line:
  zero = dict.fromkeys(_ADDED, 0.0) | {"runs": 1.0, "priced": True}
  return Line(op.name, op.source, kind, **(zero | values))
