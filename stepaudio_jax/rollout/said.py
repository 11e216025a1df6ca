"""Sampled replies as texts."""

import dataclasses

from stepaudio_jax.core import replies
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Said:
  """A sampled reply as text; `answer` is None where the thought never closed."""

  text: str
  think: str
  answer: str | None


def said(rollout: Rollout, tokenizer: Tokenizer) -> list[Said]:
  """The texts of a rollout on the host, whose prompts opened a thought."""
  out = []
  for token_T, count in zip(rollout.token_BT, rollout.count_B, strict=True):
    text = tokenizer.decode(token_T[:count].tolist())
    out.append(Said(text, *replies.split_reply(text, thinking=True)))
  return out
