"""What an arm of an ablation is rewarded by, told by its name.

all                    the reward as it is: what every question is compared with
without_<dimension>    that weight is 0
only_<dimension>       all other weights are 0
<dimension>_x<factor>  that weight times a number, such as correctness_x0.5
normalisation_<how>    the same weights, the dimensions combined in that way
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

CONTROL = "all"
_WITHOUT, _ONLY, _TIMES, _HOW = "without_", "only_", "_x", "normalisation_"


@dataclasses.dataclass(frozen=True)
class Question:
  """The reward of one arm.

  Attributes:
    weights: of every dimension, 0 where it is only logged.
    normalisation: of the algorithm; None is the recipe's own.
  """

  name: str
  weights: Mapping[str, float]
  normalisation: str | None = None


def question(
  name: str, weights: Mapping[str, float], normalisations: Sequence[str]
) -> Question:
  """The question of that name.

  Args:
    weights: the whole reward's.
    normalisations: that the algorithm has.

  Raises:
    ValueError: there is no such question of these dimensions, or nothing is left of
      the reward.
  """
  made = _made(name, weights, normalisations)
  if made is None:
    how = f", {_HOW}H with H one of {[*normalisations]}" if normalisations else ""
    raise ValueError(
      f"unknown question {name!r}; the choices are {CONTROL}, {_WITHOUT}D, {_ONLY}D "
      f"and D{_TIMES}F with D one of {sorted(weights)} and a number F from 0 on{how}"
    )
  if not any(made.weights.values()):
    raise ValueError(f"the question {name!r} leaves nothing of the reward {weights}")
  return made


def _made(
  name: str, weights: Mapping[str, float], normalisations: Sequence[str]
) -> Question | None:
  if name == CONTROL:
    return Question(name, dict(weights))
  out = name.removeprefix(_WITHOUT)
  if name.startswith(_WITHOUT) and out in weights:
    return Question(name, {**weights, out: 0.0})
  kept = name.removeprefix(_ONLY)
  if name.startswith(_ONLY) and kept in weights:
    return Question(name, {key: w * (key == kept) for key, w in weights.items()})
  how = name.removeprefix(_HOW)
  if name.startswith(_HOW) and how in normalisations:
    return Question(name, dict(weights), how)
  dimension, _, text = name.rpartition(_TIMES)
  factor = _number(text)
  if dimension in weights and factor is not None:
    return Question(name, {**weights, dimension: factor * weights[dimension]})
  return None


def _number(text: str) -> float | None:
  try:
    value = float(text)
  except ValueError:
    return None
  return value if 0 <= value < math.inf else None


def check_names(what: str, names: Sequence[str]) -> None:
  """Whether each stands once, and the control not at all: it is always there.

  Raises:
    ValueError: naming those that do not.
  """
  twice = sorted({name for name in names if [*names].count(name) > 1})
  if twice or CONTROL in names:
    raise ValueError(
      f"{what}={tuple(names)}: {twice or [CONTROL]} must go; every question stands "
      f"once, and {CONTROL!r} is asked anyway"
    )
