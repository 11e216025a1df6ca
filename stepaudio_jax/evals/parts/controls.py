"""The same questions about other sound: what is lost was heard (audio grounding).

  silence  digital silence of equal length in the place of every clip
  swapped  the clips of another item, of another answer where there is one
  flat     the same clips without the melody of speech (audio/pitch.py)

Clips that are made, and those that came as bytes, are kept as files in one folder, so
that whoever looks at an item can listen to what the model heard.
"""

import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soundfile
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.audio import pitch
from stepaudio_jax.core import files
from stepaudio_jax.core.lengths import SAMPLE_RATE
from stepaudio_jax.data.schema import Audio, Dialogue
from stepaudio_jax.evals.parts.items import Item

Hear = Callable[[Dialogue], Dialogue]


def names() -> list[str]:
  return ["audio", *_CONTROLS]


def heard(name: str, items: Sequence[Item], folder: epath.PathLike) -> Hear:
  """What turns the talk of any of `items` into the one that is asked.

  Args:
    name: "audio", which changes nothing, or a control.
    folder: of the clips that are made; several processes may share it.

  Raises:
    ValueError: a control needs more items than there are.
  """
  folder = epath.Path(folder)
  if name == "audio":
    return functools.partial(_kept, folder=folder)
  return _CONTROLS[name](items, folder)


def sources(name: str, items: Sequence[Item]) -> dict[str, tuple[Audio, ...]]:
  """By the id of each item the clips of the files from which its sound is made."""
  found = {item.id: item.talk.audio for item in items}
  if _CONTROLS.get(name) is _swapped:
    found |= {name: other.talk.audio for name, other in partners(items).items()}
  return found


def _kept(talk: Dialogue, folder: epath.Path) -> Dialogue:
  """Clips that came as bytes become files."""
  if all(isinstance(audio.source, str) for audio in talk.audio):
    return talk
  return _replaced(talk, [_as_file(audio, folder) for audio in talk.audio])


def _as_file(audio: Audio, folder: epath.Path) -> Audio:
  if isinstance(audio.source, str):
    return audio
  path = folder / hashlib.sha256(audio.source).hexdigest()[:32]
  return dataclasses.replace(audio, source=_written(path, lambda: audio.source))


def _silence(items: Sequence[Item], folder: epath.Path) -> Hear:
  def quiet(audio: Audio) -> Audio:
    samples = len(_samples(audio))
    path = folder / f"silence-{samples}.flac"
    return _clip(path, audio, lambda: np.zeros(samples, np.float32))

  return lambda talk: _replaced(talk, [quiet(audio) for audio in talk.audio])


def _flat(items: Sequence[Item], folder: epath.Path) -> Hear:
  def monotone(audio: Audio) -> Audio:
    key = audio_io.content_key(
      audio.source, audio.start_s, audio.end_s, name=audio.name
    )
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    path = folder / f"flat-{digest}.flac"
    return _clip(path, audio, lambda: pitch.flattened(_samples(audio)))

  return lambda talk: _replaced(talk, [monotone(audio) for audio in talk.audio])


def _swapped(items: Sequence[Item], folder: epath.Path) -> Hear:
  partner = partners(items)

  def exchange(talk: Dialogue) -> Dialogue:
    if not talk.audio:
      return talk
    others = [_as_file(audio, folder) for audio in partner[talk.id].talk.audio]
    clips = [others[n % len(others)] for n in range(len(talk.audio))]
    return _replaced(talk, [dataclasses.replace(c, name=talk.id) for c in clips])

  return exchange


_CONTROLS = {"silence": _silence, "swapped": _swapped, "flat": _flat}


def partners(items: Sequence[Item]) -> dict[str, Item]:
  """By the id of each item the one whose clips it hears instead.

  In an order drawn from the ids alone it is the next item with other clips, since one
  recording may be asked about twice, and of those the next with another answer, if
  there is one.

  Raises:
    ValueError: fewer than two items have clips, or an item has the clips of all others.
  """
  spoken = [item for item in items if item.talk.audio]
  if len(spoken) < 2:
    raise ValueError(f"swapping needs 2 items with clips; there are {len(spoken)}")
  order = sorted(spoken, key=lambda item: hashlib.sha256(item.id.encode()).digest())
  return {item.id: _partner(place, order) for place, item in enumerate(order)}


def _partner(place: int, order: Sequence[Item]) -> Item:
  item, alike = order[place], None
  for step in range(1, len(order)):
    other = order[(place + step) % len(order)]
    if _heard_in(other) == _heard_in(item):
      continue
    if item.gold is None or other.gold != item.gold:
      return other
    alike = alike or other
  if alike is None:
    raise ValueError(f"swapping needs other clips than those of {item.id!r}")
  return alike


def _heard_in(item: Item) -> list[tuple]:
  return [(clip.source, clip.start_s, clip.end_s) for clip in item.talk.audio]


def _replaced(talk: Dialogue, clips: Sequence[Audio]) -> Dialogue:
  """The talk with these clips in the places of its own."""
  given = iter(clips)

  def block(old: dict[str, Any]) -> dict[str, Any]:
    if old["type"] != "audio":
      return old
    clip = next(given)
    span = {"start_s": clip.start_s, "end_s": clip.end_s}
    known = {key: value for key, value in span.items() if value is not None}
    return {"type": "audio", "path": clip.source} | known

  messages = [
    {**message, "content": [*map(block, message["content"])]}
    for message in talk.row["messages"]
  ]
  return Dialogue(talk.id, {**talk.row, "messages": messages}, tuple(clips))


def _samples(audio: Audio) -> np.ndarray:
  return audio_io.read(audio.source, audio.start_s, audio.end_s, name=audio.name)


def _clip(path: epath.Path, audio: Audio, made: Callable[[], np.ndarray]) -> Audio:
  """A clip of 16 kHz samples in a file, which is written if it is not there."""

  def content() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, made(), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()

  return Audio(_written(path, content), None, None, audio.name)


def _written(path: epath.Path, content: Callable[[], bytes]) -> str:
  if not path.exists():
    with files.aside(path) as partial:
      partial.write_bytes(content())
  return str(path)
