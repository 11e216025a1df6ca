"""A reward model on held-out pairs, between its baselines and its ceiling.

How many of the raters' choices follow from the model's rewards, for each dimension,
beside the same model on silence of equal length, beside length alone, and, where the
data knows the truth behind the replies (`gold`, of simulated raters), beside what that
truth predicts: raters are noisy, nobody can predict all of their choices.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import scoring, workdirs
from stepaudio_jax.core import progress
from stepaudio_jax.data.comparisons import OVERALL, Pair, PairLimits, Pairs
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.data.world import raters
from stepaudio_jax.evals.parts import choices, hearing, tables
from stepaudio_jax.models.heads import RewardHeads
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.workdirs import RewardModel

DEFAULTS = {"batch_size": 32}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
  """How rewards are computed: `batch_size` comparisons at a time."""

  batch_size: int

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f"batch_size={self.batch_size} must be at least 1")


def load(folder: epath.PathLike) -> RewardModel:
  return workdirs.load_reward_model(folder)


def evaluate(
  model: RewardModel,
  data: epath.Path,
  *,
  cache: epath.Path,
  options: Options,
  limit: int | None = None,
) -> tuple[Row, list[Row]]:
  """Scores a reward model on preferences-heldout.jsonl.

  Args:
    cache: where encoder frames are kept.
    limit: only the first so many comparisons.

  Returns:
    The summary, and its items, one of each comparison.

  Raises:
    ValueError: the file is absent or wrong, or lacks a dimension of the model.
  """
  if limit is not None and limit < 1:
    raise ValueError(f"limit={limit} must be at least 1, or None for all")
  corpus = _corpus(data / "preferences-heldout.jsonl")
  clips = corpus.clips()
  frames = hearing.store(model.params, cache)
  hearing.fill(frames, clips, model.params, model.size)
  silence = hearing.silenced(frames, clips, model.params, model.size)
  heard = _pairs(corpus, frames, model, PairLimits())
  quiet = _pairs(corpus, silence, model, heard.limits)
  places = [(0, index) for index in range(heard.counts[0])][:limit]
  reward_N2C, silent_N2C = (
    _rewards(model, feed, places, options.batch_size, what)
    for feed, what in ((heard, "audio"), (quiet, "silence"))
  )
  items = [
    item(model, heard.entry(*place), heard.rows(*place), reward_2C, silent_2C)
    for place, reward_2C, silent_2C in zip(places, reward_N2C, silent_N2C, strict=True)
  ]
  settings = {**dataclasses.asdict(options), "limit": limit}
  return {"settings": settings, **summary(items, model.dimensions)}, items


def _corpus(path: epath.Path) -> Corpus:
  literal = str(path).replace("{", "{{").replace("}", "}}")
  options = {"preference": {"path": literal}}
  return Corpus({"preference": 1.0}, options, "heldout", Preference)


def _pairs(corpus: Corpus, frames: Any, model: RewardModel, limits: PairLimits):
  return Pairs(
    corpus,
    frames,
    model.tokenizer,
    limits,
    dimensions=model.dimensions,
    encoder_width=model.size.encoder_width,
  )


def _rewards(
  model: RewardModel,
  feed: Pairs,
  places: Sequence[tuple[int, int]],
  batch_size: int,
  what: str,
) -> np.ndarray:
  """reward_N2C of the comparisons at these places."""
  heads = RewardHeads(len(model.dimensions))
  score = jax.jit(
    functools.partial(
      scoring.rewards, StepAudio(model.size), heads, on_thought=model.on_thought
    )
  )
  params = jax.device_put(
    {part: model.params[part] for part in ("adaptor", "decoder", "rewards")}
  )
  out = []
  for start in progress.bar(range(0, len(places), batch_size), what, "batch"):
    asked = places[start : start + batch_size]
    rows = [[place] for place in asked] + [[]] * (batch_size - len(asked))
    reward_B2C = np.asarray(score(params, feed.batch(rows, start).replies))
    if not np.isfinite(reward_B2C[: len(asked)]).all():
      names = [feed.entry(*place).id for place in asked]
      raise FloatingPointError(f"the model's rewards are not finite on {names}")
    out.append(reward_B2C[: len(asked)])
  return np.concatenate(out)


def item(
  model: RewardModel,
  pair: Pair,
  rows: Sequence[Preference],
  reward_2C: np.ndarray,
  silent_2C: np.ndarray,
) -> Row:
  """One comparison: what was said, what its raters chose, and the rewards.

  By dimension: `labels` of every rater (None: missing), `tokens` of the view that is
  read, and `gold`, the true gap (second minus first; None: the data does not know).
  """
  labels = np.where(np.isnan(pair.label_JC), None, pair.label_JC).T.tolist()
  return {
    "id": pair.id,
    "task_id": rows[0].task_id,
    "raters": [row.rater for row in rows],
    "candidates": [
      {"text": one.text, "think": one.think, "model": one.model}
      for one in rows[0].candidates
    ],
    "simulated": bool(rows[0].gold and rows[0].gold.get("simulated")),
    "dimensions": {
      name: {
        "labels": labels[c],
        "tokens": [len(reply[on_thought]) for reply in pair.replies],
        "reward": reward_2C[:, c].tolist(),
        "silence": silent_2C[:, c].tolist(),
        "gold": gold_gap(rows[0], name),
      }
      for c, (name, on_thought) in enumerate(
        zip(model.dimensions, model.on_thought, strict=True)
      )
    },
  }


def gold_gap(row: Preference, dimension: str) -> float | None:
  """True gap of a pair, second minus first; None where the row does not hold it.

  That of "overall" is the mean of the others by the raters' common weights.
  """
  first, second = ((row.gold or {}).get(one.cid, {}) for one in row.candidates)
  weights = raters.WEIGHTS if dimension == OVERALL else {dimension: 1.0}
  if not set(weights) <= set(first) & set(second):
    return None
  gaps = (weight * (second[name] - first[name]) for name, weight in weights.items())
  return sum(gaps) / sum(weights.values())


def summary(items: Sequence[Row], dimensions: Sequence[str]) -> Row:
  """For each dimension the model's accuracy, baselines, ceiling and ties."""
  dialogues = [row["task_id"] for row in items]
  return {
    "simulated": all(row["simulated"] for row in items),
    "comparisons": len(items),
    "dialogues": len(set(dialogues)),
    "raters": len({rater for row in items for rater in row["raters"]}),
    "dimensions": {
      name: choices.entry([row["dimensions"][name] for row in items], dialogues)
      for name in dimensions
    },
  }


