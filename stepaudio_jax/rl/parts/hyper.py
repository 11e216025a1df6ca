"""Hyper-parameters of the algorithms: their possible values, each told once."""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

# Lowest and highest value, and whether the lowest one is itself possible.
_RANGES = {
  "clip_low": (0.0, 1.0, False),
  "clip_high": (0.0, math.inf, False),
  "std_floor": (0.0, math.inf, False),
  "reward_clip": (0.0, math.inf, False),
  "gamma": (0.0, 1.0, True),
  "lambda_": (0.0, 1.0, True),
  "value_clip": (0.0, math.inf, True),
  "ratio_limit": (1.0, math.inf, True),
}
_CHOICES = {
  "normalisation": ("sum", "gdpo"),
  "scale_by_std": (True, False),
  "whiten": (True, False),
  "baseline": (True, False),
}


def settled(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> SimpleNamespace:
  """The defaults with what was given in their place, as attributes.

  A tuple of `std_floor` has one of every reward dimension.

  Raises:
    TypeError: a name that is not among the defaults.
    ValueError: a value that cannot be.
  """
  unknown = sorted(set(given) - set(defaults))
  if unknown:
    raise TypeError(f"unknown {unknown}; the hyper-parameters are {sorted(defaults)}")
  values = {**defaults, **given}
  for name, value in values.items():
    several = name == "std_floor" and isinstance(value, tuple)
    for one in value if several else (value,):
      _check(name, one)
  return SimpleNamespace(**values)


def _check(name: str, value: Any) -> None:
  if name in _CHOICES:
    # Not `in`: 1 == True, and 1 is no answer to a yes-or-no question.
    if not any(type(value) is type(c) and value == c for c in _CHOICES[name]):
      raise ValueError(f"{name}={value!r}; the choices are {_CHOICES[name]}")
    return
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f"{name}={value!r}; it must be a number")
  if name == "dual_clip":
    if value != 0 and not 1 < value < math.inf:
      raise ValueError(f"dual_clip={value!r}; it must be 0 (off) or above 1")
    return
  low, high, closed = _RANGES[name]
  inside = low <= value <= high if closed else low < value <= high
  if not inside or math.isinf(value):
    bracket, end = "[" if closed else "(", "∞)" if math.isinf(high) else f"{high}]"
    raise ValueError(f"{name}={value!r}; it must lie in {bracket}{low}, {end}")
