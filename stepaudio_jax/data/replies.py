"""Replies behind their prompts, as a reward model reads them: each in two views."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stepaudio_jax.core.types import Batch, Replies
from stepaudio_jax.text import chat
from stepaudio_jax.text.tokenizer import Tokenizer


class Views(NamedTuple):
  """A reply's tokens from the turn's <|BOT|> to its <|EOT|>, int32.

  Attributes:
    answer_T: the answer alone, as raters saw it.
    thought_T: the turn with its thought, as it was generated.
  """

  answer_T: np.ndarray
  thought_T: np.ndarray

  @property
  def tokens(self) -> int:
    """Of the longer view."""
    return max(map(len, self))


def views(text: str, think: str | None, tokenizer: Tokenizer, name: str) -> Views:
  """Both views of a reply; its prompt is `chat.render(context, target=None)`.

  Args:
    name: the example, for errors.
  """
  turn = {"role": "assistant", "content": text} | ({"think": think} if think else {})
  known = {"tokenizer": tokenizer, "clip_tokens": (), "example_id": name}
  alone = chat.render([turn], target=None, **known)
  whole = chat.render([turn], target="last", **known)
  return Views(alone.token_T, whole.token_T)


def forced(text: str, think: str | None, tokenizer: Tokenizer) -> int:
  """Tokens at the start of `thought_T` that a policy is given and does not speak."""
  turn = {"role": "assistant", "content": text} | ({"think": think} if think else {})
  known = {"tokenizer": tokenizer, "clip_tokens": (), "example_id": "a reply"}
  return int(np.argmax(chat.render([turn], target="last", **known).loss_T))


def laid(
  prompts: Batch,
  rows: Sequence[Sequence[Views | None]],
  *,
  replies: int,
  max_reply_tokens: int,
  pad_id: int,
) -> Replies:
  """Any number of replies to each prompt; branches 2i and 2i + 1 are reply i's views.

  Args:
    prompts: a row each, in the order of `rows`; further ones get no reply.
    rows: the replies to each prompt; None (a thought that never closed) is absent.
    replies: room for replies to a prompt; Q is twice that.

  Raises:
    ValueError: more replies, or longer ones, than there is room for.
  """
  shape = (prompts.token_BT.shape[0], 2 * replies)
  token_BQT = np.full((*shape, max_reply_tokens), pad_id, np.int32)
  count_BQ = np.zeros(shape, np.int32)
  for b, row in enumerate(rows):
    if len(row) > replies:
      raise ValueError(f"row {b} has {len(row)} replies, there is room for {replies}")
    for i, reply in enumerate(row):
      if reply is not None and reply.tokens > max_reply_tokens:
        raise ValueError(
          f"reply {i} of row {b} has {reply.tokens} tokens, max_reply_tokens is "
          f"{max_reply_tokens}"
        )
      for q, token_T in enumerate(reply or (), 2 * i):
        token_BQT[b, q, : len(token_T)] = token_T
        count_BQ[b, q] = len(token_T)
  return Replies(prompts, token_BQT, count_BQ)
