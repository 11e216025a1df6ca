"""Dialogues as prompts for their last reply, and the one shape that holds them all."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from stepaudio_jax.core import lengths
from stepaudio_jax.data import examples
from stepaudio_jax.data.collate import Example, Limits
from stepaudio_jax.data.corpus import LISTED, Corpus
from stepaudio_jax.data.examples import Rendering, Skipped
from stepaudio_jax.data.schema import Audio, Dialogue
from stepaudio_jax.data.store import Chunk
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.text import messages as messages_lib
from stepaudio_jax.text.tokenizer import Tokenizer
from stepaudio_jax.workdirs import Model

# Lengths of rows are rounded up to a multiple, so that sets of data share programs.
ROUNDED_TOKENS = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
  """A dialogue up to the reply that is asked for.

  Attributes:
    row: the dialogue row; its id is "{dialogue_id}#{turn}" and its messages are those
      that the model reads, earlier answers without their thoughts.
    example: its tokens, without frames.
    keys: of its clips in a store.
    clip_frames: encoder frames of every chunk.
  """

  row: dict[str, Any]
  example: Example
  keys: tuple[str, ...]
  clip_frames: tuple[int, ...]

  @property
  def id(self) -> str:
    return self.row["id"]

  @property
  def dialogue_id(self) -> str:
    return self.row["dialogue_id"]

  @property
  def stream(self) -> int:
    """Its random stream: a number made of the id alone, wherever the prompt stands."""
    digest = hashlib.blake2b(self.id.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # int32 has a sign

  def followed(self, token_ids: Sequence[int], name: str) -> "Prompt":
    """The prompt with the beginning of a reply behind it, under another id."""
    example = self.example
    more_T = np.asarray(token_ids, example.token_T.dtype)
    token_T = np.concatenate([example.token_T, more_T])
    loss_T = np.concatenate([example.loss_T, np.zeros(len(more_T), np.bool_)])
    return dataclasses.replace(
      self,
      row=self.row | {"id": name},
      example=dataclasses.replace(example, token_T=token_T, loss_T=loss_T),
    )


class Frames(Protocol):
  """Encoder frames of clips by key: a Store, or hearing.Silence."""

  def shape(self, key: str) -> tuple[tuple[int, int], ...]: ...

  def read(self, key: str) -> tuple[Chunk, ...]: ...


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Prompts of one set of data.

  Attributes:
    frames: of their clips.
    fitting: those that can be asked, in the order of the data.
    failed: those that cannot, and why.
    limits: the shape of a row that holds any of `fitting`.
    thinking: they open a thought, which the reply then begins with.
  """

  frames: Frames
  fitting: tuple[Prompt, ...]
  failed: tuple[tuple[Prompt, str], ...]
  limits: Limits
  thinking: bool

  def as_long_as(self, tokens: int) -> "Prompts":
    """The same where a row may have so many tokens."""
    limits = dataclasses.replace(self.limits, max_tokens=rounded(tokens))
    return dataclasses.replace(self, limits=limits)


def rounded(tokens: int) -> int:
  """So many, or a few more: sets of data share programs."""
  return -(-tokens // ROUNDED_TOKENS) * ROUNDED_TOKENS


def corpus(path: epath.PathLike) -> Corpus:
  """The dialogues of one JSON Lines file, every row checked."""
  literal = str(path).replace("{", "{{").replace("}", "}}")
  return Corpus({"dialogue": 1.0}, {"dialogue": {"path": literal}}, "heldout")


def dialogues(talks: Corpus, limit: int | None = None) -> list[Dialogue]:
  """All dialogues, or the first `limit`."""
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit} must be at least 1, or None for all")
  return [talks.sample(*place) for place in list(talks.places())[:limit]]


def prompts(
  model: Model,
  talks: Sequence[Dialogue],
  key: Callable[[Audio], str],
  cache: epath.PathLike,
  *,
  max_tokens: int,
  thinking: bool = True,
  encode_batch: int = hearing.BATCH_SIZE,
) -> Prompts:
  """Asks for the last reply of each dialogue; a prompt that is too long fails.

  Args:
    key: content key of a clip.
    cache: folder of encoder frames; those that it lacks are computed first.
    max_tokens: of a prompt.
    thinking: prompts open a thought, or hold an empty one.
    encode_batch: chunks that the encoder reads at a time.

  Raises:
    ValueError: a recording or dialogue is wrong, or no prompt fits.
  """
  frames = hearing.store(model.params, cache)
  clips = {key(audio): audio for talk in talks for audio in talk.audio}
  hearing.fill(frames, clips, model.params, model.size, encode_batch)
  made = of_frames(
    model.tokenizer, talks, key, frames, max_tokens=max_tokens, thinking=thinking
  )
  if not made.fitting:
    reasons = [f"{prompt.id!r}: {why}" for prompt, why in made.failed[:LISTED]]
    raise ValueError("\n  ".join(["no prompt can be asked:", *reasons]))
  return made


def of_frames(
  tokenizer: Tokenizer,
  talks: Sequence[Dialogue],
  key: Callable[[Audio], str],
  frames: Frames,
  *,
  max_tokens: int,
  thinking: bool = True,
  frames_multiple: int = 2,
) -> Prompts:
  """`prompts` of clips whose frames are there; perhaps none of them fits.

  Args:
    frames_multiple: even; the shape's longest chunk is rounded up to a multiple, so
      that several sets of prompts share programs.
  """
  rendering = Rendering(prompt=True, turns="last", thinking=thinking)
  fitting, failed = [], []
  for talk in talks:
    prompt = _prompt(talk, key, frames, tokenizer, rendering)
    tokens = len(prompt.example.token_T)
    if tokens <= max_tokens:
      fitting.append(prompt)
    else:
      failed.append((prompt, f"{tokens} tokens, there is room for {max_tokens}"))
  examples.report_skipped([Skipped(p.id, why) for p, why in failed], len(fitting))
  limits = _limits(fitting, max_tokens, frames_multiple)
  return Prompts(frames, tuple(fitting), tuple(failed), limits, thinking)


def _prompt(
  talk: Dialogue,
  key: Callable[[Audio], str],
  frames: Frames,
  tokenizer: Tokenizer,
  rendering: Rendering,
) -> Prompt:
  (row,) = examples.expanded(talk.row, rendering)
  heard = [
    {name: value for name, value in message.items() if name != "think"}
    for message in row["messages"]
  ]
  row = {**row, "messages": heard}
  clips = talk.audio[: len(messages_lib.audio_blocks(heard))]
  keys = tuple(key(audio) for audio in clips)
  counts = [[rows for rows, _ in frames.shape(key)] for key in keys]
  tokens = [[lengths.adaptor_tokens(count) for count in clip] for clip in counts]
  shown = examples.rendered(row, rendering, tokenizer, tokens)
  example = Example(row["id"], 0, shown.token_T, shown.loss_T, shown.spans)
  return Prompt(row, example, keys, tuple(count for clip in counts for count in clip))


def _limits(fitting: Sequence[Prompt], max_tokens: int, multiple: int) -> Limits:
  longest = max((len(prompt.example.token_T) for prompt in fitting), default=0)
  frames = max((max(p.clip_frames, default=0) for p in fitting), default=0)
  return Limits(
    max_tokens=min(rounded(longest), max_tokens),
    max_clips=max((len(prompt.clip_frames) for prompt in fitting), default=0),
    # An odd last frame has a neighbour that the adaptor's convolution reads.
    max_clip_frames=-(-frames // multiple) * multiple,
  )
