"""A reward model on held-out pairs, between its baselines and its ceiling.

How many of the raters' choices follow from the model's rewards, for each dimension,
beside the same model on silence of equal length, beside length alone, and, where the
data knows the truth behind the replies (`gold`, of simulated raters), beside what that
truth predicts: raters are noisy, nobody can predict all of their choices.

What else a reward model owes is in rewards/, a file each: whether its probabilities
hold (calibration), whether a head follows its own dimension and no other (correlation),
whether it hears (sound), what length and place explain (lengths), what it picks among
several candidates (best), and what order swaps change (orders).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from stepaudio_jax import workdirs
from stepaudio_jax.core import noise
from stepaudio_jax.data.comparisons import MIXTURE, OVERALL, Pair
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.data.world import gold, raters
from stepaudio_jax.evals.parts import choices, hearing, tables
from stepaudio_jax.evals.parts import controls as controls_lib
from stepaudio_jax.evals.rewards import (
  best,
  candidates,
  judged,
  optimised,
  orders,
  reading,
  sections,
  statistics,
)
from stepaudio_jax.evals.rewards import plots as plots_lib
from stepaudio_jax.evals.rewards.candidates import Candidates
from stepaudio_jax.workdirs import RewardModel

DEFAULTS = {"batch_size": 32}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
  """How rewards are computed.

  Attributes:
    batch_size: comparisons at a time.
    controls: names of parts/controls.py, a pass over all comparisons each. Silence is
      one of them, since accuracies stand beside it. None: all that the data allow;
      naming one that they do not is an error.
    runs: workdirs of policy gradients whose proxy is told beside gold.
    rollouts: a file of sampled replies (rewards/candidates.py) from which the best of n
      are taken; "" takes the comparisons' own candidates.
    verdicts: a file of a judge's verdicts on the comparisons (rewards/orders.py), ""
      for none.
  """

  batch_size: int
  controls: tuple[str, ...] | None = None
  runs: tuple[str, ...] = ()
  rollouts: str = ""
  verdicts: str = ""

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f"batch_size={self.batch_size} must be at least 1")
    known = controls_lib.names()[1:]
    wrong = [name for name in self.controls or () if name not in known]
    if wrong:
      raise ValueError(f"unknown controls {wrong}; the choices are {known}")
    if self.controls is not None and reading.SILENCE not in self.controls:
      raise ValueError(
        f"controls={self.controls} lack {reading.SILENCE!r}, beside which accuracies "
        "stand"
      )


def load(folder: epath.PathLike) -> RewardModel:
  return workdirs.load_reward_model(folder)


def load_several(folders: Sequence[epath.PathLike]) -> RewardModel:
  return workdirs.load_ensemble(folders)


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
  # What may be wrong comes first.
  optimisation = optimised.curves(options.runs, data)
  drawn = _candidates(options.rollouts, data, model) if options.rollouts else None
  verdicts = orders.read(options.verdicts) if options.verdicts else {}
  frames = hearing.store(model.params, cache)
  asked, found = reading.heard(
    model,
    reading.corpus(data / "preferences-heldout.jsonl"),
    frames,
    cache / "clips",
    batch_size=options.batch_size,
    controls=options.controls,
    limit=limit,
  )
  items = [
    item(
      model, asked.entry(0, k), asked.rows(0, k), {n: x[k] for n, x in found.items()}
    )
    for k in range(len(found["reward"]))
  ]
  names = [name for name in found if name != "reward"]
  settings = {**dataclasses.asdict(options), "limit": limit}
  settings |= {"controls": names, "runs": [*options.runs]}
  told = {**summary(items, model.dimensions, names), "optimised": optimisation}
  if drawn:
    asked, gold_of = drawn
    rewards = reading.candidates(model, asked, frames, options.batch_size)
    told["best_of_n"] |= {
      "of": options.rollouts,
      "curve": best.entry(_groups(rewards, gold_of, model)),
    }
  if verdicts:
    name = best.chosen(model.dimensions)
    judge = orders.of_items(verdicts, items, name)
    told["order"]["judge"] = {"of": options.verdicts, "dimension": name, **judge}
  return {"settings": settings, **told}, items


def _candidates(
  path: str, data: epath.Path, model: RewardModel
) -> tuple[Candidates, dict[str, list[float]]]:
  """Sampled replies, and gold of them by prompt, for the dimension of the best of n.

  Raises:
    ValueError: a file is absent or wrong, or gold does not mark that dimension.
  """
  name = best.chosen(model.dimensions)
  if name not in (OVERALL, *gold.DIMENSIONS):
    raise ValueError(
      f"rollouts={path!r}: gold has no marks of {name!r}, the first dimension; the "
      f"choices are {[OVERALL, *gold.DIMENSIONS]}"
    )
  groups, truths = candidates.read(path), optimised.truths(data)

  def mark(row: Row) -> float:
    if name == OVERALL:
      return optimised.overall(row, truths)
    return optimised.marked(row, truths)[name]

  asked = Candidates(groups, data / "dialogues-heldout.jsonl", model.dimensions)
  return asked, {prompt: [*map(mark, rows)] for prompt, rows in groups.items()}


def _groups(
  rewards: Mapping[str, Mapping[int, np.ndarray]],
  gold_of: Mapping[str, list[float]],
  model: RewardModel,
) -> dict[str, tuple[list[float], list[float]]]:
  place = model.dimensions.index(best.chosen(model.dimensions))
  return {
    prompt: ([float(rewards[prompt][k][place]) for k in range(len(marks))], marks)
    for prompt, marks in gold_of.items()
  }


def keep(step_folder: epath.Path, data: epath.Path, items: Sequence[Row]) -> None:
  """Writes the noise of the rewards beside the model, see core/noise.py."""
  dialogues = judged.dialogues(items)
  entries = {}
  for name in items[0]["dimensions"]:
    rows = [row["dimensions"][name] for row in items]
    gap_N = np.diff(np.asarray([row["reward"] for row in rows]))[:, 0]
    said = [[x for x in row["labels"] if x is not None] for row in rows]
    label_N = np.asarray([np.mean(x) if x else np.nan for x in said])
    entries[name] = noise.measured(gap_N, label_N, dialogues)
  where = str(data / "preferences-heldout.jsonl")
  noise.write(step_folder.parent.parent, int(step_folder.name), where, entries)


def item(
  model: RewardModel,
  pair: Pair,
  rows: Sequence[Preference],
  found: Mapping[str, np.ndarray],
) -> Row:
  """One comparison: what was said, what its raters chose, and the rewards.

  By dimension: `labels` and `scores` of every rater (None: missing), `tokens` of the
  view that is read, `marks` of gold and `gold`, their gap (second minus first; None:
  the data does not know), `reward`, and the rewards with other sound.

  Args:
    found: reward_2C by "reward" and every control.
  """
  labels, scores = (_known(x.T).tolist() for x in (pair.label_JC, pair.score_2JC))
  return {
    "id": pair.id,
    "task_id": rows[0].task_id,
    "turns": sum(message["role"] == "human" for message in rows[0].context),
    "raters": [row.rater for row in rows],
    "candidates": [
      {"text": one.text, "think": one.think, "model": one.model}
      for one in rows[0].candidates
    ],
    "simulated": bool(rows[0].gold and rows[0].gold.get("simulated")),
    "dimensions": {
      name: {
        "labels": labels[c],
        "scores": [list(one) for one in zip(*scores[c], strict=True)],
        "tokens": [len(reply[on_thought]) for reply in pair.replies],
        **{what: reward_2C[:, c].tolist() for what, reward_2C in found.items()},
        "marks": gold_marks(rows[0], name),
        "gold": gold_gap(rows[0], name),
      }
      for c, (name, on_thought) in enumerate(
        zip(model.dimensions, model.on_thought, strict=True)
      )
    },
  }


def _known(values: np.ndarray) -> np.ndarray:
  return np.where(np.isnan(values), None, values)


def gold_marks(row: Preference, dimension: str) -> list[float] | None:
  """What gold says of both replies; None where the row does not hold it.

  That of "overall", and of the mixture, which is to predict the same choices, is the
  mean of the others by the raters' common weights.
  """
  both = [(row.gold or {}).get(one.cid, {}) for one in row.candidates]
  weights = _weights(dimension)
  if not all(set(weights) <= set(marks) for marks in both):
    return None
  total = sum(weights.values())
  return [
    sum(weights[name] * marks[name] for name in weights) / total for marks in both
  ]


def gold_gap(row: Preference, dimension: str) -> float | None:
  """True gap of a pair, second minus first; None where the row does not hold it."""
  first, second = ((row.gold or {}).get(one.cid, {}) for one in row.candidates)
  weights = _weights(dimension)
  if not set(weights) <= set(first) & set(second):
    return None
  gaps = (weight * (second[name] - first[name]) for name, weight in weights.items())
  return sum(gaps) / sum(weights.values())


def _weights(dimension: str) -> Mapping[str, float]:
  return raters.WEIGHTS if dimension in (OVERALL, MIXTURE) else {dimension: 1.0}


def summary(
  items: Sequence[Row], dimensions: Sequence[str], controls: Sequence[str]
) -> Row:
  """For each dimension the model's accuracy, baselines, ceiling, and the rest.

  Nothing can be told of dimensions in which nobody has decided anything: they stand in
  "undecided".

  Raises:
    ValueError: there is no other.
  """
  undecided = [name for name in dimensions if not _decided(items, name)]
  if len(undecided) == len(dimensions):
    raise ValueError(
      f"no decided choice of any of {undecided} in {len(items)} comparisons"
    )
  dialogues = judged.dialogues(items)
  simulated = all(row["simulated"] for row in items)
  known = [name for name in dimensions if name not in undecided]
  heads = [judged.judged(items, name, controls) for name in known]
  return {
    "simulated": simulated,
    "comparisons": len(items),
    "dialogues": len(set(dialogues)),
    "raters": len({rater for row in items for rater in row["raters"]}),
    "undecided": undecided,
    "dimensions": {
      one.name: {
        **choices.entry([row["dimensions"][one.name] for row in items], dialogues),
        **statistics.dimension(one, simulated=simulated),
      }
      for one in heads
    },
    **statistics.whole(items, heads, best.chosen(dimensions)),
  }


def _decided(items: Sequence[Row], name: str) -> bool:
  """Whether a label of the dimension is there, and no tie."""
  return any(label for row in items for label in row["dimensions"][name]["labels"])


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
      f"on silence of equal length. {note}{_told_of(result['undecided'])}",
      choices.accuracy_table(result["dimensions"]),
      "By strength of the choice; ties apart: the mean gap of the rewards.",
      choices.strength_table(result["dimensions"]),
      *sections.sections(result),
      f"Settings: {tables.told(result['settings'])}.",
      "",
    ]
  )


def _told_of(undecided: Sequence[str]) -> str:
  names = ", ".join(undecided)
  return f" Nobody decided anything in {names}: not told of." if undecided else ""


def plot(result: Row) -> Figure:
  """Accuracies beside both baselines, with a tick at the ceiling."""
  who = "simulated raters" if result["simulated"] else "raters"
  return choices.accuracy_bars(f"reward model: choices of {who}", result["dimensions"])


def plots(result: Row) -> dict[str, Callable[[], Figure]]:
  """Further pictures, by name."""
  return plots_lib.plots(result)
