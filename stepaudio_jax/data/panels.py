"""What raters said, as arrays: units that were rated in rows, raters in columns."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from stepaudio_jax.data.schema import Candidate, Preference

OVERALL = "overall"  # the choice between the replies, beside the dimensions


@dataclasses.dataclass(frozen=True)
class Judged:
  """A rater's row and the comparison that it is about.

  Attributes:
    comparison: index into those of the panel.
    rater: index into those of the panel.
    turned: whether the row names the replies in the other order than the panel.
  """

  row: Preference
  comparison: int
  rater: int
  turned: bool


class Panel:
  """The rows of a preference file as value_NJ: NaN where a rater gave none.

  Which reply of a comparison is the first here depends on what they say alone, as a
  coin would: neither on the order in which they were shown nor on who is better. So
  chance agreement on a side is ½, and α does not depend on how a file is ordered.

  Attributes:
    raters: in the order of the rows.
    dialogues: of each comparison its task, without the "#turn" that may follow it.
    judged: rows; a rater's second one about a comparison is left out.
    repeated: so many were left out.
  """

  def __init__(self, rows: Sequence[Preference]):
    comparisons: dict[tuple, int] = {}
    raters: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    self.judged: list[Judged] = []
    for row in rows:
      pair = [said(one) for one in row.candidates]
      ordered = sorted(pair, key=_coin)
      comparison = comparisons.setdefault((row.task_id, *ordered), len(comparisons))
      rater = raters.setdefault(row.rater, len(raters))
      if (comparison, rater) not in seen:
        seen.add((comparison, rater))
        self.judged.append(Judged(row, comparison, rater, pair != ordered))
    self.raters = tuple(raters)
    self.dialogues = tuple(dialogue_of(task) for task, *_ in comparisons)
    self.repeated = len(rows) - len(self.judged)

  @functools.cached_property
  def dimensions(self) -> tuple[str, ...]:
    """Those that somebody compared, "overall" first."""
    names = {name: None for one in self.judged for name in one.row.dims}
    names.pop(OVERALL, None)
    return (OVERALL, *names)

  @functools.cached_property
  def scored(self) -> tuple[str, ...]:
    """Dimensions in which somebody scored single replies."""
    rows = (one.row for one in self.judged)
    return tuple(
      {name: None for row in rows for own in row.scores.values() for name in own}
    )

  def labels(self, dimension: str) -> np.ndarray:
    """value_NJ of the comparisons, −3…+3, negative where the panel's first is better.

    With "overall" the choice itself.
    """
    value_NJ = np.full((len(self.dialogues), len(self.raters)), np.nan)
    for one in self.judged:
      row = one.row
      label = row.overall if dimension == OVERALL else row.dims.get(dimension)
      if label is not None:
        value_NJ[one.comparison, one.rater] = -label if one.turned else label
    return value_NJ

  def scores(self, dimension: str) -> np.ndarray:
    """value_NJ from 1 to 5 of the replies, two a comparison, first replies first."""
    value_2NJ = np.full((2, len(self.dialogues), len(self.raters)), np.nan)
    for one in self.judged:
      for place, candidate in enumerate(one.row.candidates):
        value = one.row.scores.get(candidate.cid, {}).get(dimension)
        if value is not None:
          value_2NJ[place ^ one.turned, one.comparison, one.rater] = value
    return value_2NJ.reshape(-1, len(self.raters))


def said(one: Candidate) -> tuple[str, str]:
  """What tells replies apart: the answer and the thought."""
  return one.text, one.think or ""


def dialogue_of(task: str) -> str:
  """The dialogue of a task: examples of one are called "{dialogue}#{turn}"."""
  stem, _, turn = task.rpartition("#")
  return stem if stem and turn.isdecimal() else task


def _coin(reply: tuple[str, str]) -> tuple[bytes, tuple[str, str]]:
  text = "\0".join(reply)
  return hashlib.blake2b(text.encode(), digest_size=8).digest(), reply
