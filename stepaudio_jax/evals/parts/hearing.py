"""Encoder frames of clips, and of silence in their place."""

import dataclasses
import functools
import io
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import soundfile
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core import tree
from stepaudio_jax.core.lengths import SAMPLE_RATE
from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.data import features
from stepaudio_jax.data.schema import Audio
from stepaudio_jax.data.store import Chunk, Store
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import StepAudio

BATCH_SIZE = 16  # chunks that the encoder reads at a time


def store(params: Params, folder: epath.PathLike) -> Store:
  """Kept encoder frames; the folder may be shared with other encoders and training."""
  encoder = {"encoder": params["encoder"]}
  return Store(folder, _kind(encoder, StepAudio.dtype))


def fill(
  frames: Store,
  clips: Mapping[str, Audio],
  params: Params,
  size: Size,
  batch_size: int = BATCH_SIZE,
) -> None:
  """Encodes those of `clips` ({content key: clip}) that `frames` lacks."""
  encoder = jax.device_put({"encoder": params["encoder"]})
  encode = functools.partial(_encode, encoder, model=StepAudio(size))
  features.fill_frames(frames, clips, encode, batch_size=batch_size)


def frozen_encoder(params: Params, model: StepAudio) -> dict[str, Any]:
  """What data/loader.py needs of the encoder, whose frames are computed once."""
  encoder = {"encoder": params["encoder"]}
  return {
    "encode": functools.partial(_encode, jax.device_put(encoder), model=model),
    "frames_kind": _kind(encoder, model.dtype),
    "encoder_width": model.size.encoder_width,
  }


def _kind(encoder: Params, dtype: Any) -> str:
  return features.frames_kind(tree.content_hash(encoder), dtype)


@functools.partial(jax.jit, static_argnames="model")
def _encode(
  encoder: Params, mel_BLM: Array, sample_count_B: Array, *, model: StepAudio
) -> tuple[Array, Array]:
  return model.apply({"params": encoder}, mel_BLM, sample_count_B, method="encode")


@dataclasses.dataclass(frozen=True)
class Silence:
  """Reads like a Store, but every chunk holds the frames of equally long silence.

  Attributes:
    frames: the clips' own, and those of the silences.
    keys: {samples: key of so much silence in `frames`}.
  """

  frames: Store
  keys: Mapping[int, str]

  def shape(self, key: str) -> tuple[tuple[int, int], ...]:
    return self.frames.shape(key)

  def read(self, key: str) -> tuple[Chunk, ...]:
    return tuple(
      self.frames.read(self.keys[samples])[0] for _, samples in self.shape(key)
    )


def silenced(
  frames: Store, clips: Iterable[str], params: Params, size: Size
) -> Silence:
  """`frames` without sound, for the clips of these keys.

  Each length is digital silence that goes once through everything that a clip goes
  through: decoder, log-mel, encoder.
  """
  lengths = {samples for key in clips for _, samples in frames.shape(key)}
  quiet = {samples: silence(samples) for samples in sorted(lengths)}
  keys = {
    samples: audio_io.content_key(audio.source) for samples, audio in quiet.items()
  }
  fill(frames, {keys[n]: quiet[n] for n in quiet}, params, size)
  return Silence(frames, keys)


def silence(samples: int) -> Audio:
  """A clip of so many zero samples at 16 kHz."""
  file = io.BytesIO()
  soundfile.write(file, np.zeros(samples, np.int16), SAMPLE_RATE, format="FLAC")
  return Audio(file.getvalue(), None, None, f"silence of {samples} samples")
