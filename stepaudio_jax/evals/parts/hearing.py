"""Encoder frames of clips, and of silence in their place."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import soundfile
from etils import epath
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stepaudio_jax import sharding
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


@functools.lru_cache(maxsize=1 << 16)
def content_key(audio: Audio) -> str:
  """What names a clip by its bytes and span, wherever it lies.

  Raises:
    AudioError: it is not there, or its span is none.
  """
  return audio_io.content_key(audio.source, audio.start_s, audio.end_s, name=audio.name)


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
  encode = replicas(params["encoder"], StepAudio(size))
  features.fill_frames(frames, clips, encode, batch_size=batch_size)


def frozen_encoder(params: Params, model: StepAudio) -> dict[str, Any]:
  """What data/loader.py needs of the encoder, whose frames are computed once."""
  encoder = sharding.gathered(params["encoder"])
  return {
    "encode": replicas(encoder, model),
    "frames_kind": _kind({"encoder": encoder}, model.dtype),
    "encoder_width": model.size.encoder_width,
  }


def replicas(encoder: Params, model: StepAudio) -> features.Encode:
  """The frozen encoder on each device of this process; they share a batch's clips.

  Raises:
    ValueError: clips of a batch that are no multiple of the devices.
  """
  mesh = Mesh(np.asarray(jax.local_devices()), ("replica",))
  params = jax.device_put({"encoder": encoder}, NamedSharding(mesh, P()))
  program = replicated(model, mesh)

  def encode(mel_BLM: np.ndarray, sample_count_B: np.ndarray) -> tuple[Array, Array]:
    if len(mel_BLM) % mesh.size:
      raise ValueError(
        f"{len(mel_BLM)} clips a batch (data.encode_batch) are no multiple of this "
        f"process's {mesh.size} devices"
      )
    return program(params, mel_BLM, sample_count_B)

  return encode


@functools.lru_cache(maxsize=4)
def replicated(model: StepAudio, mesh: Mesh) -> Callable:
  """(params, mel_BLM, sample_count_B) → frames and their counts, one program."""

  def encode(params, mel_BLM, sample_count_B):
    return model.apply({"params": params}, mel_BLM, sample_count_B, method="encode")

  rows = P("replica")
  return jax.jit(
    jax.shard_map(encode, mesh=mesh, in_specs=(P(), rows, rows), out_specs=rows)
  )


def _kind(encoder: Params, dtype: Any) -> str:
  return features.frames_kind(tree.content_hash(encoder), dtype)


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
