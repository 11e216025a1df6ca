"""Prompts to replies, in batches of one shape."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from stepaudio_jax import sampling
from stepaudio_jax.core import progress
from stepaudio_jax.core import replies as replies_lib
from stepaudio_jax.core.types import Batch, Params, Rollout
from stepaudio_jax.data import collate
from stepaudio_jax.data.collate import Example, Limits
from stepaudio_jax.evals.parts.prompts import Frames, Prompt, Prompts
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import draws
from stepaudio_jax.workdirs import Model

WINDOW = 1024  # prompts that are sorted by length together, then put back in order
ROUNDED_TOKENS = 64


@dataclasses.dataclass(frozen=True)
class Options:
  """How replies are drawn.

  Attributes:
    batch_size: prompts at a time.
    temperature, top_k, top_p: as in sampling.draws.Settings.
    samples: replies to each prompt.
  """

  batch_size: int
  max_new_tokens: int
  temperature: float
  top_k: int | None = None
  top_p: float | None = None
  samples: int = 1
  seed: int = 0

  def __post_init__(self):
    for name in ("batch_size", "max_new_tokens", "samples"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
    # The sampler's own checks, before a model is loaded.
    drawn = {name: getattr(self, name) for name in ("temperature", "top_k", "top_p")}
    draws.Settings(self.max_new_tokens, stop_ids=(0,), pad_id=0, **drawn)

  def room(self, max_positions: int) -> int:
    """Tokens that a prompt may have."""
    left = max_positions - self.max_new_tokens
    if left < 1:
      raise ValueError(
        f"max_new_tokens={self.max_new_tokens} leaves no room for a prompt: the model "
        f"has {max_positions} positions, which both share; give fewer"
      )
    return left


@dataclasses.dataclass(frozen=True)
class Reply:
  """One sampled reply.

  Attributes:
    sample: its number among the prompt's.
    token_ids, logprobs: as sampled, the stop token included (types.Rollout).
    text: all of it; a thought comes without the "<think>" that the prompt holds.
    think, answer: its parts; the answer is None where the thought never closed.
    truncated: the limit came before a stop token.
  """

  prompt: Prompt
  sample: int
  token_ids: tuple[int, ...]
  logprobs: tuple[float, ...]
  text: str
  think: str
  answer: str | None
  truncated: bool


def replies(
  model: Model, prompts: Prompts, options: Options, what: str = "replies"
) -> Iterator[Reply]:
  """Replies to the fitting prompts, in order; samples of a prompt come together.

  A reply depends on seed, prompt id and sample number, not on its batch (up to float
  noise). Within a window of prompts those of like length share a batch, and shapes are
  rounded, so that there are few programs.

  Args:
    what: named beside the progress bar.

  Raises:
    FloatingPointError: log-probabilities that are not finite; the prompts are named.
  """
  needed = {part: model.params[part] for part in ("adaptor", "decoder")}
  params = jax.device_put(needed)
  with progress.bar(None, what, "prompt", total=len(prompts.fitting)) as bar:
    for start in range(0, len(prompts.fitting), WINDOW):
      window = prompts.fitting[start : start + WINDOW]
      found: dict[int, list[Reply]] = {}
      for places in by_length(window, options.batch_size):
        asked = [window[place] for place in places]
        said = batch(params, model, asked, prompts, options)
        for k, place in enumerate(places):
          found[place] = said[k * options.samples : (k + 1) * options.samples]
        bar.update(len(asked))
      for place in range(len(window)):
        yield from found[place]


def by_length(window: Sequence[Prompt], batch_size: int) -> Iterator[list[int]]:
  """Batches of places, short prompts first: no row is padded to a far longer one."""
  places = sorted(range(len(window)), key=lambda k: len(window[k].example.token_T))
  for start in range(0, len(places), batch_size):
    yield places[start : start + batch_size]


def batch(
  params: Params,
  model: Model,
  asked: Sequence[Prompt],
  prompts: Prompts,
  options: Options,
) -> list[Reply]:
  """Replies to at most `batch_size` prompts; samples of a prompt come together.

  Args:
    params: adaptor and decoder, on the device.
    prompts: what the asked ones belong to.
  """
  rollout = _sampled(params, model, asked, prompts, options)
  if not np.isfinite(rollout.logprob_BT).all():
    names = [prompt.id for prompt in asked]
    raise FloatingPointError(f"the model's logits are not finite on {names}")
  return [
    _reply(
      model,
      asked[row // options.samples],
      row % options.samples,
      rollout,
      row,
      prompts.thinking,
    )
    for row in range(len(asked) * options.samples)
  ]


def _limits(asked: Sequence[Prompt], whole: Limits) -> Limits:
  """The shape of a batch: few different ones, each no larger than need be."""
  longest = max(len(prompt.example.token_T) for prompt in asked)
  return dataclasses.replace(
    whole,
    max_tokens=min(-(-longest // ROUNDED_TOKENS) * ROUNDED_TOKENS, whole.max_tokens),
    max_clips=max(len(prompt.clip_frames) for prompt in asked),
  )


def laid(
  model: Model, asked: Sequence[Prompt], prompts: Prompts, batch_size: int
) -> Batch:
  """Prompts with their frames as rows; a last batch is filled up with empty rows."""
  empty = batch_size - len(asked)
  return collate.collate(
    [[_heard(prompt, prompts.frames)] for prompt in asked] + [[]] * empty,
    _limits(asked, prompts.limits),
    pad_id=model.tokenizer.special.pad,
    encoder_width=model.size.encoder_width,
  )


def _sampled(
  params: Params,
  model: Model,
  asked: Sequence[Prompt],
  prompts: Prompts,
  options: Options,
) -> Rollout:
  """A batch of replies, on the host."""
  special = model.tokenizer.special
  streams = [p.stream for p in asked] + [0] * (options.batch_size - len(asked))
  rollout = sampling.sample(
    params,
    laid(model, asked, prompts, options.batch_size),
    jax.random.key(options.seed),
    model=StepAudio(model.size),
    max_new_tokens=options.max_new_tokens,
    stop_ids=special.stop,
    pad_id=special.pad,
    temperature=options.temperature,
    top_k=options.top_k,
    top_p=options.top_p,
    copies=options.samples,
    stream_B=np.asarray(streams, np.int32),
  )
  return jax.device_get(rollout)


def _heard(prompt: Prompt, frames: Frames) -> Example:
  """The prompt's example with the frames of its clips."""
  chunks = [chunk.rows for key in prompt.keys for chunk in frames.read(key)]
  return dataclasses.replace(prompt.example, frames=tuple(chunks))


def _reply(
  model: Model,
  prompt: Prompt,
  sample: int,
  rollout: Rollout,
  row: int,
  thinking: bool,
) -> Reply:
  count = int(rollout.count_B[row])
  token_ids = tuple(rollout.token_BT[row][:count].tolist())
  text = model.tokenizer.decode(token_ids)
  think, answer = replies_lib.split_reply(text, thinking)
  return Reply(
    prompt=prompt,
    sample=sample,
    token_ids=token_ids,
    logprobs=tuple(rollout.logprob_BT[row][:count].tolist()),
    text=text,
    think=think,
    answer=answer,
    truncated=bool(rollout.truncated_B[row]),
  )
