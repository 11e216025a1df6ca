"""A step's replies: which prompts, from which policy, and which are worth learning.

Refilling (DAPO, arXiv 2503.14476, §3.2): groups whose replies are all worth the same
(but for the penalty of long ones) teach nothing; they are dropped and other prompts are
asked, for so many rounds more.
What is left over then waits for the next step, if it may get old enough.

Overlap: the replies of step t + 1 are begun with the policy that step t starts with,
before its update; the devices, the host's scoring and the update need not wait for each
other. No clock decides which policy speaks, so that a run can be repeated. Where
dialogues are played their first turns are begun so, and the same policy gives the rest.

A dialogue's replies to all its turns are one group: they are kept, dropped or wait
together.

Every reply is measured under the policy that began the step's replies: there sampler
and trainer must agree. Older ones keep their sampler's log-probabilities.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from stepaudio_jax.core import processes
from stepaudio_jax.core.types import Array, Batch, Experience, Params, Rollout
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.rl.parts.dimensions import Combining
from stepaudio_jax.rollout import drawn as drawn_lib
from stepaudio_jax.rollout import said
from stepaudio_jax.rollout.actor import Actor, Played
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.scorer import Scores

_DRAWING = ("adaptor", "decoder")

# (prompts and replies of this process, rows of all prompts, counts)
Found = tuple[Batch, Drawn, Sequence[Mapping[str, Any]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Collecting:
  """How a step's replies come together.

  Attributes:
    refill_rounds: so many times at most other prompts are asked in place of groups
      without spread; 0 keeps all groups.
    overlap: the next replies are begun before the update.
    max_age: steps that a policy may have learnt since it gave a reply that is trained
      on; older ones are dropped.
  """

  refill_rounds: int
  overlap: bool
  max_age: int

  def __post_init__(self):
    least = int(self.overlap)
    if self.refill_rounds < 0 or self.max_age < least:
      raise ValueError(
        f"rollout.refill_rounds={self.refill_rounds} must be at least 0, and "
        f"rollout.max_age={self.max_age} at least {least} with overlap={self.overlap}"
      )
    if self.max_age > least and not self.refill_rounds:
      raise ValueError(
        f"rollout.max_age={self.max_age} would do nothing: without refill_rounds all "
        f"replies are of age {least}"
      )


@dataclasses.dataclass(frozen=True)
class Begun:
  """Replies that the devices are at work on.

  Attributes:
    policy: that gives them.
    version: steps that it has learnt from.
    prompts: of this process.
    ids: of all prompts.
    rng: that they are drawn with.
  """

  policy: Params
  version: int
  prompts: Batch
  ids: Sequence[str]
  rollout: Rollout
  rng: Array


@dataclasses.dataclass(frozen=True)
class Collected:
  """What a step learns from.

  Attributes:
    asked: the dialogue rows behind all processes' prompts.
    counts: to be logged.
  """

  played: Played
  asked: Sequence[Mapping[str, Any]]
  counts: dict[str, float]


class Collector:
  """Replies for one step after the other.

  Args:
    batches: (prompts of this process, ids of all), without end.
    prompts: groups of a step, of all processes.
    how: dimensions make the advantage, which groups with a spread depend on.
  """

  def __init__(
    self,
    actor: Actor,
    feed: Examples,
    batches: Iterator[tuple[Batch, Sequence[str]]],
    settings: Collecting,
    *,
    seed: int,
    prompts: int,
    how: Combining | None = None,
  ):
    self.actor, self._feed, self._batches = actor, feed, batches
    self._settings, self._seed, self._wanted = settings, seed, prompts
    self._how = how
    self._ahead: Begun | None = None
    self.left: list[Drawn] = []  # groups of all processes, for later steps
    self.ready: Collected | None = None  # for the next step

  def next(self, params: Params, step: int) -> Collected:
    """The replies of a step.

    Args:
      params: the policy's that the step starts with, and "critic" where there is one.
    """
    if self.ready:
      ready, self.ready = self.ready, None
      return ready
    begun = self._ahead or self._begin(params, step, step - 1)
    self._ahead = None
    self._seconds = dict.fromkeys(("sample_s", "score_s"), 0.0)
    make = self._refilled if self._settings.refill_rounds else self._plain
    prompts, drawn, asked, counts = make(begun, step)
    critic = {"critic": params["critic"]} if "critic" in params else {}
    measured = self.actor.measured(
      {**begun.policy, **critic}, prompts, drawn, begun.version
    )
    seconds = self._seconds | measured.seconds
    measured = dataclasses.replace(measured, seconds=seconds)
    return Collected(measured, asked, counts)

  def begin_next(self, params: Params, step: int) -> None:
    """Begins the replies of `step` with a copy of the policy, if there is overlap."""
    if self._settings.overlap and not self.ready:
      policy = jax.tree.map(jnp.copy, {name: params[name] for name in _DRAWING})
      self._ahead = self._begin(policy, step, step - 2)

  def settle(self, params: Params, step: int) -> None:
    """Finishes what was begun for `step`, so that it can be saved."""
    if self._ahead:
      self.ready = self.next(params, step)

  def recalled(
    self,
    ids: Sequence[str],
    rollout: Rollout,
    names: tuple[str, ...],
    reward_BC: np.ndarray,
    weight_BC: np.ndarray,
    version_B: np.ndarray,
  ) -> Drawn:
    """Replies as they were when a run was saved."""
    asked = [self._feed.row(name) for name in ids]
    texts = said.said(rollout, self.actor.tokenizer)
    scores = Scores(names, reward_BC, weight_BC)
    return Drawn(asked, rollout, texts, scores, version_B, self.actor.turns)

  def recollected(
    self,
    drawn: Drawn,
    experience: Experience,
    entropy_BT: np.ndarray,
    version: int,
    counts: dict[str, float],
  ) -> Collected:
    """What a step learns from, as it was when a run was saved; all of all processes."""
    own = drawn_lib.chosen(drawn, processes.part(range(len(drawn.asked))))
    rows = processes.part(range(len(drawn.texts)))
    seen = jax.tree.map(lambda x: x[list(rows)], (experience, entropy_BT))
    replies = self.actor.laid_out(self._prompts(drawn.asked), own)
    experience, entropy_BT = self.actor.put(seen)
    played = Played(own, replies, experience, entropy_BT, version, {})
    return Collected(played, drawn.asked, counts)

  def _begin(self, params: Params, step: int, version: int, round_: int = 0) -> Begun:
    prompts, ids = next(self._batches)
    rng = jax.random.fold_in(jax.random.key(self._seed), step)
    rng = jax.random.fold_in(rng, round_) if round_ else rng
    policy = {name: params[name] for name in _DRAWING}
    rollout = self.actor.begun(policy, prompts, rng)
    return Begun(policy, version, prompts, ids, rollout, rng)

  def _plain(self, begun: Begun, step: int) -> Found:
    asked = [self._feed.row(name) for name in begun.ids]
    drawn = self._scored(begun, asked)
    return begun.prompts, drawn, asked, {"data/age": _age([drawn], step)}

  def _refilled(self, begun: Begun, step: int) -> Found:
    young, stale = self._young(step)
    parts, flat, asked, rounds = [*young], [], 0, 0
    while True:
      rows = [self._feed.row(name) for name in begun.ids]
      own = self._scored(begun, rows)
      drawn = drawn_lib.everyones(own, rows, self.actor.tokenizer)
      asked += len(rows)
      good = drawn_lib.with_spread(drawn, self._how)
      parts += [drawn_lib.chosen(drawn, [k]) for k in good]
      dull = [k for k in range(len(rows)) if k not in good]
      flat += [drawn_lib.chosen(drawn, [k]) for k in dull]
      if len(parts) >= self._wanted or rounds == self._settings.refill_rounds:
        break
      rounds += 1
      begun = self._begin(begun.policy, step, begun.version, rounds)
    filled = flat[: max(self._wanted - len(parts), 0)]
    if filled:
      logging.warning(
        "step %d: %d of %d groups have no spread after %d rounds more; they teach "
        "nothing but, where there is rewards.overlong, lengths",
        step,
        len(filled),
        self._wanted,
        rounds,
      )
    used, self.left = (parts + filled)[: self._wanted], parts[self._wanted :]
    counts = {
      "data/groups_asked": asked,
      "data/groups_flat": len(flat),
      "data/groups_filled": len(filled),
      "data/groups_stale": stale,
      "data/groups_waiting": len(self.left),
      "data/age": _age(used, step),
    }
    own = drawn_lib.joined(processes.part(used))
    rows = [group.asked[0] for group in used]
    return self._prompts(rows), own, rows, counts

  def _young(self, step: int) -> tuple[list[Drawn], int]:
    """The groups that waited and may still be used, and how many are too old."""
    oldest = step - 1 - self._settings.max_age
    young = [group for group in self.left if group.version_B[0] >= oldest]
    return young, len(self.left) - len(young)

  def _prompts(self, asked: Sequence[Mapping[str, Any]]) -> Batch:
    """This process's, on the host."""
    places = [self._feed.place(row["id"]) for row in asked]
    own = processes.part(places)
    first = processes.index() * len(own)
    return self._feed.batch(
      [[place] for place in own], first_number=first, limits=self._feed.shape(places)
    )

  def _scored(self, begun: Begun, asked: Sequence[Mapping[str, Any]]) -> Drawn:
    """This process's."""
    clocks = [time.perf_counter()]
    own = processes.part(asked)
    rollout = self.actor.heard(begun.policy, own, begun.rollout, begun.rng)
    clocks.append(time.perf_counter())
    drawn = self.actor.scored(begun.prompts, own, rollout, begun.version)
    clocks.append(time.perf_counter())
    for name, taken in zip(self._seconds, np.diff(clocks), strict=True):
      self._seconds[name] += float(taken)
    return drawn


def _age(groups: Sequence[Drawn], step: int) -> float:
  """Mean of the steps learnt since a reply was given."""
  version_B = np.concatenate([group.version_B for group in groups])
  return float((step - 1 - version_B).mean())
