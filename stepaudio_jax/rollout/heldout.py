"""The policy's own objective on held-out prompts, before, during and after training."""

from typing import Any

import jax
import numpy as np

from stepaudio_jax.core import processes
from stepaudio_jax.core.types import Params
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.rl.parts.dimensions import Combining
from stepaudio_jax.rollout import summary
from stepaudio_jax.rollout.actor import Actor


class Exam:
  """The same prompts with the same random streams, whenever it is held.

  Args:
    feed: of prompts; the first `count`, each set's in turn, are asked.
    batch_size: prompts at a time; `count` is a multiple of it.
    how: the dimensions make an advantage, for the rows.

  Raises:
    ValueError: the feed has fewer prompts.
  """

  def __init__(
    self,
    feed: Examples,
    count: int,
    batch_size: int,
    actor: Actor,
    how: Combining = summary.PLAIN,
  ):
    places = [(s, k) for s, length in enumerate(feed.counts) for k in range(length)]
    if len(places) < count:
      raise ValueError(f"heldout.prompts={count}, but only {len(places)} fit")
    self._feed, self._actor, self._size = feed, actor, batch_size
    self._places, self._how = places[:count], how

  def due(self, step: int, every_steps: int, last: int) -> bool:
    """At the end, and after each multiple of `every_steps` (0: at no other time)."""
    return step == last or (every_steps > 0 and step % every_steps == 0)

  def rows(self, params: Params, step: int, seed: int) -> list[dict[str, Any]]:
    """Rollout rows of all prompts; `sample` numbers their rollout seeds."""
    out = []
    for start in range(0, len(self._places), self._size):
      places = self._places[start : start + self._size]
      asked = [self._feed.row(self._feed.entry(*place).id) for place in places]
      own = processes.part(places)
      prompts = self._feed.batch(
        [[place] for place in own], first_number=0, limits=self._feed.shape(places)
      )
      # Training folds in its steps, which begin at 1.
      rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), start)
      played = self._actor.play(params, prompts, processes.part(asked), rng, step)
      whole = self._actor.whole(played, asked)
      advantage_BT = whole.experience.advantage_BT
      out += summary.rows(step, whole, advantage_BT, len(asked), self._how)
    return out


def compared(rows: list[dict[str, Any]], draws: int = 2000) -> dict[str, Any]:
  """End against start: paired by prompt, means over its rollout seeds.

  Returns:
    By "objective", "tokens", "kl", "entropy" and every reward: start and end, and the
    mean difference with its 95 % interval by the bootstrap over prompts. Replies that
    miss a value are left out of it and counted in "missing".
  """
  first, last = min(r["step"] for r in rows), max(r["step"] for r in rows)
  names = ["objective", "tokens", "kl", "entropy"]
  names += [f"reward/{name}" for name in rows[0]["reward"]]
  before, after = (
    {name: _by_prompt(rows, step, name) for name in names} for step in (first, last)
  )
  out: dict[str, Any] = {"steps": [first, last], "prompts": len(before["objective"])}
  for name in names:
    out[name] = _paired(before[name], after[name], draws)
    missing = sum(_value(row, name) is None for row in rows)
    out[name]["missing"] = missing
  return out


def _by_prompt(rows: list[dict[str, Any]], step: int, name: str) -> dict[str, float]:
  found: dict[str, list[float]] = {}
  for row in rows:
    if row["step"] == step:
      value = _value(row, name)
      found.setdefault(row["prompt_id"], []).extend([] if value is None else [value])
  return {key: float(np.mean(x)) if x else float("nan") for key, x in found.items()}


def _value(row: dict[str, Any], name: str) -> float | None:
  kind, _, dimension = name.partition("/")
  return row[kind][dimension] if dimension else row[kind]


def _paired(before: dict[str, float], after: dict[str, float], draws: int) -> Any:
  pairs = np.asarray([[before[key], after[key]] for key in sorted(before)])
  pairs = pairs[np.isfinite(pairs).all(axis=1)]
  if not len(pairs):
    return {"start": None, "end": None, "gain": None, "low": None, "high": None}
  gain = pairs[:, 1] - pairs[:, 0]
  rng = np.random.default_rng(0)
  means = gain[rng.integers(0, len(gain), (draws, len(gain)))].mean(axis=1)
  low, high = np.quantile(means, [0.025, 0.975])
  start, end = pairs.mean(axis=0)
  values = {"start": start, "end": end, "gain": gain.mean(), "low": low, "high": high}
  return {name: float(value) for name, value in values.items()}


def table(result: dict[str, Any]) -> str:
  """The comparison as lines of text."""
  start, end = result["steps"]
  lines = [f"held-out prompts ({result['prompts']}), step {start} → {end}:"]
  known = {
    name: row
    for name, row in result.items()
    if isinstance(row, dict) and row["gain"] is not None
  }
  width = max([28, *map(len, known)])
  for name, row in known.items():
    lines.append(
      f"  {name:{width}s} {row['start']:8.3f} → {row['end']:8.3f}   "
      f"{row['gain']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    )
  return "\n".join(lines)
