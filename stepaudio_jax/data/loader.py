"""From the `data` part of a recipe to batches: what the training loop calls."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grain
import jax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax.core import files, lengths, processes, recipe
from stepaudio_jax.data import (
  comparisons,
  contrasts,
  corpus,
  examples,
  features,
  hearing,
  pipeline,
  schema,
)
from stepaudio_jax.data.buckets import WINDOW_BATCHES, Alike, Buckets
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
  features.fill_mels(mels, processes.share(sounds.clips()))
  _shared(mels)
  limits = hearing.SpeechLimits(
    round(data.max_clip_s * lengths.SAMPLE_RATE), data.max_symbols
  )
  feed = hearing.Clips(sounds, mels, limits, data.attributes, spell)
  return batches(feed, seed, batch_size, pack=False), feed


def dialogues(
  data: ConfigDict,
  *,
  cache: epath.Path,
  seed: int,
  batch_size: int,
  **known: Any,
) -> Loaded:
  """Dialogues for next-token losses; see `rendered` for `cache` and `known`."""
  rendering = examples.Rendering(history=data.history)
  feed = rendered(data, data.split, rendering, cache=cache, **known)
  return batches(feed, seed, batch_size, pack=data.pack), feed


def prompts(
  data: ConfigDict, split: str, played: int = 1, **known: Any
) -> examples.Examples:
  """Dialogues up to their last reply, which is to be sampled; see `rendered`.

  Their batches have the shapes that `data.buckets` and `data.clip_buckets_s` declare.
  """
  rendering = examples.Rendering(
    prompt=True, turns="last", history=data.history, played=played
  )
  return rendered(data, split, rendering, buckets=declared(data), **known)


def rendered(
  data: ConfigDict,
  split: str,
  rendering: examples.Rendering,
  *,
  cache: epath.Path,
  tokenizer: Tokenizer,
  encode: features.Encode,
  frames_kind: str,
  encoder_width: int,
  buckets: Buckets | None = None,
  unfit: Callable[[schema.Dialogue], str | None] | None = None,
) -> examples.Examples:
  """Dialogues whose clips the frozen encoder has heard, once each.

  Args:
    cache: where log-mels and encoder frames are kept.
    frames_kind: of the latter, see features.frames_kind.
    encode: the frozen encoder.
    buckets: see examples.Examples.
    unfit: see corpus.Corpus.
  """
  key_file = _key_file(cache)
  talks = corpus.Corpus(data.mix, data.options, split, key_file=key_file, unfit=unfit)
  return examples.Examples(
    talks,
    _frames(talks, data, cache, encode, frames_kind),
    tokenizer,
    limits(data),
    encoder_width=encoder_width,
    rendering=rendering,
    buckets=buckets,
  )


def preferences(
  data: ConfigDict,
  *,
  cache: epath.Path,
  seed: int,
  batch_size: int,
  tokenizer: Tokenizer,
  encode: features.Encode,
  frames_kind: str,
  encoder_width: int,
  dimensions: Sequence[str],
  packs: int,
  rater_room: int = 0,
) -> Loaded:
  """Compared replies for a reward model; `cache` and `encode` as in `rendered`.

  Args:
    packs: that this process's rows are shared out to where `data.pack` is on.
    rater_room: see comparisons.Pairs.
  """
  packs = packs if data.pack else 0
  feed = _pairs(
    data,
    cache,
    tokenizer,
    (encode, frames_kind),
    dimensions=dimensions,
    encoder_width=encoder_width,
    packs=packs,
    row_counts=data.pack_rows,
    rater_room=rater_room,
  )
  return _compared(feed, seed, batch_size, packs), feed


def choices(
  data: ConfigDict,
  *,
  cache: epath.Path,
  seed: int,
  batch_size: int,
  tokenizer: Tokenizer,
  encode: features.Encode,
  frames_kind: str,
  encoder_width: int,
  packs: int,
) -> Loaded:
  """Chosen and rejected replies for DPO, of the files that `preferences` reads."""
  pairs = _pairs(
    data,
    cache,
    tokenizer,
    (encode, frames_kind),
    dimensions=(comparisons.OVERALL,),
    encoder_width=encoder_width,
    packs=0,
  )
  packs = packs if data.pack else 0
  feed = contrasts.Choices(pairs, tokenizer, packs, data.pack_rows)
  return _compared(feed, seed, batch_size, packs), feed


def _compared(
  feed: comparisons.Pairs | contrasts.Choices, seed: int, batch_size: int, packs: int
) -> grain.DatasetIterator:
  """Endless batches; all processes' packs have one shape, which each finds alone."""
  need = None
  if packs:
    comparisons_a_pack = batch_size // (packs * jax.process_count())
    need = functools.partial(feed.need, share=comparisons_a_pack)
  return _batches(feed, pipeline.mixture(feed, seed), batch_size, False, need)


