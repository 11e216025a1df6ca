"""Whether a gap of rewards means what it says: P(second chosen) = σ(gap).

Expected calibration error in ten bins of equal mass (Naeini et al., AAAI 2015, with
adaptive bins), before and after calibration by one slope, σ(slope · gap): temperature
scaling (Guo et al., ICML 2017). A slope alone keeps P(A over B) = 1 − P(B over A); it
moves no accuracy. Each choice is calibrated by the slope of the *other* dialogues, five
folds, so that the error after it is an honest one.
"""

from typing import Any

import numpy as np

from stepaudio_jax.evals.rewards.judged import Judged

BINS, FOLDS = 10, 5
_SEED = 0
_STEPS = 100  # of Newton's method, which wants about six

Row = dict[str, Any]


def entry(one: Judged) -> Row:
  """ECE, log loss and bins before and after, of all decided choices."""
  n_M, won_M = one.choices()
  gap_M = one.gap_N[n_M]
  fold_M = folds([one.dialogues[n] for n in n_M])
  slope_M = np.ones(len(n_M))
  if fold_M.max() > 0:
    for fold in range(fold_M.max() + 1):
      rest_M = fold_M != fold
      slope_M[~rest_M] = slope(gap_M[rest_M], won_M[rest_M])
  return {
    "n": len(n_M),
    "comparisons": len(set(n_M.tolist())),
    "slope": slope(gap_M, won_M),
    "before": _told(probability(gap_M), won_M),
    "after": _told(probability(slope_M * gap_M), won_M) if fold_M.max() > 0 else None,
  }


def folds(dialogues: list[str]) -> np.ndarray:
  """Of each row its fold; rows of one dialogue are in one. Fewer folds than dialogues.

  One dialogue alone has nothing to be calibrated by: one fold, 0.
  """
  names, place_M = np.unique(np.asarray(dialogues), return_inverse=True)
  count = min(FOLDS, len(names))
  order_K = np.random.default_rng(_SEED).permutation(len(names))
  return (order_K % count)[place_M]


def probability(logit: np.ndarray) -> np.ndarray:
  """σ, of any size without overflow."""
  return 0.5 * (1 + np.tanh(0.5 * np.asarray(logit)))


def slope(gap_M: np.ndarray, won_M: np.ndarray) -> float:
  """The slope of greatest likelihood; 1 where no gap is other than 0.

  One choice more, half won and half lost at the gaps' root mean square, keeps it finite
  where the gaps tell the choices apart without a fault.
  """
  size = np.sqrt(np.mean(gap_M**2)) if len(gap_M) else 0.0
  if size == 0:
    return 1.0
  x_M = np.append(gap_M, size) / size
  y_M = np.append(won_M, 0.5)
  value = 0.0
  for _ in range(_STEPS):
    p_M = probability(value * x_M)
    gradient = ((y_M - p_M) * x_M).sum()
    # The curvature at 0 is the largest: never a longer step than is safe.
    curve = max((p_M * (1 - p_M) * x_M**2).sum(), 1e-12)
    step = np.clip(gradient / curve, -1.0, 1.0)
    value += step
    if abs(step) < 1e-10:
      break
  return float(value / size)


def bins(p_M: np.ndarray, won_M: np.ndarray, count: int = BINS) -> list[Row]:
  """Of bins of equal mass: choices, mean probability, share of wins.

  Equal probabilities share a bin, whatever the order of the rows.
  """
  _, place_M, size_U = np.unique(p_M, return_inverse=True, return_counts=True)
  middle_U = np.cumsum(size_U) - size_U / 2  # in rows
  bin_U = np.minimum((middle_U * count / len(p_M)).astype(int), count - 1)
  out = []
  for number in np.unique(bin_U):
    mine_M = bin_U[place_M] == number
    p, won = float(p_M[mine_M].mean()), float(won_M[mine_M].mean())
    out.append({"n": int(mine_M.sum()), "probability": p, "share": won})
  return out


def ece(rows: list[Row]) -> float:
  """Σ n |share − probability| / Σ n."""
  off = sum(row["n"] * abs(row["share"] - row["probability"]) for row in rows)
  return off / sum(row["n"] for row in rows)


def _told(p_M: np.ndarray, won_M: np.ndarray) -> Row:
  rows = bins(p_M, won_M)
  kept_M = np.clip(np.where(won_M > 0, p_M, 1 - p_M), 1e-12, None)
  return {"ece": ece(rows), "log_loss": float(-np.log(kept_M).mean()), "bins": rows}
