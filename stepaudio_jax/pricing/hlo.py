"""Compiled programs as XLA prints them: computations, operations, shapes.

The text is `compiled.as_text()`: scheduled HLO, so operations stand in the order in
which the core runs them.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

HBM, VMEM, HOST = 0, 1, 5  # memory spaces: S(1) in a layout, and 0 where it has none
_BITS = {
  "pred": 8,
  "token": 0,
  "opaque": 0,
  **{f"{sign}{bits}": bits for sign in "su" for bits in (2, 4, 8, 16, 32, 64)},
  **{f"f{bits}": bits for bits in (16, 32, 64)},
  "bf16": 16,
  "c64": 64,
  "c128": 128,
}
_HEADER = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_OP = re.compile(r"^  (ROOT )?%(\S+) = (.*)$")
_END = re.compile(r"^\}(, execution_thread=.*)?$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([^\s,(){}]+)")
_NO_ESTIMATE = 1 << 60  # libtpu writes numbers above it where it has none


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a shape; `space` is the memory it lies in."""

  dtype: str
  dims: tuple[int, ...]
  space: int = HBM

  @property
  def elements(self) -> int:
    return math.prod(self.dims)

  @property
  def bytes(self) -> float:
    bits = 8 if self.dtype.startswith("f8") else _BITS[self.dtype]
    return self.elements * bits / 8


@dataclasses.dataclass(frozen=True)
class Op:
  """One operation.

  Attributes:
    shape: of its result, as text.
    literal: what stands in the parentheses: the operands, a parameter's number or a
      constant's value.
    attributes: all that follows them.
  """

  name: str
  code: str
  shape: str
  literal: str
  attributes: str
  is_root: bool = False

  @functools.cached_property
  def operands(self) -> tuple[str, ...]:
    return tuple(_NAME.findall(self.literal))

  @functools.cached_property
  def arrays(self) -> tuple[Array, ...]:
    """Of the result; those of a tuple in order."""
    return tuple(_arrays(self.shape))

  @property
  def cycles(self) -> int | None:
    """What libtpu's cost model says it takes; None where it says nothing."""
    found = self.find(r'"estimated_cycles":"(\d+)"')
    return int(found) if found and int(found) < _NO_ESTIMATE else None

  @property
  def source(self) -> str:
    """The line of the model that it comes from, such as "jit(f)/mlp/dot_general"."""
    return self.find(r'op_name="([^"]*)"') or ""

  def find(self, pattern: str) -> str | None:
    """The first group of the pattern in the attributes."""
    match = re.search(pattern, self.attributes)
    return match.group(1) if match else None

  def called(self, key: str) -> str | None:
    """Name of the computation that the attribute `key` names."""
    return self.find(rf"\b{key}=%([^\s,}})]+)")


@dataclasses.dataclass(frozen=True)
class Computation:
  name: str
  ops: dict[str, Op]

  @functools.cached_property
  def root(self) -> Op:
    return next(op for op in self.ops.values() if op.is_root)

  @functools.cached_property
  def parameters(self) -> dict[int, str]:
    """{number: name}."""
    ops = (op for op in self.ops.values() if op.code == "parameter")
    return {int(op.literal): op.name for op in ops}

  @functools.cached_property
  def users(self) -> dict[str, tuple[Op, ...]]:
    """The operations that read each one."""
    found: dict[str, list[Op]] = {}
    for op in self.ops.values():
      for name in dict.fromkeys(op.operands):
        found.setdefault(name, []).append(op)
    return {name: tuple(ops) for name, ops in found.items()}

  def operands(self, op: Op) -> list[Op]:
    return [self.ops[name] for name in op.operands if name in self.ops]


@dataclasses.dataclass(frozen=True)
class Module:
  computations: dict[str, Computation]
  entry: str

  def called(self, op: Op, key: str = "calls") -> Computation | None:
    name = op.called(key)
    return self.computations[name] if name else None


def parse(text: str) -> Module:
  """Reads a program.

  Raises:
    ValueError: the text has no entry computation, or an operation cannot be read.
  """
  computations, entry, name, pending = {}, None, None, []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      name, pending = header.group(2), []
      entry = name if header.group(1) else entry
    elif name is None:
      continue
    elif _END.match(line):
      ops = (_op("\n".join(lines)) for lines in pending)
      computations[name] = Computation(name, {op.name: op for op in ops})
      name = None
    elif _OP.match(line):
      pending.append([line])
    elif pending:  # a long constant or a kernel goes on over several lines
      pending[-1].append(line)
  if entry is None:
    raise ValueError(f"no program: {text[:80]!r} has no ENTRY computation")
  return Module(computations, entry)


def _op(text: str) -> Op:
  is_root, name, rest = re.match(_OP.pattern, text, re.DOTALL).groups()
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opening = rest.index("(")
  closing = _closing(rest, opening)
  return Op(
    name=name,
    code=rest[:opening].strip(),
    shape=shape,
    literal=rest[opening + 1 : closing],
    attributes=rest[closing + 1 :],
    is_root=bool(is_root),
  )


def _closing(text: str, start: int) -> int:
  """Index of the bracket that closes the one at `start`."""
  depth = 0
  for match in re.compile(r"[(){}]").finditer(text, start):
    depth += 1 if match.group() in "({" else -1
    if not depth:
      return match.start()
  raise ValueError(f"unclosed bracket in {text[:80]!r}")


def _arrays(shape: str) -> Iterator[Array]:
  for dtype, dims, layout in _ARRAY.findall(shape):
    space = re.search(r"S\((\d+)\)", layout)
    numbers = tuple(int(n) for n in dims.split(",") if n)
    yield Array(dtype, numbers, int(space.group(1)) if space else HBM)
