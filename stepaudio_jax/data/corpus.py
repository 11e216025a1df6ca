"""The data sets of one split: found by name, read, and checked before training."""

import collections
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from absl import logging
from etils import epath

from stepaudio_jax.core import progress, recipe
from stepaudio_jax.data import keys, schema, sets
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.data.schema import Audio

Sample = schema.Dialogue | schema.Preference | schema.SpeechClip

# Problems listed in one error, so that a file is not repaired one line a run.
LISTED = 20
_FEW = 1 << 16  # clips that are kept in mind


def set_names() -> list[str]:
  """The files of data/sets."""
  return [*recipe.modules(sets)]


def load_set(name: str) -> ModuleType:
  """data/sets/<name>.py with its `source` and `example`."""
  return import_module(recipe.choose("data set", name, recipe.modules(sets)))


class Corpus:
  """Every sample of a mixture's sets, by (source, index).

  Args:
    mix: {name: weight}; sets of weight 0 are left out.
    options: {name: arguments of the set's `source`}. The name is that of a file in
      data/sets. For several entries of one kind the option "set" names the file and
      the entry's name is free:
      `mix.spoken = 0.7; options.spoken = {"set": "dialogue", "path": …}`.
    split: "train", "heldout", or whatever the sets know.
    kind: what every set must hold.
    key_file: where content keys are kept for the next start, see keys.py.
    unfit: sample → why it is of no use to whoever reads the corpus, or None.

  Attributes:
    names: of the sets, sorted; `source` is the index here.
    weights: beside them.

  Raises:
    ValueError: an unknown set or option, options of a set that is not mixed, rows that
      break their schema, ids that occur twice, audio files that are not there; up to 20
      are listed at once. Samples that are unfit, counted.
  """

  def __init__(
    self,
    mix: Mapping[str, float],
    options: Mapping[str, Any],
    split: str,
    kind: type = schema.Dialogue,
    key_file: str | None = None,
    unfit: Callable[[Any], str | None] | None = None,
  ):
    self.names = _weighted_names(mix)
    self.weights = tuple(float(mix[name]) for name in self.names)
    _check_options(mix, self.names, options)
    self._modules, self._rows = [], []
    for name in self.names:
      module, rows = _opened(name, dict(options[name]), split)
      self._modules.append(module)
      self._rows.append(rows)
    self._kind = kind
    self._keys = keys.Keys(key_file)
    # Found by the check; None where they are many, or lie in the rows themselves.
    self._files: dict[tuple, Audio] | None = {}
    self._check(unfit or (lambda sample: None))

  def __len__(self) -> int:
    return sum(map(len, self._rows))

  def count(self, source: int) -> int:
    """Samples of one set."""
    return len(self._rows[source])

  def sample(self, source: int, index: int) -> Any:
    """A checked sample, of the corpus's kind."""
    return self._checked(source, self._rows[source][index])

  def _checked(self, source: int, row: Row) -> Any:
    sample = self._modules[source].example(row)
    if not isinstance(sample, self._kind):
      raise ValueError(
        f"{row.at}: set {self.names[source]!r} holds {type(sample).__name__}, wanted "
        f"is {self._kind.__name__}"
      )
    return sample

  def places(self) -> Iterator[tuple[int, int]]:
    """Every (source, index)."""
    for source, rows in enumerate(self._rows):
      for index in range(len(rows)):
        yield source, index

  def clips(self) -> dict[str, Audio]:
    """Every clip by its content key; reads all audio files on the first call."""
    found: dict[str, Audio] = {}
    for audio in self._heard():
      found.setdefault(self.key(audio), audio)
    self._keys.save()
    return found

  def _heard(self) -> Iterator[Audio]:
    """The clips of all rows, which are read again only where these are not kept."""
    if self._files is not None:
      yield from progress.bar(self._files.values(), "reading clips", "clip")
      return
    for source, index in self._bar("reading clips"):
      yield from self.sample(source, index).audio

  def key(self, audio: Audio) -> str:
    """Content key of a clip: of the file's bytes and the span, not of its name."""
    return self._keys[audio]

  def _bar(self, what: str) -> Iterator[tuple[int, int]]:
    return iter(progress.bar(self.places(), what, "row", total=len(self)))

  def _check(self, unfit: Callable[[Any], str | None]) -> None:
    owner: dict[str, str] = {}
    clip_owner: dict[str, str] = {}
    extra: set[str] = set()
    problems, odd = [], collections.defaultdict(list)
    for source, index in self._bar("checking data"):
      try:
        row = self._rows[source][index]  # parsed when asked for
        sample = self._checked(source, row)
        _check_new(sample.id, row, owner)
      except ValueError as error:
        problems.append(str(error))
        if len(problems) == LISTED:
          break
        continue
      if why := unfit(sample):
        odd[why].append(sample.id)
      if isinstance(sample, schema.Dialogue):
        extra |= set(sample.row) - set(schema.DIALOGUE_KEYS)
      at = f"{row.at}: example {sample.id!r}"
      for audio in sample.audio:
        if isinstance(audio.source, str):
          clip_owner.setdefault(audio.source, at)
        self._note(audio)
    _raise_all(problems, "wrong rows")
    _raise_unfit(odd, len(self))
    absent = (path for path in clip_owner if not epath.Path(path).exists())
    first = itertools.islice(absent, LISTED)
    _raise_all(
      [f"{clip_owner[path]}: {path}" for path in first],
      "audio files that are not there",
    )
    if extra:  # TRL and ms-swift carry columns of their own; a typo looks like one
      logging.warning(
        "dialogue keys that nobody reads: %s; the schema's are %s",
        sorted(extra),
        schema.DIALOGUE_KEYS,
      )

  def _note(self, audio: Audio) -> None:
    if self._files is not None:
      self._files.setdefault((audio.source, audio.start_s, audio.end_s), audio)
      if isinstance(audio.source, bytes) or len(self._files) > _FEW:
        self._files = None


