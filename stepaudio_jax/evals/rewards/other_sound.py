"""A corpus of preferences whose dialogues are heard with other sound."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from etils import epath

from stepaudio_jax.core import progress
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.schema import Audio, Dialogue, Preference
from stepaudio_jax.evals.parts import controls
from stepaudio_jax.evals.parts.items import Item


class OtherSound:
  """Reads like the Corpus it is made of; the contexts' clips are others.

  Args:
    name: of a control (evals/parts/controls.py).
    folder: of the clips that are made.

  Raises:
    ValueError: the control needs more dialogues, or other clips, than there are.
  """

  def __init__(self, corpus: Corpus, name: str, folder: epath.PathLike):
    self._corpus = corpus
    self.names, self.weights = corpus.names, corpus.weights
    talks: dict[str, Dialogue] = {}
    for place in corpus.places():
      row = corpus.sample(*place)
      talks.setdefault(row.task_id, _talk(row))
    items = [Item(talk, None) for talk in talks.values()]
    hear = controls.heard(name, items, folder)
    self._heard = {
      task: hear(talk)
      for task, talk in progress.bar(talks.items(), name, "dialogue", total=len(talks))
    }

  def __len__(self) -> int:
    return len(self._corpus)

  def places(self) -> Iterator[tuple[int, int]]:
    return self._corpus.places()

  def sample(self, source: int, index: int) -> Preference:
    row = self._corpus.sample(source, index)
    talk = self._heard[row.task_id]
    return dataclasses.replace(
      row, context=talk.row["messages"], audio=_named(talk.audio, row.id)
    )

  def clips(self) -> dict[str, Audio]:
    """Every clip by its content key."""
    clips = [clip for talk in self._heard.values() for clip in talk.audio]
    return {self.key(clip): clip for clip in clips}

  def key(self, audio: Audio) -> str:
    return self._corpus.key(audio)


def _talk(row: Preference) -> Dialogue:
  content: dict[str, Any] = {"id": row.task_id, "messages": row.context}
  return Dialogue(row.task_id, content, row.audio)


def _named(clips: tuple[Audio, ...], name: str) -> tuple[Audio, ...]:
  return tuple(dataclasses.replace(clip, name=name) for clip in clips)
