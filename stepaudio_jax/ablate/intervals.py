"""Intervals of an ablation: over prompts by resampling, over seeds by Student's t."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

_SEED = 0  # fixed: the same rows always give the same interval
_POWER = 0.8


def resampled(
  stat_KM: np.ndarray,
  value: Callable[[np.ndarray], np.ndarray],
  draws: int,
) -> dict[str, float | None]:
  """A function of sums over clusters, with its percentile interval over clusters.

  Args:
    stat_KM: sums of each cluster, which is drawn or left out as a whole.
    value: (sums [..., M]) → values [...], NaN where there is none.

  Returns:
    "mean", "low" and "high" (95 %), None where there is no value.
  """
  weight_RK = drawn(len(stat_KM), draws)
  with np.errstate(invalid="ignore", divide="ignore"):
    mean = float(value(stat_KM.sum(0)))
    many_R = value(weight_RK @ stat_KM)
  return bounds(mean, many_R)


def drawn(clusters: int, draws: int) -> np.ndarray:
  """weight_RK: how often each cluster is in each resample."""
  generator = np.random.default_rng(_SEED)
  return generator.multinomial(clusters, [1 / clusters] * clusters, draws) * 1.0


def bounds(mean: float, many_R: np.ndarray) -> dict[str, float | None]:
  """A value with the ends between which 95 % of its resamples lie."""
  known_R = many_R[np.isfinite(many_R)]
  if not math.isfinite(mean) or not len(known_R):
    return {"mean": None, "low": None, "high": None}
  low, high = np.quantile(known_R, [0.025, 0.975])
  return {"mean": mean, "low": float(low), "high": float(high)}


def clusters(names: Sequence[str], value_NM: np.ndarray) -> np.ndarray:
  """stat_KM: rows added up by name."""
  _, place_N = np.unique(np.asarray(names), return_inverse=True)
  out_KM = np.zeros((place_N.max() + 1, value_NM.shape[1]))
  np.add.at(out_KM, place_N, value_NM)
  return out_KM


def ratio(sum_M: np.ndarray) -> np.ndarray:
  """Of the last axis's two sums: total and count."""
  return sum_M[..., 0] / sum_M[..., 1]


def over_seeds(value_S: Sequence[float]) -> dict[str, Any]:
  """Mean of paired differences, one a seed, with Student's t interval (95 %).

  "smallest" is the smallest effect that would have been found with a power of 80 % at
  5 %, two-sided: λ·s/√n with the λ for which a noncentral t of n − 1 degrees of freedom
  passes t_0.975 so often (Cohen, Statistical Power Analysis, 2nd ed. 1988, ch. 2; 5.65
  for 3 seeds, 3.15 for 10). It is made of the spread that was seen, which few seeds
  tell only roughly.

  Returns:
    "mean", "low", "high", "smallest", "sd" and "seeds"; with one seed only the mean.
  """
  known_S = np.asarray([value for value in value_S if math.isfinite(value)])
  n = len(known_S)
  out = dict.fromkeys(("mean", "low", "high", "smallest", "sd")) | {"seeds": n}
  if n:
    out["mean"] = float(known_S.mean())
  if n > 1:
    spread = float(known_S.std(ddof=1))
    edge = float(special.stdtrit(n - 1, 0.975))
    half = edge * spread / math.sqrt(n)
    out |= {"low": out["mean"] - half, "high": out["mean"] + half, "sd": spread}
    needed = float(special.nctdtrinc(n - 1, 1 - _POWER, edge))
    out["smallest"] = needed * spread / math.sqrt(n)
  return out
