"""Single clips for encoder pre-alignment: log-mels, CTC symbols, attribute classes."""

import dataclasses
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepaudio_jax.core import lengths, progress, recipe
from stepaudio_jax.core.types import SpeechBatch
from stepaudio_jax.data.corpus import LISTED, Corpus
from stepaudio_jax.data.examples import Entry, Skipped, report_skipped
from stepaudio_jax.data.schema import SpeechClip
from stepaudio_jax.data.store import Store
from stepaudio_jax.text.tokenizer import Tokenizer

BLANK = 0
# CTC symbol k + 1 is LETTERS[k]; 0 is the blank.
LETTERS = " abcdefghijklmnopqrstuvwxyz'"
SYMBOLS = 1 + len(LETTERS)
_APOSTROPHES = "’ʼ`"
_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class SpeechLimits:
  """Shapes of a row.

  Attributes:
    max_samples: of a clip at 16 kHz; decides L.
    max_symbols: T of the transcript.
  """

  max_samples: int
  max_symbols: int


def symbols(transcript: str, name: str) -> list[int]:
  """CTC symbols: lower case, runs of blanks and dashes as one space, no punctuation.

  Raises:
    ValueError: a character that is none of these, such as a digit: what is spoken
      there is unknown. The example and the choices are named.
  """
  kept = []
  for character in transcript.lower():
    category = unicodedata.category(character)
    if character in _APOSTROPHES:
      kept.append("'")
    elif character in LETTERS:
      kept.append(character)
    elif character.isspace() or category == "Pd":
      kept.append(" ")
    elif not category.startswith("P"):
      raise ValueError(
        f"example {name!r}: {character!r} in the transcript {transcript!r} is no "
        f"symbol; the choices are {LETTERS!r}; spell out what is said"
      )
  text = " ".join("".join(kept).split())
  if transcript.strip() and not text:
    raise ValueError(f"example {name!r}: nothing of {transcript!r} is left as symbols")
  return [LETTERS.index(character) + 1 for character in text]


# (transcript, example's name) → CTC symbols
Spell = Callable[[str, str], list[int]]


def spelling(unit: str, tokenizer: Tokenizer) -> tuple[Spell, int]:
  """How transcripts become CTC symbols, and the number of symbols with the blank.

  Args:
    unit: "letters", or "pieces" of the tokenizer (piece k is symbol k + 1): fewer,
      longer symbols are learnt in fewer steps where the vocabulary is small.
  """

  def pieces(transcript: str, name: str) -> list[int]:
    del name
    words = transcript.split()
    return [i + 1 for i in tokenizer.encode(" ".join(["", *words]))] if words else []

  units = {
    "letters": (symbols, SYMBOLS),
    "pieces": (pieces, tokenizer.vocabulary_size + 1),
  }
  return recipe.choose("CTC unit", unit, units)


