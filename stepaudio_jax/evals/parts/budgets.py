"""Replies whose thoughts are closed after so many tokens: accuracy against thinking.

A thought that is still open after the budget is closed by the very tokens that close
one in training (text/chat.py), and the answer is drawn behind it; one that closed in
time is answered as it was. One that ended its turn without an answer stays as it is.
"""

import dataclasses
from collections.abc import Sequence

from stepaudio_jax.core import replies as replies_lib
from stepaudio_jax.core.types import Params
from stepaudio_jax.evals.parts import replies as drawing
from stepaudio_jax.evals.parts.prompts import Prompt, Prompts
from stepaudio_jax.evals.parts.replies import Options, Reply
from stepaudio_jax.text import thoughts
from stepaudio_jax.text.tokenizer import Tokenizer
from stepaudio_jax.workdirs import Model

_ANOTHER_STREAM = 1_000_003  # the answers' draws are not those of the thoughts


def tokens(tokenizer: Tokenizer, budget: int | None) -> int:
  """Positions that a thought of this budget may take beyond the answer's."""
  return 0 if budget is None else budget + len(thoughts.closing_ids(tokenizer))


def replies(
  params: Params,
  model: Model,
  asked: Sequence[Prompt],
  prompts: Prompts,
  options: Options,
  *,
  budget: int,
) -> list[Reply]:
  """As replies.batch, but the thoughts have at most `budget` tokens.

  `max_new_tokens` holds for the answer. With a budget of 0 nothing is thought.
  """
  thoughts = _thoughts(params, model, asked, prompts, options, budget)
  open_ = [thought for thought in thoughts if thought.truncated]
  behind = [_behind(thought, model.tokenizer) for thought in open_]
  limits = dataclasses.replace(prompts.limits, max_tokens=_longest(behind))
  longer = dataclasses.replace(prompts, limits=limits)
  second = dataclasses.replace(options, samples=1, seed=options.seed + _ANOTHER_STREAM)
  answers: list[Reply] = []
  for start in range(0, len(behind), options.batch_size):
    some = behind[start : start + options.batch_size]
    answers += drawing.batch(params, model, some, longer, second)
  whole = map(_joined, open_, answers, [model.tokenizer] * len(open_))
  return [next(whole) if thought.truncated else thought for thought in thoughts]


def _thoughts(
  params: Params,
  model: Model,
  asked: Sequence[Prompt],
  prompts: Prompts,
  options: Options,
  budget: int,
) -> list[Reply]:
  if budget:
    first = dataclasses.replace(options, max_new_tokens=budget)
    return drawing.batch(params, model, asked, prompts, first)
  return [
    Reply(prompt, sample, (), (), "", "", None, truncated=True)
    for prompt in asked
    for sample in range(options.samples)
  ]


def _closing(thought: Reply, tokenizer: Tokenizer) -> tuple[int, ...]:
  """Tokens that close it; none where it has closed by itself."""
  return thoughts.closing_ids(tokenizer) if thought.answer is None else ()


def _behind(thought: Reply, tokenizer: Tokenizer) -> Prompt:
  """A prompt for what comes behind the thought, with a random stream of its own."""
  more = [*thought.token_ids, *_closing(thought, tokenizer)]
  return thought.prompt.followed(more, f"{thought.prompt.id}/{thought.sample}")


def _longest(behind: Sequence[Prompt]) -> int:
  longest = max((len(prompt.example.token_T) for prompt in behind), default=1)
  return -(-longest // drawing.ROUNDED_TOKENS) * drawing.ROUNDED_TOKENS


def _joined(thought: Reply, answer: Reply, tokenizer: Tokenizer) -> Reply:
  """Thought and answer as one reply; the tokens that close it were certain."""
  closing = _closing(thought, tokenizer)
  token_ids = (*thought.token_ids, *closing, *answer.token_ids)
  text = tokenizer.decode(token_ids)
  think, said = replies_lib.split_reply(text)
  return Reply(
    prompt=thought.prompt,
    sample=thought.sample,
    token_ids=token_ids,
    logprobs=(*thought.logprobs, *(0.0 for _ in closing), *answer.logprobs),
    text=text,
    think=think,
    answer=said,
    truncated=answer.truncated,
  )