def page(result: Row) -> str:
  """The summary in Markdown."""
  note = (
    "The raters are simulated; the ceiling is what the truth behind the replies "
    "predicts of their choices, and `way` how much of the way from 50 % to it is gone."
    if result["simulated"]
    else "The raters are people, or the data does not say otherwise."
  )
  return "\n\n".join(
    [
      "# reward_model" + (" (simulated raters)" if result["simulated"] else ""),
      f"Checkpoint `{result['checkpoint']}`. {result['comparisons']} held-out "
      f"comparisons of {result['dialogues']} dialogues by {result['raters']} raters. "
      "Accuracy: decided choices that the rewards predict, equal rewards count half; "
      "95 % intervals by bootstrap over dialogues. Length alone: the longer, or the "
      "shorter, whichever does better on these very choices. Silence: the same model "
      f"on silence of equal length. {note}",
      choices.accuracy_table(result["dimensions"]),
      "By strength of the choice; ties apart: the mean gap of the rewards.",
      choices.strength_table(result["dimensions"]),
      f"Settings: {tables.told(result['settings'])}.",
      "",
    ]
  )


def plot(result: Row) -> Figure:
  """Accuracies beside both baselines, with a tick at the ceiling."""
  who = "simulated raters" if result["simulated"] else "raters"
  return choices.accuracy_bars(f"reward model: choices of {who}", result["dimensions"])
