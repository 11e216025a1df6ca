"""What length and place explain of the choices: the raters' and the model's.

A logistic regression of "the second was chosen" on an intercept (the place: below 0 the
first is favoured) and on log(tokens of the second / tokens of the first), with a normal
prior of standard deviation 10 on both, so that they stay finite where length explains
everything. Intervals: the sandwich, dialogues as clusters (Liang and Zeger, Biometrika
73, 1986). The length-controlled accuracy is the mean of two: where the chosen reply is
the longer one and where it is the shorter; length alone has 50 %.
"""

from typing import Any

import numpy as np

from stepaudio_jax.evals.parts import choices, intervals
from stepaudio_jax.evals.rewards import resampling
from stepaudio_jax.evals.rewards.calibration import probability
from stepaudio_jax.evals.rewards.judged import Judged
from stepaudio_jax.evals.rewards.resampling import Draws

PRIOR_SD = 10.0
_STEPS = 200

Row = dict[str, Any]


def entry(one: Judged) -> Row:
  """Both regressions, ρ of gap and length, and the length-controlled accuracy."""
  n_M, won_M = one.choices()
  place_M = np.asarray(one.dialogues)[n_M]
  gap_N = one.gap_N
  corr_VV, _ = resampling.correlations([gap_N, one.longer_N], Draws(one.dialogues, 1))
  rho = corr_VV[0, 1]
  return {
    "raters": regression(one.longer_N[n_M], won_M, place_M),
    "model": regression(
      one.longer_N, 0.5 + 0.5 * np.sign(gap_N), np.asarray(one.dialogues)
    ),
    "rho": float(rho) if np.isfinite(rho) else None,
    "controlled": controlled(one),
  }


def regression(longer_M: np.ndarray, won_M: np.ndarray, clusters: np.ndarray) -> Row:
  """{"n", "place", "length"}: coefficients with intervals.

  Args:
    won_M: 1 where the second was chosen; ½ counts half for either.
  """
  x_MV = np.stack([np.ones_like(longer_M), longer_M], axis=1)
  value_V, prior_VV = np.zeros(2), np.eye(2) / PRIOR_SD**2
  for _ in range(_STEPS):
    p_M = probability(x_MV @ value_V)
    gradient_V = x_MV.T @ (won_M - p_M) - prior_VV @ value_V
    curve_VV = (x_MV * (p_M * (1 - p_M))[:, None]).T @ x_MV + prior_VV
    step_V = np.linalg.solve(curve_VV, gradient_V)
    step_V *= min(1.0, 2 / max(np.abs(step_V).max(), 1e-12))
    value_V = value_V + step_V
    if np.abs(step_V).max() < 1e-9:
      break
  _, place_M = np.unique(clusters, return_inverse=True)
  score_KV = np.zeros((place_M.max() + 1, 2))
  np.add.at(score_KV, place_M, x_MV * (won_M - p_M)[:, None])
  inverse_VV = np.linalg.inv(curve_VV)
  error_V = np.sqrt(np.diagonal(inverse_VV @ (score_KV.T @ score_KV) @ inverse_VV))
  told = {
    name: {
      "value": float(value),
      "low": float(value - intervals.Z * error),
      "high": float(value + intervals.Z * error),
    }
    for name, value, error in zip(("place", "length"), value_V, error_V, strict=True)
  }
  return {"n": len(won_M), **told}


def controlled(one: Judged) -> Row | None:
  """None where no chosen reply is the longer, or none the shorter."""
  right_NJ = choices.right(one.gap_N, one.label_NJ)
  longer_NJ = np.sign(one.longer_N)[:, None] * np.sign(one.label_NJ)
  draws = Draws(one.dialogues)
  halves = []
  for side in (1, -1):
    mine_NJ = (longer_NJ == side) & ~np.isnan(right_NJ)
    total_N = np.where(mine_NJ, right_NJ, 0.0).sum(axis=1)
    count_N = mine_NJ.sum(axis=1)
    if not count_N.any():
      return None
    with np.errstate(invalid="ignore", divide="ignore"):
      drawn_R = draws.sums(total_N) / draws.sums(count_N)
    halves.append((total_N.sum() / count_N.sum(), drawn_R, int(count_N.sum())))
  longer, shorter = halves
  told = resampling.estimate((longer[0] + shorter[0]) / 2, (longer[1] + shorter[1]) / 2)
  return {**told, "n_longer": longer[2], "n_shorter": shorter[2]}