class Clips:
  """The clips of a corpus that fit, by (source, index): a pipeline.Feed.

  Args:
    corpus: of kind SpeechClip.
    mels: log-mels of its clips.
    attributes: {name: classes}; columns of `attribute_BC` are in order of the names.
    spell: see `spelling`.

  Raises:
    ValueError: a label that is no class of its attribute, an attribute that no clip
      has, a transcript with other characters, or a set of which nothing fits.
    KeyError: a clip is not in the store.
  """

  def __init__(
    self,
    corpus: Corpus,
    mels: Store,
    limits: SpeechLimits,
    attributes: Mapping[str, Sequence[str]],
    spell: Spell = symbols,
  ):
    self._spell = spell
    self._corpus, self._mels = corpus, mels
    self.limits = limits
    self.names, self.weights = corpus.names, corpus.weights
    self.attributes = {name: tuple(attributes[name]) for name in sorted(attributes)}
    self.skipped: list[Skipped] = []
    self._entries: list[list[Entry]] = [[] for _ in corpus.names]
    self._targets: dict[str, tuple[str, list[int], list[int]]] = {}
    self._index()

  @property
  def counts(self) -> tuple[int, ...]:
    """Clips of each set."""
    return tuple(map(len, self._entries))

  def entry(self, source: int, index: int) -> Entry:
    return self._entries[source][index]

  def fits(self, tokens: int, chunks: int) -> bool:
    """One clip a row."""
    return tokens <= self.limits.max_symbols and chunks <= 1

  def batch(
    self, rows: Sequence[Sequence[tuple[int, int]]], first_number: int
  ) -> SpeechBatch:
    """Rows of at most one (source, index), numbered from `first_number`.

    A row without a clip is the shortest silence, with nothing to learn.
    """
    batch = _empty(len(rows), self.limits, len(self.attributes))
    filled = (row for row, places in enumerate(rows) if places)
    for number, row in enumerate(filled, first_number):
      ((source, index),) = rows[row]
      key, ids, labels = self._targets[self._entries[source][index].id]
      (chunk,) = self._mels.read(key)
      batch.mel_BLM[row, : len(chunk.rows)] = chunk.rows
      batch.sample_count_B[row] = chunk.samples
      batch.transcript_BT[row, : len(ids)] = ids
      batch.transcript_count_B[row] = len(ids)
      batch.attribute_BC[row] = labels
      batch.example_B[row] = number
    return batch

  def _index(self) -> None:
    problems: list[str] = []
    places = self._corpus.places()
    for source, place in progress.bar(places, "clips", "row", total=len(self._corpus)):
      clip = self._corpus.sample(source, place)
      try:
        target = self._spell(clip.transcript, clip.id), self._labels(clip)
      except ValueError as error:
        problems.append(str(error))
        if len(problems) == LISTED:
          break
        continue
      self._add(source, place, clip, *target)
    if problems:
      raise ValueError("\n  ".join(["wrong clips:", *problems]))
    report_skipped(self.skipped, sum(self.counts))
    self._check_used()

  def _add(
    self, source: int, place: int, clip: SpeechClip, ids: list[int], labels: list[int]
  ) -> None:
    key = self._corpus.key(clip.audio[0])
    shape = self._mels.shape(key)
    problem = self._problem(sum(samples for _, samples in shape), len(shape), len(ids))
    if problem:
      self.skipped.append(Skipped(clip.id, problem))
      return
    self._entries[source].append(Entry(clip.id, place, 0, len(ids), 1))
    self._targets[clip.id] = (key, ids, labels)

  def _problem(self, samples: int, chunks: int, length: int) -> str | None:
    if samples > self.limits.max_samples or chunks > 1:
      most = min(self.limits.max_samples, lengths.CHUNK_SAMPLES)
      return f"{samples} samples, at most {most} fit"
    if length > self.limits.max_symbols:
      return f"{length} symbols, max_symbols is {self.limits.max_symbols}"
    return None

  def _labels(self, clip: SpeechClip) -> list[int]:
    return [
      _class(clip, name, classes) if name in clip.attributes else _UNKNOWN
      for name, classes in self.attributes.items()
    ]

  def _check_used(self) -> None:
    empty = {n for n, c in zip(self.names, self.counts, strict=True) if not c}
    if empty:
      raise ValueError(f"no clip of {empty} fits: {self.skipped[:LISTED]}")
    for column, name in enumerate(self.attributes):
      if all(target[2][column] == _UNKNOWN for target in self._targets.values()):
        raise ValueError(f"attribute {name!r}: no clip has a label for it")


def _class(clip: SpeechClip, name: str, classes: tuple[str, ...]) -> int:
  label = clip.attributes[name]
  if label not in classes:
    raise ValueError(
      f"example {clip.id!r}: {name} {label!r} is unknown; the choices are {classes}"
    )
  return classes.index(label)


def _empty(rows: int, limits: SpeechLimits, attributes: int) -> Any:
  frames = lengths.padded_frames(limits.max_samples)
  return SpeechBatch(
    mel_BLM=np.zeros((rows, frames, 128), np.float32),
    sample_count_B=np.full(rows, lengths.SHORTEST_SAMPLES, np.int32),
    transcript_BT=np.full((rows, limits.max_symbols), BLANK, np.int32),
    transcript_count_B=np.zeros(rows, np.int32),
    attribute_BC=np.full((rows, attributes), _UNKNOWN, np.int32),
    example_B=np.full(rows, -1, np.int32),
  )
