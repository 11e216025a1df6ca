"""Two checkpoints on the same items: who is right where the other is not."""

import math
from collections.abc import Mapping
from typing import Any

from stepaudio_jax.evals.parts import intervals


def mcnemar(better: int, worse: int) -> float:
  """Exact two-sided p of McNemar's test (Psychometrika 12, 1947, p. 153).

  That of a fair coin that falls at least as unevenly as `better` and `worse`. With
  scores other than 0 and 1 it is the sign test.

  Raises:
    ValueError: a negative count.
  """
  if min(better, worse) < 0:
    raise ValueError(f"{better} better and {worse} worse items: no count is negative")
  n = better + worse
  tail = term = 1
  for k in range(min(better, worse)):
    term = term * (n - k) // (k + 1)
    tail += term
  return min(1.0, 2 * tail / 2**n)


def compared(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, Any]:
  """`ours` minus `theirs`, item by item.

  Args:
    ours, theirs: {id: score from 0 to 1}.

  Returns:
    Items of both (n) and of one alone (unmatched), on how many ours is better, worse
    or equal, McNemar's p, and the mean difference with its paired-bootstrap 95 %
    interval; p and difference are None where no item is shared.
  """
  shared = [name for name in ours if name in theirs]
  gaps = [ours[name] - theirs[name] for name in shared]
  better, worse = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
  return {
    "n": len(gaps),
    "unmatched": [len(ours) - len(gaps), len(theirs) - len(gaps)],
    "better": better,
    "worse": worse,
    "equal": len(gaps) - better - worse,
    "p": mcnemar(better, worse) if gaps else None,
    "difference": difference(gaps) if gaps else None,
  }


def difference(gaps: list[float]) -> dict[str, float]:
  """Mean of paired differences from −1 to 1, see intervals.bounded."""
  low, high = intervals.bounded(gaps, -1, 1)
  return {"mean": math.fsum(gaps) / len(gaps), "low": low, "high": high}
