"""Questions and answers of a tfds data set in array_record files; a raw sample:

{"key": b"q1", "question": b"Which digits?", "wav": b"RIFF...", "label": b"three one"}

with `c.data.options.<name>` = {"name": "my_digits", "data_dir": ..., "fields":
{"id": "key", "human": "question", "audio": "wav", "assistant": "label"}}.

`fields` names the feature behind each part: "human" and "assistant" (both needed),
"audio", "system", "think", "answer", "choices", "id". Text is UTF-8; audio is the bytes
of a file, or a Tensor of int16 or float samples together with `sample_rate`. Nothing
here imports TensorFlow.
"""

import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
import tensorflow_datasets as tfds

from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Row

_PARTS = ("id", "system", "audio", "human", "assistant", "think", "answer", "choices")
_NEEDED = ("human", "assistant")
_SUBTYPES = {"int16": "PCM_16", "float32": "FLOAT", "float64": "DOUBLE"}


def source(
  split: str,
  *,
  name: str,
  data_dir: str,
  fields: Mapping[str, str],
  sample_rate: int | None = None,
  splits: Mapping[str, str] | None = None,
) -> Sequence[Row]:
  """Rows of `tfds.data_source(name, split, data_dir)`.

  Args:
    fields: {part: feature}, see above.
    sample_rate: of audio stored as samples, in Hz.
    splits: {our split: theirs} where the names differ.

  Raises:
    ValueError: an unknown part or feature, a missing part, or an Audio feature.
  """
  at, fields = f"tfds {name!r}", dict(fields)
  unknown = sorted(set(fields) - set(_PARTS))
  lacking = sorted(set(_NEEDED) - set(fields))
  if unknown or lacking:
    raise ValueError(
      f"{at}: fields {unknown} are unknown and {lacking} missing; the choices are "
      f"{_PARTS}"
    )
  theirs = split if splits is None else splits[split]
  samples = _opened(name, theirs, data_dir)
  _check_features(samples.dataset_info.features, fields, at)
  return _Rows(samples, f"{name}[{theirs}]", fields, sample_rate)


def example(raw: Row) -> schema.Dialogue:
  return schema.dialogue(raw)


class _Rows(Sequence):
  """Raw samples as rows of the dialogue schema."""

  def __init__(
    self, samples: Sequence, at: str, fields: dict[str, str], sample_rate: int | None
  ):
    self._samples, self._at, self._fields = samples, at, fields
    self._rate = sample_rate

  def __len__(self) -> int:
    return len(self._samples)

  def __getitem__(self, index: int) -> Row:
    at = f"{self._at}:{index}"
    sample = self._samples[index]
    parts = {part: sample[feature] for part, feature in self._fields.items()}
    return Row(_dialogue(parts, self._rate, at), at, "")


def _dialogue(parts: dict[str, Any], rate: int | None, at: str) -> dict[str, Any]:
  text = functools.partial(_text, at=at)
  row = {key: text(parts[key]) for key in ("id", "answer") if key in parts}
  if "choices" in parts:
    row["choices"] = [text(choice) for choice in parts["choices"]]
  messages = []
  if "system" in parts:
    messages.append({"role": "system", "content": text(parts["system"])})
  heard = [{"type": "text", "text": text(parts["human"])}]
  if "audio" in parts:
    heard.insert(0, {"type": "audio", "bytes": _file(parts["audio"], rate, at)})
  reply = {"role": "assistant", "content": text(parts["assistant"])}
  if "think" in parts:
    reply["think"] = text(parts["think"])
  return {**row, "messages": [*messages, {"role": "human", "content": heard}, reply]}


def _text(value: Any, at: str) -> str:
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise ValueError(f"{at}: {value[:40]!r} is not UTF-8: {error}") from error
  if isinstance(value, str | int | np.integer):  # an id or a class may be a number
    return str(value)
  raise ValueError(f"{at}: {value!r:.80} is a {type(value).__name__}, not text")


def _file(value: Any, rate: int | None, at: str) -> bytes:
  """Bytes of an audio file; samples are written to a WAV that keeps every bit."""
  if isinstance(value, bytes):
    return value
  samples = np.asarray(value)
  if str(samples.dtype) not in _SUBTYPES or rate is None:
    raise ValueError(
      f"{at}: audio of {samples.dtype} and sample_rate {rate}; wanted are the bytes of "
      f"a file, or samples of {sorted(_SUBTYPES)} and their sample_rate"
    )
  file = io.BytesIO()
  subtype = _SUBTYPES[str(samples.dtype)]
  soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
  return file.getvalue()


def _opened(name: str, split: str, data_dir: str) -> Any:
  try:
    return tfds.data_source(name, split=split, data_dir=data_dir)
  except ModuleNotFoundError as error:
    if error.name != "tensorflow":
      raise
    raise ValueError(_audio_feature(f"tfds {name!r}")) from error


def _check_features(
  features: Mapping[str, Any], fields: dict[str, str], at: str
) -> None:
  lacking = sorted(set(fields.values()) - set(features))
  if lacking:
    raise ValueError(f"{at}: no features {lacking}; there are {sorted(features)}")
  for feature in fields.values():
    if isinstance(features[feature], tfds.features.Audio):
      raise ValueError(_audio_feature(f"{at}, feature {feature!r}"))


def _audio_feature(at: str) -> str:
  return (
    f"{at} uses tfds.features.Audio or another feature that imports TensorFlow: store "
    "the file's bytes as Tensor(shape=(), dtype=object), or the samples as "
    "Tensor(shape=(None,), dtype=int16) with the option sample_rate"
  )
