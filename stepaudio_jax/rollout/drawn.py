"""Sampled and scored replies on the host, and the rows that a run keeps of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stepaudio_jax.core import processes
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.rl.parts import dimensions
from stepaudio_jax.rl.parts.dimensions import Combining
from stepaudio_jax.rollout import said
from stepaudio_jax.rollout.overlong import NAME as OVERLONG
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scores
from stepaudio_jax.text import messages
from stepaudio_jax.text.tokenizer import Tokenizer

# Rewards of a group that differ by less have no spread: nothing is learnt from it.
SPREAD = 1e-4


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Replies to prompts, those to a prompt (its group) behind each other.

  Where dialogues are played, those to a dialogue are its group, turn by turn.

  Attributes:
    asked: the dialogue rows behind the prompts.
    rollout, texts, scores: of the replies.
    version_B: int32, steps that the policy had learnt from when it gave the reply.
    turns: of a dialogue that are played.
  """

  asked: Sequence[Mapping[str, Any]]
  rollout: Rollout
  texts: Sequence[Said]
  scores: Scores
  version_B: np.ndarray
  turns: int = 1

  @property
  def copies(self) -> int:
    """Replies to each prompt, to all turns of a dialogue."""
    return len(self.texts) // len(self.asked)

  @property
  def samples(self) -> int:
    """Replies that are compared with each other: to one turn of one dialogue."""
    return self.copies // self.turns


def chosen(drawn: Drawn, groups: Sequence[int]) -> Drawn:
  """The prompts of those numbers, in that order, with their replies."""
  copies = drawn.copies
  rows = [group * copies + k for group in groups for k in range(copies)]
  arrays = jax.tree.map(lambda x: x[rows], _arrays(drawn))
  asked = [drawn.asked[group] for group in groups]
  return _with(drawn, asked, [drawn.texts[row] for row in rows], arrays)


def joined(parts: Sequence[Drawn]) -> Drawn:
  """The parts behind each other, their replies as wide as the widest."""
  parts = widened(parts)
  arrays = jax.tree.map(lambda *x: np.concatenate(x), *map(_arrays, parts))
  asked = [row for part in parts for row in part.asked]
  texts = [text for part in parts for text in part.texts]
  return _with(parts[0], asked, texts, arrays)


def widened(parts: Sequence[Drawn]) -> list[Drawn]:
  """The parts with equally many columns for replies; those added hold none."""
  most = max(part.rollout.token_BT.shape[1] for part in parts)
  return [_columns(part, most) for part in parts]


def shortened(drawn: Drawn, tokens: int) -> Drawn:
  """With so many columns for replies, none of which is longer.

  Raises:
    ValueError: one is.
  """
  longest = int(drawn.rollout.count_B.max(initial=0))
  if longest > tokens:
    raise ValueError(f"a reply of {longest} tokens in {tokens} columns")
  return _columns(drawn, tokens)


def _columns(drawn: Drawn, tokens: int) -> Drawn:
  rollout = drawn.rollout
  more = max(tokens - rollout.token_BT.shape[1], 0)

  def wide(x_BT: np.ndarray) -> np.ndarray:
    return np.pad(x_BT[:, :tokens], [(0, 0), (0, more)])

  rollout = dataclasses.replace(
    rollout,
    token_BT=wide(rollout.token_BT),
    logprob_BT=wide(rollout.logprob_BT),
    mask_BT=wide(rollout.mask_BT),
  )
  return dataclasses.replace(drawn, rollout=rollout)


def everyones(
  drawn: Drawn, asked: Sequence[Mapping[str, Any]], tokenizer: Tokenizer
) -> Drawn:
  """Replies of all processes, each of which must ask.

  Args:
    asked: the rows behind all of their prompts.
  """
  if jax.process_count() == 1:
    return drawn
  arrays = processes.gathered(_arrays(drawn))
  return _with(drawn, asked, said.said(arrays[0], tokenizer), arrays)


