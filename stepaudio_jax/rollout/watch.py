"""Warnings of a run: dead rewards, rewards by length, lost entropy, a KL that runs off.

Hazards of a learned reward (training.md §4) that no loss shows. Every step is looked
at; each thing is warned of once a run, in the log and in `warnings.jsonl`. A resumed
run goes on with what it had seen.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from stepaudio_jax.core import processes, ranks
from stepaudio_jax.core.ranks import Sums
from stepaudio_jax.rollout.drawn import Drawn

OBJECTIVE = "objective"
_LEAST_GROUPS = 10  # of which a correlation is believed

Values = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Limits:
  """From where on there is a warning; 0 turns one off.

  Attributes:
    window: steps that are looked at together.
    no_spread: share of the groups in which a reward with a weight says nothing, above
      which it is dead, if so in every step of a window.
    length_rho: size of Spearman's ρ between a learned reward, or the objective, and the
      tokens of replies to one prompt; the 95 % interval must lie beyond it.
    entropy: share of the first window's entropy, below which it has collapsed.
    kl: nats per token to the reference, mean over the window.
  """

  window: int
  no_spread: float
  length_rho: float
  entropy: float
  kl: float

  def __post_init__(self):
    shares = {"no_spread": self.no_spread, "entropy": self.entropy}
    shares["length_rho"] = self.length_rho
    odd = [f"log.warn.{name}={x}" for name, x in shares.items() if not 0 <= x < 1]
    if odd or self.window < 1 or not 0 <= self.kl < math.inf:
      raise ValueError(
        f"{', '.join(odd) or self}: log.warn.window is at least 1, shares and "
        "correlations lie from 0 (off) to below 1, and log.warn.kl from 0 (off)"
      )


KEYS = tuple(field.name for field in dataclasses.fields(Limits))


class Watch:
  """What a run has seen of its hazards.

  Args:
    learned: names of rewards that a model gives, by heads or as a judge.
  """

  def __init__(self, limits: Limits, learned: Sequence[str]):
    self._limits, self._learned = limits, tuple(learned)
    self._length: dict[str, list[Sums]] = {}
    self._flat: dict[str, int] = {}  # steps behind each other without spread
    self._first: list[float] = []  # entropies
    self._last: dict[str, list[float]] = {"entropy": [], "kl": []}
    self._given: list[str] = []

  def look(
    self, step: int, drawn: Drawn, values: Mapping[str, float]
  ) -> tuple[Values, list[dict[str, Any]]]:
    """What is to be logged of a step, and its warnings as rows.

    Args:
      drawn: all processes' replies.
      values: summary.summary's.
    """
    found, rows = self._lengths(drawn)
    rows += self._dead(drawn, values)
    rows += self._policy(values)
    new = [row for row in rows if f"{row['kind']}/{row['name']}" not in self._given]
    for row in new:
      self._given.append(f"{row['kind']}/{row['name']}")
      if processes.first():
        logging.warning("step %d: %s", step, row["text"])
    found["reward/warnings"] = float(len(self._given))
    return found, [{"step": step, **row} for row in new]

  def state(self) -> dict[str, Any]:
    """What `load` needs after a checkpoint, as JSON."""
    return {
      "length": {name: [[*one] for one in kept] for name, kept in self._length.items()},
      "flat": dict(self._flat),
      "first": [*self._first],
      "last": {name: [*kept] for name, kept in self._last.items()},
      "given": [*self._given],
    }

  def load(self, state: Mapping[str, Any]) -> None:
    """Goes on where `state` was taken."""
    length = state["length"].items()
    self._length = {name: [Sums(*one) for one in kept] for name, kept in length}
    self._flat, self._given = dict(state["flat"]), [*state["given"]]
    self._first = [*state["first"]]
    self._last = {name: [*kept] for name, kept in state["last"].items()}

  def _lengths(self, drawn: Drawn) -> tuple[Values, list[dict[str, Any]]]:
    """Correlations with the length within groups, over the window."""
    scores, values, rows = drawn.scores, {}, []
    columns = {
      name: (scores.reward_BC[:, k], bool((scores.weight_BC[:, k] != 0).any()))
      for k, name in enumerate(scores.names)
      if name in self._learned
    }
    columns[OBJECTIVE] = (scores.objective_B, True)
    shape = (-1, drawn.samples)
    tokens_PG = drawn.rollout.count_B.astype(np.float64).reshape(shape)
    for name, (reward_B, counts) in columns.items():
      new = ranks.sums(ranks.within(reward_B.reshape(shape), tokens_PG))
      kept = self._kept(self._length.setdefault(name, []), new)
      rho, low, high = ranks.mean(kept)
      values[f"reward/{name}/length_rho"] = rho
      values[f"reward/{name}/length_rho_low"] = low
      values[f"reward/{name}/length_rho_high"] = high
      enough = sum(one.count for one in kept) >= _LEAST_GROUPS
      if counts and enough and max(low, -high) > self._limits.length_rho > 0:
        text = (
          f"{_told(name)} goes with the length of the reply: ρ {rho:+.2f} "
          f"[{low:+.2f}, {high:+.2f}] within the groups of the last {len(kept)} steps "
          f"(log.warn.length_rho={self._limits.length_rho:g})"
        )
        rows.append({"kind": "length", "name": name, "value": rho, "text": text})
    return values, rows

  def _dead(self, drawn: Drawn, values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rewards with a weight that tell no replies apart."""
    limit, rows, scores = self._limits.no_spread, [], drawn.scores
    for k, name in enumerate(scores.names):
      flat = f"reward/{name}/no_spread"
      if flat not in values or not (scores.weight_BC[:, k] != 0).any():
        continue
      dead = values[flat] > limit > 0
      self._flat[name] = (self._flat.get(name, 0) + 1) if dead else 0
      if self._flat[name] >= self._limits.window:
        text = (
          f"{_told(name)} is dead: in {values[flat]:.0%} of the groups its replies "
          f"differ by no more than its floor, and so for {self._flat[name]} steps "
          f"(log.warn.no_spread={limit:g})"
        )
        value = values[flat]
        rows.append({"kind": "dead", "name": name, "value": value, "text": text})
    return rows

  def _policy(self, values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Entropy against the first window's, and KL."""
    rows, limits = [], self._limits
    entropy, kl = values["train/entropy"], values["train/kl_k3"]
    if len(self._first) < limits.window:
      self._first.append(entropy)
    now = float(np.mean(self._kept(self._last["entropy"], entropy)))
    begun = float(np.mean(self._first))
    if now < limits.entropy * begun:
      text = (
        f"entropy has collapsed: {now:.3g} nats per token, {now / begun:.0%} of the "
        f"{begun:.3g} of the first steps (log.warn.entropy={limits.entropy:g})"
      )
      rows.append({"kind": "entropy", "name": "policy", "value": now, "text": text})
    far = float(np.mean(self._kept(self._last["kl"], kl)))
    if far > limits.kl > 0:
      text = (
        f"the policy has run off: {far:.3g} nats per token from the reference "
        f"(log.warn.kl={limits.kl:g})"
      )
      rows.append({"kind": "kl", "name": "policy", "value": far, "text": text})
    return rows

  def _kept(self, values: list, new: Any) -> list:
    """The window's values with the new one; changes the list itself."""
    values.append(new)
    del values[: -self._limits.window]
    return values


def _told(name: str) -> str:
  return "the objective" if name == OBJECTIVE else f"reward {name!r}"
