"""HBM that a program needs on each chip, by kind."""

import dataclasses
import re
from typing import Any

_FORMS = (
  r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm",
  r"\(([\d.]+)([KMGT]?)\) exceeds available HBM",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on each chip.

  Attributes:
    aliased: of the outputs that lie where donated arguments lay.
    peak: the most that is in use at a time, code included; less than the kinds' sum,
      for temporaries lie where others lay. Where the program does not fit, what the
      compiler says that it would need.
  """

  arguments: int
  outputs: int
  temporaries: int
  aliased: int
  code: int
  host: int
  limit: int
  peak: int

  @property
  def fits(self) -> bool:
    return self.peak <= self.limit


def of(analysis: Any, limit: int) -> Memory:
  """From `compiled.memory_analysis()`."""
  return Memory(
    arguments=analysis.argument_size_in_bytes,
    outputs=analysis.output_size_in_bytes,
    temporaries=analysis.temp_size_in_bytes,
    aliased=analysis.alias_size_in_bytes,
    code=analysis.generated_code_size_in_bytes,
    host=analysis.host_temp_size_in_bytes + analysis.host_argument_size_in_bytes,
    limit=limit,
    peak=analysis.peak_memory_in_bytes + analysis.generated_code_size_in_bytes,
  )


def exceeded(message: str, limit: int) -> Memory | None:
  """From the compiler's error, where it is that HBM does not suffice."""
  found = next(filter(None, (re.search(form, message) for form in _FORMS)), None)
  if found is None:
    return None
  used = round(float(found.group(1)) * _UNITS[found.group(2)])
  return Memory(0, 0, 0, 0, 0, 0, limit, max(used, limit + 1))
