"""Log-mels and frozen encoder frames of clips, each computed once and kept in a Store.

The encoder is passed in: data/ knows no model. What is computed does not depend on
when: the missing clips, in order of their keys, are cut into packs, by number and by
length, and every batch is made from one pack alone. So a fill that was killed and
started again writes the bytes that an undisturbed one would have written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from stepaudio_jax.audio import io, mel
from stepaudio_jax.core import ahead, lengths, progress, threads
from stepaudio_jax.data.corpus import LISTED
from stepaudio_jax.data.schema import Audio
from stepaudio_jax.data.store import Chunk, Store

# (mel_BLM, sample_count_B) → (frames_BUE, frame_count_B)
Encode = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
# One chunk of a clip that is being encoded.
Piece = tuple[Audio, Chunk]

MEL_KIND = "log-mel-128"
# A pack is read and encoded in memory: 20 minutes are 60 MB of log-mels.
PACK_CLIPS, PACK_SAMPLES = 256, 20 * 60 * lengths.SAMPLE_RATE
# Padded mel frames of the encoder's programs; each length compiles once.
BUCKETS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 2502)


def frames_kind(encoder_hash: str, dtype: Any) -> str:
  """Of a store: frames of this encoder, computed in this type."""
  return f"frames-{np.dtype(dtype).name}-{encoder_hash}"


def fill_mels(
  store: Store, clips: Mapping[str, Audio], *, clips_per_pack: int = PACK_CLIPS
) -> None:
  """Computes the log-mels of those of `clips` ({content key: clip}) it lacks."""
  for pack in ahead.ahead(_packs(store, clips, None, clips_per_pack, "log-mels")):
    store.write(pack)


def fill_frames(
  store: Store,
  clips: Mapping[str, Audio],
  encode: Encode,
  *,
  batch_size: int,
  mel_store: Store | None = None,
  buckets: Sequence[int] = BUCKETS,
  clips_per_pack: int = PACK_CLIPS,
) -> None:
  """Encodes those of `clips` ({content key: clip}) that `store` lacks.

  Several processes may each fill their own clips of one folder, then `reload()`.

  Args:
    encode: called with `batch_size` rows and a length of `buckets`, always.
    mel_store: read instead of computing log-mels where it has the clip.

  Raises:
    ValueError: a chunk is longer than the last bucket, or the encoder gives a wrong
      number of frames or values that are not finite; the clip is named.
  """
  packs = _packs(store, clips, mel_store, clips_per_pack, "encoder frames")
  for pack in ahead.ahead(packs):
    keys = [key for key, chunks in pack.items() for _ in chunks]
    pieces = [(clips[key], chunk) for key, chunks in pack.items() for chunk in chunks]
    frames = {key: [] for key in pack}
    encoded = _encoded(pieces, encode, batch_size, buckets)
    for key, chunk in zip(keys, encoded, strict=True):
      frames[key].append(chunk)
    store.write(frames)


def mels(audio: Audio) -> tuple[tuple[Chunk, ...], int]:
  """Log-mel of every chunk of a clip, float32 [padded frames, 128].

  Beside it: samples at the end that are too few for an audio token and left out.
  """
  samples_N = io.read(audio.source, audio.start_s, audio.end_s, name=audio.name)
  label = io.label_of(audio.source, audio.name)
  pieces, dropped_samples = io.chunks(samples_N, name=label)
  chunks = tuple(Chunk(mel.log_mel(piece_N), len(piece_N)) for piece_N in pieces)
  return chunks, dropped_samples


def _packs(
  store: Store,
  clips: Mapping[str, Audio],
  mel_store: Store | None,
  clips_per_pack: int,
  what: str,
) -> Iterator[dict[str, tuple[Chunk, ...]]]:
  """Log-mels of the clips that `store` lacks, a pack at a time, with a progress bar."""

  def read(key: str) -> tuple[tuple[Chunk, ...], int]:
    if mel_store is not None and key in mel_store:
      return mel_store.read(key), 0
    return mels(clips[key])

  missing = store.missing(clips)
  pack, samples, cut = {}, 0, []
  found = threads.ahead(read, missing)
  for key in progress.bar(missing, what, "clip"):
    pack[key], dropped_samples = next(found)
    cut += [clips[key].name] if dropped_samples else []
    samples += sum(chunk.samples for chunk in pack[key])
    if len(pack) == clips_per_pack or samples >= PACK_SAMPLES:
      yield pack
      pack, samples = {}, 0
  if pack:
    yield pack
  if cut:
    logging.warning(
      "the last samples of %d clips, too few for an audio token (at most %d each), are "
      "left out: %s",
      len(cut),
      lengths.SHORTEST_SAMPLES - 1,
      ", ".join(cut[:LISTED]) + (", …" if len(cut) > LISTED else ""),
    )


def _encoded(
  pieces: Sequence[Piece], encode: Encode, batch_size: int, buckets: Sequence[int]
) -> list[Chunk]:
  """Frames of each piece, in their order; pieces of like length share a batch."""
  out: list[Chunk | None] = [None] * len(pieces)
  order = sorted(range(len(pieces)), key=lambda i: len(pieces[i][1].rows))
  for start in range(0, len(order), batch_size):
    batch = order[start : start + batch_size]
    frames_BUE, count_B = _run([pieces[i] for i in batch], encode, batch_size, buckets)
    for row, index in enumerate(batch):
      out[index] = _checked(frames_BUE[row], int(count_B[row]), *pieces[index])
  return out


def _run(
  pieces: Sequence[Piece], encode: Encode, batch_size: int, buckets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
  audio, longest = pieces[-1]
  frames = len(longest.rows)
  fits = [bucket for bucket in sorted(buckets) if bucket >= frames]
  if not fits:
    raise ValueError(
      f"{audio.name}: a chunk of {frames} mel frames is longer than the last of the "
      f"buckets {tuple(sorted(buckets))}"
    )
  # A last batch is filled up with its last clip: rows of no sound have no mean.
  filled = [*pieces, *[pieces[-1]] * (batch_size - len(pieces))]
  mel_BLM = np.zeros((batch_size, fits[0], longest.rows.shape[1]), np.float32)
  for row, (_, chunk) in enumerate(filled):
    mel_BLM[row, : len(chunk.rows)] = chunk.rows
  samples_B = np.asarray([chunk.samples for _, chunk in filled], np.int32)
  frames_BUE, count_B = encode(mel_BLM, samples_B)
  return np.asarray(frames_BUE, np.float32), np.asarray(count_B)


def _checked(frames_UE: np.ndarray, count: int, audio: Audio, chunk: Chunk) -> Chunk:
  wanted = lengths.encoder_frames(chunk.samples)
  if count != wanted or count > len(frames_UE):
    raise ValueError(
      f"{audio.name}: the encoder gave {count} frames of {chunk.samples} samples, "
      f"not {wanted}"
    )
  # An odd last frame has a neighbour, perhaps not zero, that the adaptor's convolution
  # reads with it: two rows are kept for every audio token.
  kept = 2 * lengths.adaptor_tokens(count)
  rows_UE = np.zeros((kept, frames_UE.shape[1]), np.float32)
  rows_UE[: len(frames_UE[:kept])] = frames_UE[:kept]
  if not np.isfinite(rows_UE).all():
    raise ValueError(f"{audio.name}: the encoder's frames are not finite")
  return Chunk(rows_UE, chunk.samples)
