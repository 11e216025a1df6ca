"""Order swaps: does a verdict stay when the two replies change places?

Heads score each reply alone, so their gap changes its sign and nothing else: exact by
construction. A judge that reads both replies at once is asked in both orders; whatever
it is, its answers fit here as two numbers φ, of the pair as it stands in the file and
of the same pair turned round, where φ > 0 says that the first-listed reply is better
and NaN that what the judge said could not be read. They are read from a file:

  {"id": of the pair's first row in the preference file,
   "ab": {"value": φ or null, …}, "ba": {"value": φ or null, …}, …}
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from stepaudio_jax.data import fields, jsonl
from stepaudio_jax.evals.parts import choices
from stepaudio_jax.evals.rewards import judged
from stepaudio_jax.evals.rewards.resampling import Draws

Row = dict[str, Any]


class Verdicts(NamedTuple):
  """φ of a pair in both orders; NaN is masked."""

  forward: float
  backward: float


def read(path: epath.PathLike) -> dict[str, Verdicts]:
  """{id: verdicts}.

  Raises:
    ValueError: the file is absent or wrong.
  """
  out = {}
  for row in jsonl.Rows(path):
    both = [_value(row, order) for order in ("ab", "ba")]
    out[fields.text(row, "id")] = Verdicts(*both)
  return out


def _value(row: jsonl.Row, order: str) -> float:
  told = fields.mapping(row, order)
  if "value" not in told:
    raise ValueError(f"{row.at}: {order!r} lacks 'value'; its keys are {sorted(told)}")
  value = told["value"]
  if value is not None and not fields.is_number(value):
    raise ValueError(f"{row.at}: {order}.value is {value!r}, no number or null")
  return float("nan") if value is None else float(value)


def of_items(verdicts: dict[str, Verdicts], items: Sequence[Row], name: str) -> Row:
  """`entry` of the items that the judge was asked about, beside labels of `name`.

  Raises:
    ValueError: it was asked about none of them.
  """
  asked = [item for item in items if item["id"] in verdicts]
  if not asked:
    raise ValueError(
      f"none of the {len(verdicts)} verdicts is of the {len(items)} comparisons: "
      f"{[*verdicts][:3]}, {[item['id'] for item in items[:3]]}"
    )
  return entry(
    [verdicts[item["id"]] for item in asked],
    [item["dimensions"][name]["labels"] for item in asked],
    judged.dialogues(asked),
  )


def antisymmetric(verdicts: Verdicts) -> float:
  """r of first over second, ½(φ(A, B) − φ(B, A)); NaN where either is masked."""
  return 0.5 * (verdicts.forward - verdicts.backward)


def entry(
  verdicts: Sequence[Verdicts],
  labels: Sequence[Sequence[float | None]],
  dialogues: Sequence[str],
) -> Row:
  """How a judge did on pairs of which raters said `labels` (positive: second better).

  "consistency" is the share of pairs, read in both orders, in which both name the same
  reply (two verdicts of 0 are one opinion); "first" the share of verdicts other than 0
  for the first-listed; "accuracy" that of antisymmetrised verdicts, and "one_order"
  that of the first call alone, of decided choices on pairs that were read.
  """
  draws = Draws(dialogues)
  forward_N, backward_N = np.asarray(verdicts, np.float64).T
  gap_N = -np.asarray([antisymmetric(one) for one in verdicts])
  read_N = np.isfinite(forward_N) & np.isfinite(backward_N)
  sign_2N = np.sign([forward_N, backward_N])
  same_N = np.where(read_N, sign_2N[0] == -sign_2N[1], False)
  label_NJ = choices.padded(labels)
  calls_N = np.full(len(verdicts), 2.0)
  failed_N = 2 - np.isfinite(sign_2N).sum(axis=0)
  return {
    "pairs": len(verdicts),
    "calls": 2 * len(verdicts),
    "unread": int(failed_N.sum()),
    "failure_rate": draws.share(failed_N.astype(np.float64), calls_N),
    "consistency": draws.share(same_N.astype(np.float64), read_N.astype(np.float64)),
    "first": draws.share(
      (sign_2N == 1).sum(axis=0).astype(np.float64),
      (np.abs(sign_2N) == 1).sum(axis=0).astype(np.float64),
    ),
    "accuracy": _accuracy(gap_N, label_NJ, draws),
    "one_order": _accuracy(-forward_N, label_NJ, draws),
  }


def _accuracy(gap_N: np.ndarray, label_NJ: np.ndarray, draws: Draws) -> Row | None:
  right_NJ = choices.right(gap_N, label_NJ)
  known_NJ = ~np.isnan(right_NJ)
  counted_N = known_NJ.sum(axis=1).astype(np.float64)
  return draws.share(np.nansum(right_NJ, axis=1), counted_N)
