"""How alike two rankings of replies are; ties share their ranks."""

import numpy as np

# Advantages that differ by less come from equal rewards.
_TIE = 1e-6


def ranks(x_N: np.ndarray) -> np.ndarray:
  """Places from 1; equals get the mean of theirs."""
  lower_N = (x_N[:, None] > x_N + _TIE).sum(1)
  equal_N = (np.abs(x_N[:, None] - x_N) <= _TIE).sum(1)
  return lower_N + (equal_N + 1) / 2


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float:
  """Pearson's correlation of the ranks; NaN where one side has no order."""
  return pearson(ranks(x_N), ranks(y_N))


def pearson(x_N: np.ndarray, y_N: np.ndarray) -> float:
  """NaN where one side has no spread."""
  x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
  scale = np.sqrt((x_N**2).sum() * (y_N**2).sum())
  return float((x_N * y_N).sum() / scale) if scale > 0 else float("nan")


def kendall(x_N: np.ndarray, y_N: np.ndarray) -> float:
  """τ-b (Kendall, Biometrika 33, 1945): ties on either side enter its scale."""
  upper = np.triu_indices(len(x_N), 1)
  x_K, y_K = (_signs(value_N)[upper] for value_N in (x_N, y_N))
  scale = np.sqrt((x_K**2).sum() * (y_K**2).sum())
  return float((x_K * y_K).sum() / scale) if scale > 0 else float("nan")


def _signs(x_N: np.ndarray) -> np.ndarray:
  apart_NN = x_N[:, None] - x_N
  return np.where(np.abs(apart_NN) <= _TIE, 0.0, np.sign(apart_NN))


def best_changes(x_N: np.ndarray, y_N: np.ndarray) -> float:
  """1.0 if none of the best on one side is among the best on the other, else 0.0."""
  best_N = (x_N >= x_N.max() - _TIE) & (y_N >= y_N.max() - _TIE)
  return float(not best_N.any())
