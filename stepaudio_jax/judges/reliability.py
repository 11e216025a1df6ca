"""How good a judge of pairs is: against people's choices, and against itself."""

from collections.abc import Sequence

import numpy as np

from stepaudio_jax.judges.comparing import Both


def correct(value_N: np.ndarray, label_N: Sequence[float]) -> np.ndarray:
  """By pair: 1 where the value names the winner of the label, ½ where it is 0, else 0.

  NaN where the label is a tie or the value is not known: `value_N` above 0 and labels
  below 0 say that the first reply is the better one.
  """
  label_N, value_N = np.asarray(label_N, np.float64), np.asarray(value_N, np.float64)
  if label_N.shape != value_N.shape:
    raise ValueError(f"{value_N.shape} values and {label_N.shape} labels")
  right_N = (1 - np.sign(value_N) * np.sign(label_N)) / 2
  return np.where((label_N == 0) | np.isnan(value_N), np.nan, right_N)


def summary(found: Sequence[Both], label_N: Sequence[float]) -> dict[str, float | int]:
  """Of pairs that were judged in both orders, beside people's labels of them.

  Returns:
    "accuracy" of ½(φ(A, B) − φ(B, A)) on decided labels, "accuracy_one_order" of
    φ(A, B) alone, "consistency": the share of pairs read in both orders whose orders
    name one winner, "first_share": how often, in either order, what comes first is the
    better one, "unread": the share of judgements without a level; and what each is made
    of: "pairs", "decided", "read_both", "judgements". NaN where nothing is to be
    counted.
  """
  value_N = np.asarray([each.value for each in found], np.float64)
  orders_2N = np.asarray(
    [[each.forward.value for each in found], [each.backward.value for each in found]]
  )
  right_N, one_N = correct(value_N, label_N), correct(orders_2N[0], label_N)
  agrees = [each.agrees for each in found if each.agrees is not None]
  known = orders_2N[np.isfinite(orders_2N)]
  return {
    "accuracy": _mean(right_N),
    "accuracy_one_order": _mean(one_N),
    "consistency": _mean(np.asarray(agrees, np.float64)),
    "first_share": _mean((np.sign(known) + 1) / 2),
    "unread": _mean(np.isnan(orders_2N).astype(np.float64)),
    "pairs": len(found),
    "decided": int(np.isfinite(right_N).sum()),
    "read_both": len(agrees),
    "judgements": orders_2N.size,
  }


def _mean(x: np.ndarray) -> float:
  known = x[np.isfinite(x)]
  return float(known.mean()) if known.size else float("nan")
