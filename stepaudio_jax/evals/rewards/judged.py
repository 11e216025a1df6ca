"""The items of evals/reward_model.py as arrays, a dimension at a time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepaudio_jax.data import panels

_DECIMALS = 9  # of gold marks

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
  """One dimension of N comparisons by at most J raters; NaN is what nobody knows.

  Gaps are second minus first, so they have the sign of a choice.

  Attributes:
    dialogues: of each comparison; turns of one ("talk#2") are one.
    turns_N: human turns of its dialogue.
    label_NJ: −3…+3. score_N2J: 1…5 of both replies.
    reward_N2: the head's. mark_N2: gold's.
    longer_N: log of the second reply's tokens over the first's.
    other_N2: {control: rewards where other sound was heard}.
  """

  name: str
  dialogues: tuple[str, ...]
  turns_N: np.ndarray
  label_NJ: np.ndarray
  score_N2J: np.ndarray
  reward_N2: np.ndarray
  mark_N2: np.ndarray
  longer_N: np.ndarray
  other_N2: dict[str, np.ndarray]

  @property
  def gap_N(self) -> np.ndarray:
    return gap(self.reward_N2)

  @property
  def gold_N(self) -> np.ndarray:
    """Rounded, since sums of marks differ in their last bits and ties must be ties."""
    return np.round(gap(self.mark_N2), _DECIMALS)

  @property
  def decided_NJ(self) -> np.ndarray:
    """Labels that are choices: there, and no ties."""
    return ~np.isnan(self.label_NJ) & (self.label_NJ != 0)

  def choices(self) -> tuple[np.ndarray, np.ndarray]:
    """Of every decided choice: its comparison, and 1.0 where the second was chosen."""
    n_M, j_M = np.nonzero(self.decided_NJ)
    return n_M, (self.label_NJ[n_M, j_M] > 0).astype(np.float64)


def gap(value_N2: np.ndarray) -> np.ndarray:
  return value_N2[:, 1] - value_N2[:, 0]


def judged(items: Sequence[Row], name: str, controls: Sequence[str] = ()) -> Judged:
  """One dimension of these items."""
  rows = [item["dimensions"][name] for item in items]
  raters = max(len(row["labels"]) for row in rows)
  tokens_N2 = _pairs([row["tokens"] for row in rows])
  return Judged(
    name=name,
    dialogues=dialogues(items),
    turns_N=np.asarray([item["turns"] for item in items]),
    label_NJ=np.asarray([_filled(row["labels"], raters) for row in rows]),
    score_N2J=np.asarray(
      [[_filled(given, raters) for given in row["scores"]] for row in rows]
    ),
    reward_N2=_pairs([row["reward"] for row in rows]),
    mark_N2=np.round(_pairs([row["marks"] or (None, None) for row in rows]), _DECIMALS),
    longer_N=np.log(tokens_N2[:, 1] / tokens_N2[:, 0]),
    other_N2={one: _pairs([row[one] for row in rows]) for one in controls},
  )


def dialogues(items: Sequence[Row]) -> tuple[str, ...]:
  """Of each item, whose errors go together with those of its dialogue's other turns."""
  return tuple(panels.dialogue_of(item["task_id"]) for item in items)


def _pairs(values: Sequence[Sequence[float | None]]) -> np.ndarray:
  return np.asarray([_filled(pair, 2) for pair in values], np.float64)


def _filled(given: Sequence[float | None], size: int) -> list[float]:
  known = [np.nan if one is None else float(one) for one in given]
  return known + [np.nan] * (size - len(known))