def with_spread(drawn: Drawn, how: Combining | None = None) -> list[int]:
  """Numbers of the groups whose objectives differ; what is missing does not count.

  Nor does the penalty of long replies: all right or all wrong is flat however long they
  are (DAPO, arXiv 2503.14476, eq. 11). Of a dialogue that is played those to any turn.

  Args:
    how: with a veto, objectives are those that it leaves.
  """
  scores = drawn.scores
  said_C = [name != OVERLONG for name in scores.names]
  reward_BC, weight_BC = scores.reward_BC, scores.weight_BC
  if how and how.veto:
    told = (reward_BC, weight_BC, drawn.samples, how)
    reward_BC = np.asarray(dimensions.counted(*told))
  objective_B = dataclasses.replace(
    scores, reward_BC=reward_BC[:, said_C], weight_BC=weight_BC[:, said_C]
  ).objective_B
  objective_BG = objective_B.reshape(-1, drawn.samples)
  least_B = np.where(np.isfinite(objective_BG), objective_BG, np.inf).min(1)
  most_B = np.where(np.isfinite(objective_BG), objective_BG, -np.inf).max(1)
  spread_BT = (most_B - least_B > SPREAD).reshape(-1, drawn.turns)
  return np.flatnonzero(spread_BT.any(1)).tolist()


def rows(step: int, drawn: Drawn, shown: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Rollout rows (system.md), one a reply.

  Args:
    step: of the update that reads them.
    shown: what else is kept: {name: [B] numbers, or {dimension: [B] numbers}}.
  """
  rollout, copies = drawn.rollout, drawn.copies
  return [
    {
      "step": step,
      "policy_version": int(drawn.version_B[index]),
      "prompt_id": drawn.asked[index // copies]["id"],
      "dialogue_id": drawn.asked[index // copies]["dialogue_id"],
      **_turn(drawn, index),
      "sample": index % drawn.samples,
      **dataclasses.asdict(text),
      **_tokens(rollout, index),
      "truncated": bool(rollout.truncated_B[index]),
      **{name: _of(value, index) for name, value in shown.items()},
    }
    for index, text in enumerate(drawn.texts)
  ]


def _turn(drawn: Drawn, index: int) -> dict[str, Any]:
  """Which human turn of its dialogue, from 1, a reply of a played dialogue is to."""
  if drawn.turns == 1:
    return {}
  group, place = divmod(index, drawn.copies)
  last = len(messages.human_turns(drawn.asked[group]["messages"]))
  turn = last - drawn.turns + 1 + place // drawn.samples
  return {"turn": turn, "failed": not drawn.rollout.count_B[index]}


def _tokens(rollout: Rollout, index: int) -> dict[str, Any]:
  """Tokens of a reply; "forced" has the places of those that closed its thought."""
  count = int(rollout.count_B[index])
  forced_T = np.flatnonzero(~rollout.mask_BT[index][:count])
  return {
    "token_ids": rollout.token_BT[index][:count].tolist(),
    "logprobs": [round(float(x), 6) for x in rollout.logprob_BT[index][:count]],
    **({"forced": forced_T.tolist()} if len(forced_T) else {}),
  }


def _of(value: Any, index: int) -> Any:
  if isinstance(value, Mapping):
    return {name: _of(one, index) for name, one in value.items()}
  one = float(value[index])
  return round(one, 6) if np.isfinite(one) else None  # JSON has no NaN


def _arrays(drawn: Drawn) -> tuple[Rollout, np.ndarray, np.ndarray, np.ndarray]:
  scores = drawn.scores
  return drawn.rollout, scores.reward_BC, scores.weight_BC, drawn.version_B


def _with(
  like: Drawn, asked: Sequence[Any], texts: Sequence[Said], arrays: tuple
) -> Drawn:
  rollout, reward_BC, weight_BC, version_B = arrays
  scores = dataclasses.replace(like.scores, reward_BC=reward_BC, weight_BC=weight_BC)
  return Drawn(asked, rollout, texts, scores, version_B, like.turns)
