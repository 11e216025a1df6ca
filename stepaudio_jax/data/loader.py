"""From the `data` part of a recipe to batches: what the training loop calls."""

from typing import Any

import grain
import jax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax.core import lengths
from stepaudio_jax.data import corpus, examples, features, hearing, pipeline, schema
from stepaudio_jax.data.collate import Limits
from stepaudio_jax.data.store import Store
from stepaudio_jax.text.tokenizer import Tokenizer

# (batches, the feed that they are made of)
Loaded = tuple[grain.DatasetIterator, Any]


def clips(
  data: ConfigDict,
  *,
  cache: epath.Path,
  seed: int,
  batch_size: int,
  spell: hearing.Spell,
) -> Loaded:
  """Single clips for the objective "hear"; log-mels are computed once, into `cache`."""
  sounds = corpus.Corpus(
    data.mix, data.options, data.split, schema.SpeechClip, _key_file(cache)
  )
  mels = Store(cache, features.MEL_KIND)
  features.fill_mels(mels, sounds.clips())
  limits = hearing.SpeechLimits(
    round(data.max_clip_s * lengths.SAMPLE_RATE), data.max_symbols
  )
  feed = hearing.Clips(sounds, mels, limits, data.attributes, spell)
  return _batches(feed, seed, batch_size, pack=False), feed


def dialogues(
  data: ConfigDict,
  *,
  cache: epath.Path,
  seed: int,
  batch_size: int,
  tokenizer: Tokenizer,
  encode: features.Encode,
  encoder_hash: str,
  encoder_width: int,
) -> Loaded:
  """Dialogues for next-token losses; the frozen encoder runs once over each clip.

  Args:
    cache: where log-mels and encoder frames are kept, under `encoder_hash`.
    encode: the frozen encoder.
  """
  talks = corpus.Corpus(data.mix, data.options, data.split, key_file=_key_file(cache))
  frames = Store(cache, f"frames-{encoder_hash}")
  mels = Store(cache, features.MEL_KIND)
  features.fill_frames(
    frames,
    talks.clips(),
    encode,
    batch_size=data.encode_batch,
    mel_store=mels,
  )
  longest = lengths.encoder_frames(round(data.max_clip_s * lengths.SAMPLE_RATE))
  feed = examples.Examples(
    talks,
    frames,
    tokenizer,
    # An odd last frame has a neighbour that the adaptor's convolution reads.
    Limits(data.max_tokens, data.max_clips, longest + longest % 2),
    encoder_width=encoder_width,
    rendering=examples.Rendering(history=data.history),
  )
  return _batches(feed, seed, batch_size, pack=data.pack), feed


def _batches(
  feed: Any, seed: int, batch_size: int, *, pack: bool
) -> grain.DatasetIterator:
  return pipeline.batches(
    feed,
    pipeline.mixture(feed, seed),
    batch_size=batch_size,
    pack=pack,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _key_file(cache: epath.Path) -> str | None:
  """Where a local cache keeps the content keys of audio files between starts."""
  return None if "://" in str(cache) else str(cache / "keys.json")
