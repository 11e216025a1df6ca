"""Which replies of a group are compared, and what each is worth by the answers.

All pairs in one order make a reply's error follow its place in the group, for judges
lean to what they read first. In a balanced circulant each reply meets the replies a few
steps further on, first in half of its comparisons and second in the other half: a
group of n costs n calls a step (offset) instead of n(n − 1)/2 (training.md §2.3).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RIDGE = 1e-3  # of scores in log-odds: a reply that wins always stays finite
_ROUNDS = 100  # of Newton's method; it takes about ten
_CLOSE = 1e-10


class Fit(NamedTuple):
  """Scores of a group.

  Attributes:
    score_N: float64, mean 0; NaN for a reply that nothing connects with the others.
    edges: comparisons that had an answer.
    apart: replies without a score.
  """

  score_N: np.ndarray
  edges: int
  apart: int


def edges(count: int, offsets: int) -> np.ndarray:
  """int [count · offsets, 2]: (who comes first, who comes second) of each comparison.

  Args:
    count: replies of the group.
    offsets: comparisons in which each of them comes first (and as many, second).

  Raises:
    ValueError: fewer than two replies, or offsets outside 1 … count // 2.
  """
  if count < 2 or not 1 <= offsets <= count // 2:
    raise ValueError(
      f"offsets={offsets} for a group of {count}: there must be at least two replies, "
      f"and offsets from 1 to {count // 2}"
    )
  first_N = np.arange(count)
  pairs = [(first_N, (first_N + step) % count) for step in steps(count, offsets)]
  return np.concatenate([np.stack(each, axis=1) for each in pairs])


@functools.cache
def steps(count: int, offsets: int) -> tuple[int, ...]:
  """How far apart compared replies stand.

  The first is 1, so that all are connected. Each further one is that with which the
  scores' mean variance by least squares, Σ_j 1/λ_j over the eigenvalues of the
  circulant, is least: neighbours alone would leave far replies hard to compare.
  """
  wave_J = 2 * np.pi * np.arange(1, count) / count

  def variance(chosen: tuple[int, ...]) -> float:
    return float((1 / sum(2 - 2 * np.cos(step * wave_J) for step in chosen)).sum())

  chosen = (1,)
  while len(chosen) < offsets:
    left = [step for step in range(2, count // 2 + 1) if step not in chosen]
    chosen = min(((*chosen, step) for step in left), key=variance)
  return tuple(sorted(chosen))


def least_squares(count: int, pairs: np.ndarray, phi_E: np.ndarray) -> Fit:
  """Scores s with φ(i, j) ≈ s_i − s_j + b, where b is the judge's leaning to the first.

  b is left out where the answers cannot tell it from the scores.

  Args:
    pairs: int [E, 2], as of `edges`.
    phi_E: answers, above 0 where the first is better; NaN where there is none.
  """

  def solved(first: np.ndarray, second: np.ndarray, phi_E: np.ndarray) -> np.ndarray:
    design = _design(first, second)
    kept = design if _tells_leaning(design) else design[:, :-1]
    return np.linalg.lstsq(kept, phi_E, rcond=None)[0][: design.shape[1] - 1]

  return _fitted(count, pairs, phi_E, solved)


def bradley_terry(
  count: int, pairs: np.ndarray, win_E: np.ndarray, ridge: float = _RIDGE
) -> Fit:
  """Scores s of the most likely log σ(s_i − s_j + b), in log-odds.

  Args:
    pairs: int [E, 2], as of `edges`.
    win_E: how surely the first is better, 0 to 1; NaN where there is no answer.
    ridge: of −½·ridge·Σs², without which one that wins always would have no bound.

  Raises:
    ValueError: an answer outside 0 … 1.
  """
  known_E = win_E[np.isfinite(win_E)]
  if ((known_E < 0) | (known_E > 1)).any():
    raise ValueError(f"win_E must lie within 0 … 1: {win_E}")

  def solved(first: np.ndarray, second: np.ndarray, win_E: np.ndarray) -> np.ndarray:
    design = _design(first, second)
    whole = design if _tells_leaning(design) else design[:, :-1]
    return _newton(whole, win_E, ridge)[: design.shape[1] - 1]

  return _fitted(count, pairs, win_E, solved)


def components(count: int, pairs: np.ndarray) -> np.ndarray:
  """int [count]: the least reply that each is connected with."""
  least_N = np.arange(count)
  while True:
    new_N = least_N.copy()
    np.minimum.at(new_N, pairs[:, 0], least_N[pairs[:, 1]])
    np.minimum.at(new_N, pairs[:, 1], least_N[pairs[:, 0]])
    if (new_N == least_N).all():
      return least_N
    least_N = new_N


def _fitted(count: int, pairs: np.ndarray, answer_E: np.ndarray, solved) -> Fit:
  """The largest connected part has scores; those of two parts cannot be compared."""
  if pairs.shape != (len(answer_E), 2):
    raise ValueError(f"{len(answer_E)} answers about pairs of shape {pairs.shape}")
  known_E = np.isfinite(answer_E)
  pairs, answer_E = pairs[known_E], np.asarray(answer_E, np.float64)[known_E]
  part_N = components(count, pairs)
  largest = int(np.bincount(part_N, minlength=count).argmax())
  members = np.flatnonzero(part_N == largest)
  score_N = np.full(count, np.nan)
  if len(members) > 1:
    inside_E = part_N[pairs[:, 0]] == largest
    first, second = (np.searchsorted(members, pairs[inside_E, k]) for k in (0, 1))
    found = solved(first, second, answer_E[inside_E])
    score_N[members] = found - found.mean()
  return Fit(score_N, int(known_E.sum()), int(np.isnan(score_N).sum()))


def _design(first: Sequence[int], second: Sequence[int]) -> np.ndarray:
  """A row for each answer: +1, −1, and 1 for the leaning."""
  row_E = np.arange(len(first))
  design = np.zeros((len(first), max(*first, *second) + 2))
  design[row_E, first], design[row_E, second], design[:, -1] = 1.0, -1.0, 1.0
  return design


def _tells_leaning(design: np.ndarray) -> bool:
  """Whether no scores say the same as a leaning."""
  rank = np.linalg.matrix_rank
  return rank(design) > rank(design[:, :-1])


def _newton(design: np.ndarray, win_E: np.ndarray, ridge: float) -> np.ndarray:
  """The most likely coefficients; sums of scores, which nothing tells, stay 0."""
  x_N = np.zeros(design.shape[1])
  for _ in range(_ROUNDS):
    share_E = 1 / (1 + np.exp(-np.clip(design @ x_N, -500, 500)))
    slope_N = design.T @ (win_E - share_E) - ridge * x_N
    curve = (design * (share_E * (1 - share_E))[:, None]).T @ design
    step_N = np.linalg.pinv(curve + ridge * np.eye(len(x_N)), rcond=1e-12) @ slope_N
    # A full step may leap where nearly all is certain.
    x_N = x_N + step_N * min(1.0, 2.0 / max(np.abs(step_N).max(), 1e-300))
    if np.abs(step_N).max() < _CLOSE:
      break
  return x_N
