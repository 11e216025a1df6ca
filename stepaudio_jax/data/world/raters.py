"""Simulated raters: noisy, biased, sometimes careless readers of gold scores.

Their ids begin with "sim-" and every row they make says so; nothing here is a
person's judgement.
"""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from stepaudio_jax.data.world import gold

# Perceived difference (second minus first) from which a choice is 1, 2 or 3.
_STEPS = (0.25, 0.75, 1.75)
WEIGHTS = {
  "correctness": 2.0,
  "acoustic_grounding": 0.5,
  "instruction": 1.0,
  "naturalness": 1.0,
  "emotional_continuity": 1.0,
  "coherence": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Rater:
  """One simulated rater.

  Attributes:
    leniency: added to every mark of a dimension (the scale's bias).
    weights: what an overall choice is made of; this rater's taste.
    first_lean: added to the first candidate's overall mark (position bias).
    noise: standard deviation of a mark, in points of the 1–5 scale.
    carelessness: share of items answered without looking.
    skips: share of dimensions left blank.
  """

  id: str
  leniency: Mapping[str, float]
  weights: Mapping[str, float]
  first_lean: float
  noise: float
  carelessness: float
  skips: float
  seed: int

  def judge(
    self, item: str, first: Mapping[str, float], second: Mapping[str, float]
  ) -> dict:
    """Labels for one pair from the two candidates' gold scores.

    Returns {"overall": −3…+3, "dims": {dimension: −3…+3 | None}, "scores": [{dimension:
    1…5}, …]}; negative says the first is better. The same item gives the same labels.
    """
    rng = np.random.default_rng(_stable(self.seed, self.id, item))
    if rng.random() < self.carelessness:
      return _careless(rng)
    marks = [
      {d: gold_scores[d] + rng.normal(0, self.noise) for d in gold.DIMENSIONS}
      for gold_scores in (first, second)
    ]
    gaps = {d: marks[1][d] - marks[0][d] for d in gold.DIMENSIONS}
    total = sum(self.weights.values())
    overall = sum(self.weights[d] * gaps[d] for d in gaps) / total - self.first_lean
    blank = {d for d in gold.DIMENSIONS if rng.random() < self.skips}
    scores = [
      {
        d: min(max(round(mark + self.leniency[d]), 1), 5)
        for d, mark in one.items()
        if d not in blank
      }
      for one in marks
    ]
    dims = {d: None if d in blank else level(gap) for d, gap in gaps.items()}
    return {"overall": level(overall), "dims": dims, "scores": scores}


def level(gap: float) -> int:
  """A perceived difference on the −3…+3 scale; small ones are ties."""
  size = sum(abs(gap) >= step for step in _STEPS)
  return size if gap > 0 else -size


def raters(
  count: int,
  *,
  seed: int,
  noise: float = 0.5,
  bias: float = 0.3,
  carelessness: float = 0.05,
  skips: float = 0.1,
) -> list[Rater]:
  """A panel "sim-00", "sim-01", …; `bias` spreads leniency, taste and position lean."""
  for name, share in (("carelessness", carelessness), ("skips", skips)):
    if not 0 <= share <= 1:
      raise ValueError(f"{name}={share} is not a share between 0 and 1")
  if noise < 0 or bias < 0:
    raise ValueError(f"noise={noise} and bias={bias} must not be negative")
  panel = []
  for number in range(count):
    rng = np.random.default_rng([seed, 7, number])
    leniency = {d: float(rng.normal(0, bias)) for d in gold.DIMENSIONS}
    weights = {
      d: WEIGHTS[d] * float(np.exp(rng.normal(0, bias))) for d in gold.DIMENSIONS
    }
    lean = float(rng.normal(0, bias / 3))
    panel.append(
      Rater(
        f"sim-{number:02d}", leniency, weights, lean, noise, carelessness, skips, seed
      )
    )
  return panel


def _careless(rng: np.random.Generator) -> dict:
  return {
    "overall": int(rng.integers(-3, 4)),
    "dims": {d: int(rng.integers(-3, 4)) for d in gold.DIMENSIONS},
    "scores": [{d: int(rng.integers(1, 6)) for d in gold.DIMENSIONS} for _ in range(2)],
  }


def _stable(*parts) -> int:
  """A seed from the parts, the same in every process."""
  digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8)
  return int.from_bytes(digest.digest(), "big")
