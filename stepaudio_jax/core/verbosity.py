"""How much of a reward is length, and what has to be taken off (numpy).

ArmoRM (arXiv 2406.12845, eq. 3) takes λ·v off each reward r, v a score of verbosity, so
that on a reference set nothing of it is left in the ranks. Beside the paper: λ may be
below 0, where short replies were preferred.
"""

import numpy as np

_ROUNDS = 80


def spearman(a_N: np.ndarray, b_N: np.ndarray) -> float:
  """Rank correlation, equal values at their mean rank; 0 where either is constant."""
  ranks = [_ranks(x_N) for x_N in (a_N, b_N)]
  a_N, b_N = (rank_N - rank_N.mean() for rank_N in ranks)
  norm = np.sqrt((a_N**2).sum() * (b_N**2).sum())
  return float((a_N * b_N).sum() / norm) if norm else 0.0


def weight(reward_N: np.ndarray, verbosity_N: np.ndarray, most: float) -> float:
  """λ with |Spearman(r − λ·v, v)| ≤ `most`, found by bisection; 0 where that does.

  The correlation only falls as λ grows: a pair of replies changes its order once, to
  the shorter one's favour. Of few replies it falls in steps that may jump over the
  range; then λ is the one that comes nearest.

  Raises:
    ValueError: values that are not finite, fewer than three replies, or a `most` that
      is not between 0 and 1.
  """
  finite = np.isfinite(reward_N).all() and np.isfinite(verbosity_N).all()
  if not finite or len(reward_N) < 3 or not 0 < most < 1:
    raise ValueError(
      f"{len(reward_N)} rewards, all finite: {finite}, most={most}: at least 3 finite "
      "ones are needed, and a correlation between 0 and 1"
    )
  reward_N, verbosity_N = reward_N.astype(np.float64), verbosity_N.astype(np.float64)

  def left(lam: float) -> float:
    return spearman(reward_N - lam * verbosity_N, verbosity_N)

  start = left(0.0)
  if abs(start) <= most:
    return 0.0
  sign = np.sign(start)
  far = sign * max(reward_N.std(), 1e-6) / verbosity_N.std()
  for _ in range(_ROUNDS):
    if sign * left(far) <= 0:
      break
    far *= 2.0
  near, best = 0.0, 0.0
  for _ in range(_ROUNDS):
    middle = 0.5 * (near + far)
    found = left(middle)
    if abs(found) < abs(left(best)):
      best = middle
    if abs(found) <= most:
      break
    near, far = (middle, far) if sign * found > 0 else (near, middle)
  return float(best)


def _ranks(x_N: np.ndarray) -> np.ndarray:
  _, place_N, counts = np.unique(x_N, return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return (last - 0.5 * (counts - 1))[place_N]
