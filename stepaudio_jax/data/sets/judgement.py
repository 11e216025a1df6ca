"""Preferences (schema pref/1) as dialogues in which a judge names a level.

A raw sample is that of preference.py. It becomes two dialogues, for a judge reads the
replies in either order: "{id}/ab" and "{id}/ba". Their human turn is the question that
judges at work are asked (text/comparison.py), with the conversation's sounds and the
row's rubric; the assistant's is the level's number. "answer" is where the label stands
among the levels, "1" to "6", and "3.5" for a tie: rewards/level_error.py reads it.

Soft labels are made by sampling. Each rater's row is an example of its own, so raters
who differ are so many examples of different levels. A tie is half of each of the two
middle levels: a coin that the row's id throws says which, and both orders keep to it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from stepaudio_jax.core import levels
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row, Rows
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.text import comparison

ORDERS = ("ab", "ba")
# The thought of a judge whose rater gave no reasons.
UNTOLD = "both replies side by side"


def source(
  split: str,
  *,
  path: str,
  dimension: str = comparison.OVERALL,
  reasons: bool = True,
) -> Sequence[Row]:
  """Dialogues of the file's rows; "{split}" in `path` is filled in.

  Args:
    dimension: whose label is the level; rows in which it is missing are left out.
    reasons: the level is thought about: the labels of the row's other dimensions, as
      levels. A policy gradient needs that, for its prompts open a thought. Without
      reasons the thought is empty.

  Raises:
    ValueError: there is no file, or no row has a label of the dimension.
  """
  return _Questions(Rows(path.format(split=split)), dimension, reasons)


def example(raw: Row) -> schema.Dialogue:
  return schema.dialogue(raw)


class _Questions(Sequence):
  """Two rows of the dialogue schema for each labelled row of a file."""

  def __init__(self, rows: Rows, dimension: str, reasons: bool):
    self._rows, self._dimension, self._reasons = rows, dimension, reasons
    values = [row.value for row in rows]
    self._kept = [k for k, value in enumerate(values) if self._has(value)]
    if not self._kept:
      known = {name for value in values for name in value.get("dims") or {}}
      raise ValueError(
        f"{rows[0].at}: no row has a label of the dimension {dimension!r}; the choices "
        f"are {sorted({*known, comparison.OVERALL})}"
      )

  def __len__(self) -> int:
    return len(self._kept) * len(ORDERS)

  def __getitem__(self, index: int) -> Row:
    if not 0 <= index < len(self):
      raise IndexError(index)
    row = self._rows[self._kept[index // len(ORDERS)]]
    value = dialogue(
      schema.preference(row),
      swapped=index % len(ORDERS) == 1,
      dimension=self._dimension,
      reasons=self._reasons,
    )
    return Row(value, row.at, "")  # its paths are whole

  def _has(self, value: dict[str, Any]) -> bool:
    """Whether a row, perhaps a wrong one, has the label; wrong ones are told later."""
    dims = value.get("dims")
    if self._dimension == comparison.OVERALL or not isinstance(dims, dict):
      return True
    return dims.get(self._dimension) is not None


def dialogue(
  row: Preference, *, swapped: bool, dimension: str, reasons: bool
) -> dict[str, Any]:
  """A row of the dialogue schema, the second candidate named first if `swapped`."""
  sign = -1 if swapped else 1
  labels = {**row.dims, comparison.OVERALL: row.overall}
  first, second = row.candidates[::sign]
  asked = comparison.content(
    row.context, first.text, second.text, row.rubric, dimension
  )
  level = _level(labels[dimension], row.id)
  if swapped:
    level = levels.COUNT + 1 - level
  reply = {"role": "assistant", "content": str(level)}
  if reasons:
    others = {name: value for name, value in row.dims.items() if name != dimension}
    reply["think"] = thought(others, sign)
  return {
    "id": f"{row.id}/{ORDERS[swapped]}",
    "messages": [
      {"role": "system", "content": comparison.SYSTEM},
      {"role": "human", "content": asked},
      reply,
    ],
    "answer": f"{levels.place(sign * labels[dimension]):g}",
  }


def thought(labels: dict[str, int | None], sign: int = 1) -> str:
  """What a judge reasons: "coherence 5, naturalness even".

  Args:
    labels: by dimension, None where one is missing.
    sign: −1 where the replies are named in the other order.
  """
  told = [
    f"{comparison.words(name)} "
    f"{'even' if value == 0 else f'{levels.place(sign * value):g}'}"
    for name, value in labels.items()
    if value is not None
  ]
  return ", ".join(told) or UNTOLD


def _level(label: int, name: str) -> int:
  """The level of a label; that of a tie is one of the middle two."""
  choices = [number for number in levels.NUMBERS if levels.weights(label)[number - 1]]
  coin = hashlib.blake2b(name.encode(), digest_size=1).digest()[0] & 1
  return choices[coin % len(choices)]