def _weighted_names(mix: Mapping[str, float]) -> tuple[str, ...]:
  weights = dict(mix.items())
  wrong = {name: w for name, w in weights.items() if not 0 <= w < float("inf")}
  if wrong or not any(weights.values()):
    raise ValueError(
      f"weights of a mixture are >= 0 and not all 0; wrong are {wrong} of {weights}"
    )
  return tuple(sorted(name for name, weight in weights.items() if weight > 0))


def _check_options(
  mix: Mapping[str, float], names: Sequence[str], options: Mapping[str, Any]
) -> None:
  without = sorted(set(names) - set(options))
  unmixed = sorted(set(options) - set(mix))
  if without or unmixed:
    raise ValueError(
      f"no options (path, …) for {without}, and options of {unmixed}, which the mix "
      f"does not name (weight 0 leaves a set out): the mix has {sorted(mix)}, the "
      f"options {sorted(options)}"
    )


def _opened(
  name: str, options: dict[str, Any], split: str
) -> tuple[ModuleType, Sequence[Row]]:
  module = load_set(options.pop("set", name))
  parameters = dict(inspect.signature(module.source).parameters)
  del parameters["split"]
  unknown = sorted(set(options) - set(parameters))
  needed = {p.name for p in parameters.values() if p.default is p.empty}
  lacking = sorted(needed - set(options))
  if unknown or lacking:
    raise ValueError(
      f"data set {name!r}: options {unknown} are unknown and {lacking} missing; the "
      f"choices are {[*parameters, 'set']}"
    )
  return module, module.source(split, **options)


def _check_new(name: str, row: Row, owner: dict[str, str]) -> None:
  if name in owner:
    raise ValueError(f"{row.at}: id {name!r} is already that of {owner[name]}")
  owner[name] = row.at


def _raise_unfit(odd: Mapping[str, Sequence[str]], of: int) -> None:
  if odd:
    count = sum(map(len, odd.values()))
    reasons = [
      f"{why} ({len(ids)}, such as {', '.join(map(repr, ids[:LISTED]))})"
      for why, ids in itertools.islice(odd.items(), LISTED)
    ]
    raise ValueError(f"{count} of {of} rows are of no use here: {'; '.join(reasons)}")


def _raise_all(problems: list[str], what: str) -> None:
  if problems:
    more = f" (the first {LISTED})" if len(problems) == LISTED else ""
    raise ValueError("\n  ".join([f"{what}{more}:", *problems]))