def _pairs(
  data: ConfigDict,
  cache: epath.Path,
  tokenizer: Tokenizer,
  ear: tuple[features.Encode, str],
  **known: Any,
) -> comparisons.Pairs:
  judged = corpus.Corpus(
    data.mix, data.options, data.split, schema.Preference, _key_file(cache)
  )
  return comparisons.Pairs(
    judged,
    _frames(judged, data, cache, *ear),
    tokenizer,
    comparisons.PairLimits(limits(data), data.max_reply_tokens, data.max_raters),
    **known,
  )


def _frames(
  sounding: corpus.Corpus,
  data: ConfigDict,
  cache: epath.Path,
  encode: features.Encode,
  frames_kind: str,
) -> Store:
  """Encoder frames of every clip of a corpus, those that are lacking computed."""
  frames = Store(cache, frames_kind)
  features.fill_frames(
    frames,
    processes.share(sounding.clips()),
    encode,
    batch_size=data.encode_batch,
    mel_store=Store(cache, features.MEL_KIND),
  )
  _shared(frames)
  return frames


def _shared(store: Store) -> None:
  """Each process has filled its own share; now all see all of it."""
  if jax.process_count() > 1:
    processes.barrier("caches are filled")
    store.reload()


def limits(data: ConfigDict) -> Limits:
  return Limits(data.max_tokens, data.max_clips, _clip_frames(data.max_clip_s))


def _clip_frames(seconds: float) -> int:
  longest = lengths.encoder_frames(round(seconds * lengths.SAMPLE_RATE))
  return longest + longest % 2  # an odd one has a neighbour that the adaptor reads


def declared(data: ConfigDict) -> Buckets | None:
  """The buckets of a recipe, its largest shape the last of them; None where it has one.

  Raises:
    ValueError: lengths that do not ascend, or lie outside 0 … the most.
  """
  recipe.check_ascending("data.buckets", data.buckets, data.max_tokens)
  seconds = data.clip_buckets_s
  recipe.check_ascending("data.clip_buckets_s", seconds, data.max_clip_s, whole=False)
  if not data.buckets and not data.clip_buckets_s:
    return None
  clips = (*map(_clip_frames, data.clip_buckets_s), _clip_frames(data.max_clip_s))
  tokens = (*data.buckets, data.max_tokens)
  return Buckets(*(tuple(sorted(set(each))) for each in (tokens, clips)))


def batches(
  feed: Any, seed: int, batch_size: int, *, pack: bool
) -> grain.DatasetIterator:
  """Endless batches of the mixture, for this process.

  Where a feed has buckets, prompts of one bucket come together, see buckets.Alike.
  """
  stream, shape = pipeline.mixture(feed, seed), None
  if isinstance(feed, examples.Examples) and feed.buckets:
    # A window of more than an epoch would bring a prompt's next visit to this one.
    most = min(WINDOW_BATCHES, sum(feed.counts) // batch_size)
    kind = {"batch_size": batch_size, "batches": most, "seed": seed}
    stream, shape = Alike(stream, feed.bucket, **kind), feed.shape
  return _batches(feed, stream, batch_size, pack, shape)


def _batches(
  feed: Any,
  stream: Sequence[pipeline.Place],
  batch_size: int,
  pack: bool,
  shape: Callable[[Iterable[pipeline.Place]], Any] | None,
) -> grain.DatasetIterator:
  """Those of `pipeline.batches` for this process."""
  return pipeline.batches(
    feed,
    stream,
    batch_size=batch_size,
    pack=pack,
    shape=shape,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _key_file(cache: epath.Path) -> str | None:
  """Where a local cache keeps the content keys of audio files between starts."""
  return None if files.is_remote(cache) else str(cache / "keys.json")
