"""Arguments of recipe files (`configs/sft.py:size=small,smoke`) and their checks."""

import difflib
import itertools
import math
import pkgutil
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

FEW = 6  # keys that an error lists


class ArgumentError(ValueError):
  """Wrong arguments of a recipe; `defaults` has those that it takes."""

  def __init__(self, text: str, defaults: dict[str, Any] | None = None):
    super().__init__(text)
    self.defaults = defaults or {}


def parse(arg: str | None, **defaults: Any) -> ConfigDict:
  """Reads "size=small,smoke" over typed defaults; a bare name means True.

  Raises:
    ArgumentError: unknown names and values of another type; all are listed at once.
  """
  found, problems = dict(defaults), []
  for item in filter(None, (arg or "").split(",")):
    name, _, text = item.partition("=")
    if name not in defaults:
      problems.append(f"unknown argument {name!r}; the choices are {sorted(defaults)}")
      continue
    try:
      found[name] = typed(text if "=" in item else "true", type(defaults[name]))
    except ValueError as error:
      problems.append(f"argument {name!r}: {error}")
  if problems:
    raise ArgumentError("; ".join(problems), defaults)
  return ConfigDict(found)


def typed(text: str, kind: type) -> Any:
  """What `text` says, as a value of this type.

  Raises:
    ValueError: it says nothing of the kind.
  """
  if kind is bool:
    if text.lower() not in ("true", "false"):  # Python and --help write True
      raise ValueError(f"{text!r} is not true or false")
    return text.lower() == "true"
  return kind(text)


def choose(what: str, name: str, choices: Any) -> Any:
  """choices[name], or an error that lists the names there are."""
  if name not in choices:
    raise ValueError(f"unknown {what} {name!r}; the choices are {sorted(choices)}")
  return choices[name]


def modules(package: ModuleType) -> dict[str, str]:
  """{file: module} of a package whose files are choices; its folders are none."""
  found = pkgutil.iter_modules(package.__path__)
  names = sorted(module.name for module in found if not module.ispkg)
  return {name: f"{package.__name__}.{name}" for name in names}


def check_keys(config: ConfigDict, keys: Iterable[str], free: tuple[str, ...]) -> None:
  """Collects every key of `config` that nobody reads, and every key it lacks.

  Args:
    keys: all that is read, such as "optim.lr".
    free: prefixes under which the user names the keys, such as "data.mix.".

  Raises:
    ValueError: naming all unknown and missing keys.
  """
  has = {key for key in flat(config) if not key.startswith(free)}
  wants = set(keys)
  problems = [
    f"unknown key {key!r}{nearest(key, wants)}" for key in sorted(has - wants)
  ]
  problems += [f"missing key {key!r}" for key in sorted(wants - has)]
  if problems:
    raise ValueError(f"{'; '.join(problems)}; {listed(wants)}")


def nearest(key: str, keys: Collection[str]) -> str:
  """ " (did you mean …?)" of a key that is none, or "" where none is like it.

  Alike are keys whose whole name is or whose last part is, and those of a group.
  """
  last = {name: name.rpartition(".")[2] for name in sorted(keys)}
  ends = difflib.get_close_matches(key.rpartition(".")[2], {*last.values()}, n=1)
  found = difflib.get_close_matches(key, last, n=FEW // 2)
  found += [name for name, end in last.items() if end in ends]
  found += [name for name in last if name.startswith(f"{key}.")]
  few = [*dict.fromkeys(found)][:FEW]
  return f" (did you mean {' or '.join(map(repr, few))}?)" if few else ""


def listed(keys: Collection[str]) -> str:
  """All keys where they are few, else where they are told."""
  if len(keys) <= FEW:
    return f"the keys are {sorted(keys)}"
  return f"--help with --config FILE lists all {len(keys)} keys"


def check_loop(config: ConfigDict, key: str, other: str) -> None:
  """Whether a recipe is one of this loop's.

  Args:
    key: that all of its recipes have.
    other: the command that runs those which lack it.

  Raises:
    ValueError: the recipe lacks the key.
  """
  if key not in config:
    raise ValueError(
      f"a recipe of the stage {config.get('stage')!r} has no {key!r}; "
      f"python -m stepaudio_jax.{other} runs such recipes"
    )


def check_counts(config: ConfigDict, keys: Iterable[str], least: int = 1) -> None:
  """Whether these numbers are at least 1, or another `least`, and finite.

  Raises:
    ValueError: naming all that are not.
  """
  values = flat(config)
  low = [f"{key}={values[key]}" for key in keys if not least <= values[key] < math.inf]
  if low:
    raise ValueError(f"{', '.join(low)}: must be at least {least}")


def check_ascending(
  name: str, values: Iterable[float], most: float, *, whole: bool = True
) -> None:
  """Whether these lengths are each above the one before, from 0 to `most`.

  Args:
    whole: they count something.

  Raises:
    ValueError: naming the key and its values.
  """
  values, kinds = tuple(values), int if whole else int | float
  fit = all(isinstance(value, kinds) for value in values)
  ends = [-1, *values] if fit else [math.inf]
  rises = all(low < high for low, high in itertools.pairwise(ends))
  if not rises or ends[-1] > most or min(ends[1:], default=0) < 0:
    raise ValueError(
      f"{name}={values} must be lengths that ascend, from 0 to at most {most}"
      + (", whole numbers" if whole else "")
    )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
  """{"optim.lr": 1e-3, …} of a nested ConfigDict or dict."""
  out = {}
  for key, value in config.items():
    name = f"{prefix}{key}"
    if isinstance(value, ConfigDict | dict):
      out |= flat(value, f"{name}.")
    else:
      out[name] = list(value) if isinstance(value, tuple) else value
  return out
