"""How a run draws replies: its own values, and the sampler that they make."""

import dataclasses
import functools
import math
from collections.abc import Callable

from stepaudio_jax import sampling
from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.text import thoughts
from stepaudio_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How replies are drawn: of the whole distribution, as a policy gradient needs.

  Attributes:
    max_think_tokens: a thought that is longer is closed, see sampling; 0 leaves it.
    slots: replies that are decoded at a time; 0 is all of them.
    reply_buckets: widths below max_new_tokens in which replies are measured and
      trained on; the longest reply of all processes decides.
    turns: last human turns of a dialogue that are played, see talks.py.
  """

  samples: int
  max_new_tokens: int
  temperature: float
  max_think_tokens: int = 0
  slots: int = 0
  reply_buckets: tuple[int, ...] = ()
  turns: int = 1

  def __post_init__(self):
    # At 0 the likeliest token is taken: a group of one reply, and logits over 0.
    if not 0 < self.temperature < math.inf:
      raise ValueError(f"sampling.temperature={self.temperature} must be above 0")


def sampler(
  model: StepAudio, tokenizer: Tokenizer, how: Sampling, devices: int
) -> Callable[[Params, Batch, Array], Rollout]:
  """sampling.sample with all but its three arrays given.

  Args:
    devices: of the mesh of sampling, or groups of them, that have rows of their own.

  Raises:
    ValueError: slots that the devices cannot share out, or a budget of thoughts that
      leaves no room for an answer.
  """
  if how.slots < 0 or how.slots % devices:
    raise ValueError(
      f"sampling.slots={how.slots} must be 0 (as many as replies) or a multiple of the "
      f"{devices} devices that have rows of their own"
    )
  watched = {}
  if how.max_think_tokens:
    known = thoughts.thoughts(tokenizer, model.size.vocabulary)
    watched = {"max_think_tokens": how.max_think_tokens, "thoughts": known}
    most = how.max_new_tokens - len(known.closing_ids) - 1
    if not 0 < how.max_think_tokens <= most:
      raise ValueError(
        f"sampling.max_think_tokens={how.max_think_tokens} must be 0 (off) or 1 … "
        f"{most}: {len(known.closing_ids)} tokens close a thought, and one of "
        f"max_new_tokens={how.max_new_tokens} is left for the answer"
      )
  return functools.partial(
    sampling.sample,
    model=model,
    max_new_tokens=how.max_new_tokens,
    stop_ids=tokenizer.special.stop,
    pad_id=tokenizer.special.pad,
    temperature=how.temperature,
    copies=how.samples,
    slots=how.slots,
    shares=devices if how.slots else 1,
    **watched,
  )
