"""Sampled replies as texts, and the rows that a run keeps of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
  for token_T, mask_T in zip(rollout.token_BT, rollout.mask_BT, strict=True):
    text = tokenizer.decode(token_T[mask_T].tolist())
    out.append(Said(text, *replies.split_reply(text, thinking=True)))
  return out


def rows(
  step: int,
  asked: Sequence[Mapping[str, Any]],
  rollout: Rollout,
  texts: Sequence[Said],
  shown: Mapping[str, Any],
) -> list[dict[str, Any]]:
  """Rollout rows (system.md), one a reply.

  Args:
    step: of the update that reads them; the policy that sampled them is one older.
    asked: dialogue rows of the prompts; the replies to each touch.
    shown: what else is kept: {name: [B] numbers, or {dimension: [B] numbers}}.
  """
  copies = len(texts) // len(asked)
  return [
    {
      "step": step,
      "policy_version": step - 1,
      "prompt_id": asked[index // copies]["id"],
      "dialogue_id": asked[index // copies]["dialogue_id"],
      "sample": index % copies,
      **dataclasses.asdict(text),
      "token_ids": rollout.token_BT[index][rollout.mask_BT[index]].tolist(),
      "logprobs": [
        round(float(x), 6) for x in rollout.logprob_BT[index][rollout.mask_BT[index]]
      ],
      "truncated": bool(rollout.truncated_B[index]),
      **{name: _of(value, index) for name, value in shown.items()},
    }
    for index, text in enumerate(texts)
  ]


def _of(value: Any, index: int) -> Any:
  if isinstance(value, Mapping):
    return {name: _of(one, index) for name, one in value.items()}
  one = float(value[index])
  return round(one, 6) if np.isfinite(one) else None  # JSON has no NaN
