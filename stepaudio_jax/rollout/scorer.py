"""All rewards of a reply: rules by the stream of its prompt, learned dimensions, and
its length."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepaudio_jax import rewards
from stepaudio_jax.core.types import Batch
from stepaudio_jax.rollout import preference as preferences
from stepaudio_jax.rollout import rubric as rubrics
from stepaudio_jax.rollout.overlong import NAME as OVERLONG
from stepaudio_jax.rollout.overlong import Overlong
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.text.messages import OF_LAST_TURN

STREAMS = ("audio", "text")  # a prompt's stream is "audio" if it has a recording

# (prompts, replies to each in turn) → {dimension: rewards [B], NaN where none is read}
Judge = Callable[[Batch, Sequence[Said]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Scores:
  """Rewards of every reply by dimension.

  Attributes:
    reward_BC: float32, NaN where one is missing.
    weight_BC: float32, 0 where a dimension is only logged, or is not of the stream.
  """

  names: tuple[str, ...]
  reward_BC: np.ndarray
  weight_BC: np.ndarray

  @property
  def objective_B(self) -> np.ndarray:
    """The weighted sum; NaN where a dimension that counts is missing."""
    weighted_BC = np.where(self.weight_BC == 0, 0.0, self.weight_BC * self.reward_BC)
    return weighted_BC.sum(axis=1)


class Scorer:
  """Rewards of replies.

  Args:
    rules: {stream: {file of rewards/: weight}}.
    learned: {dimension: weight} of the judge; a weight of 0 only logs it.
    judge: gives every learned dimension; None if there are none.
    overlong: the penalty of long replies, of either stream; None if there is none.
    rubric: of prompts with one, which may be in a batch beside those without.
    preference: of prompts without one.

  Raises:
    ValueError: an unknown stream or rule, or learned dimensions without a judge.
  """

  def __init__(
    self,
    rules: Mapping[str, Mapping[str, float]],
    learned: Mapping[str, float],
    judge: Judge | None,
    overlong: Overlong | None = None,
    rubric: rubrics.Terms | None = None,
    preference: preferences.Terms | None = None,
  ):
    unknown = sorted(set(rules) - set(STREAMS))
    if unknown:
      raise ValueError(f"unknown streams {unknown} of rewards; there are {STREAMS}")
    if bool(learned) != (judge is not None):
      raise ValueError(
        f"learned rewards {sorted(learned)} with "
        f"{'a' if judge else 'no'} reward model: one needs the other"
      )
    found = sorted({name for weights in rules.values() for name in weights})
    self._rules = {name: rewards.load(name) for name in found}
    self._weights = {stream: dict(rules[stream]) for stream in rules}
    self._learned, self._judge, self._overlong = dict(learned), judge, overlong
    self._rubric = rubric or rubrics.Terms()
    self._preference = preference or preferences.Terms()
    known = [*self._rules, *self._learned, rubrics.NAME, preferences.NAME, OVERLONG]
    twice = sorted({name for name in known if known.count(name) > 1})
    readers = self._rubric.read, self._preference.read
    judged = self._rules or self._learned or any(readers)
    if twice or not judged:
      raise ValueError(f"rewards {self.names}: at least one, and none twice ({twice})")

  @property
  def names(self) -> tuple[str, ...]:
    judged = (rubrics.NAME,) if self._rubric.read else ()
    judged += (preferences.NAME,) if self._preference.read else ()
    long = (OVERLONG,) if self._overlong else ()
    return (*self._rules, *self._learned, *judged, *long)

  @property
  def judged(self) -> tuple[str, ...]:
    """Those that a model gives: of its heads, or as a judge."""
    by_rule = (*self._rules, OVERLONG)
    return tuple(name for name in self.names if name not in by_rule)

  def counts(self) -> dict[str, float]:
    """To be logged: what comparisons came to since this was asked last."""
    return self._preference.read.counts() if self._preference.read else {}

  def __call__(
    self,
    prompts: Batch,
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[Said],
    token_count_B: np.ndarray,
  ) -> Scores:
    """Scores replies, those to a prompt behind each other.

    Args:
      prompts: on the host.
      rows: the dialogue rows behind the prompts; one with "last_turn" False lacks what
        belongs to the dialogue's last turn. A rule that needs it says nothing (NaN),
        and counts for nothing unless there is no other reward.
      token_count_B: of each reply.
    """
    copies = len(texts) // len(rows)
    asked = [row for row in rows for _ in range(copies)]
    heard_B = np.repeat((prompts.frame_count_BR > 0).any(axis=1), copies)
    streams = [self._weights.get(STREAMS[0 if one else 1], {}) for one in heard_B]
    pairs = [*zip(streams, asked, strict=True)]
    spoken = [self._speaking(weights, row) for weights, row in pairs]
    counted = [
      some if self._counts(some) else weights
      for some, weights in zip(spoken, streams, strict=True)
    ]
    columns, weight_columns = [], []
    for name, rule in self._rules.items():
      trio = zip(spoken, asked, texts, strict=True)
      columns.append(
        [rule.score(row, t.text) if name in w else np.nan for w, row, t in trio]
      )
      weight_columns.append([w.get(name, 0.0) for w in counted])
    judged = self._judge(prompts, texts) if self._judge else {}
    for name, weight in self._learned.items():
      columns.append(judged[name])
      factors = [self._rubric.learned if rubrics.has(row) else 1.0 for row in asked]
      weight_columns.append([weight * factor for factor in factors])
    if self._rubric.read:
      reward_B, weight_B = rubrics.column(self._rubric, asked, texts)
      columns.append(reward_B)
      weight_columns.append(weight_B)
    if self._preference.read:
      reward_B, weight_B = preferences.column(self._preference, asked, texts, copies)
      columns.append(reward_B)
      weight_columns.append(weight_B)
    if self._overlong:
      columns.append(self._overlong.penalty(token_count_B))
      weight_columns.append([self._overlong.weight] * len(texts))
    return Scores(
      self.names,
      np.stack(columns, axis=1).astype(np.float32),
      np.stack(weight_columns, axis=1).astype(np.float32),
    )

  def _speaking(
    self, weights: Mapping[str, float], row: Mapping[str, Any]
  ) -> Mapping[str, float]:
    """The rules of a stream that can say something of a turn."""
    if row.get("last_turn", True):
      return weights
    return {
      name: weight
      for name, weight in weights.items()
      if not {*getattr(self._rules[name], "NEEDS", ())} & {*OF_LAST_TURN}
    }

  def _counts(self, weights: Mapping[str, float]) -> bool:
    """Whether a reply has any reward where these rules are its own."""
    long = self._overlong.weight if self._overlong else 0.0
    more = *self._learned.values(), self._preference.weight, long
    return any((*weights.values(), *more))
