"""The replies that a policy-gradient run kept, as arrays to be rewarded anew."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import learner, logs, rl
from stepaudio_jax.ablate.questions import Question
from stepaudio_jax.core.types import Experience

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Step:
  """The replies of one step, those to a prompt behind each other.

  Attributes:
    prompts: their ids, one a group.
    token_BT, count_B, mask_BT, logprob_BT: see types.Rollout.
    reward_BC, weight_BC: as the run itself had them.
    advantage_B: of the run itself, NaN where a reply was masked.
  """

  number: int
  prompts: Sequence[str]
  token_BT: np.ndarray
  count_B: np.ndarray
  mask_BT: np.ndarray
  logprob_BT: np.ndarray
  reward_BC: np.ndarray
  weight_BC: np.ndarray
  advantage_B: np.ndarray


@dataclasses.dataclass(frozen=True)
class Saved:
  """A run's replies.

  Attributes:
    config: the run's.
    names: of the reward's dimensions.
  """

  folder: epath.Path
  config: ConfigDict
  names: tuple[str, ...]
  steps: Sequence[Step]

  @property
  def algorithm(self) -> ModuleType:
    return rl.load(self.config.algorithm.name)

  @property
  def samples(self) -> int:
    return self.config.sampling.samples

  @property
  def prompts(self) -> list[str]:
    """The id of each group's prompt, of all steps."""
    return [name for step in self.steps for name in step.prompts]


def load(folder: epath.PathLike, last_step: int = 0) -> Saved:
  """The replies that a run left in samples.jsonl.

  Args:
    last_step: later ones are left out; 0: none.

  Raises:
    ValueError: there is no such run, or its rows cannot be rewarded anew.
  """
  folder = epath.Path(folder)
  path, kept = folder / "config.json", folder / "samples.jsonl"
  if not path.exists() or not kept.exists():
    raise ValueError(
      f"{folder} is no run of train_rl: {path.name} or {kept.name} lacks"
    )
  config = nested(json.loads(path.read_text())["config"])
  _check(folder, config)
  rows = [r for r in logs.read_metrics(kept) if not last_step or r["step"] <= last_step]
  if not rows:
    raise ValueError(f"{kept} has no replies up to step {last_step or 'the last'}")
  names = tuple(rows[0]["reward"])
  known = _weights(folder, config, names, rows)
  steps = [
    _step(config, number, [*some], names, known)
    for number, some in itertools.groupby(rows, key=lambda row: row["step"])
  ]
  return Saved(folder, config, names, steps)


def nested(flat: Mapping[str, Any]) -> ConfigDict:
  """A config of {"optim.lr": 1e-3, …}; a part without any key is gone."""
  out: Row = {}
  for key, value in flat.items():
    *parents, name = key.split(".")
    place = out
    for parent in parents:
      place = place.setdefault(parent, {})
    place[name] = tuple(value) if isinstance(value, list) else value
  return ConfigDict(out)


# Parts of a run's rewards, absent in older ones, that weights alone do not tell.
_COMBINED = {"noise": "fixed", "veto": None}


def _check(folder: epath.Path, c: ConfigDict) -> None:
  if "algorithm" not in c:
    raise ValueError(f"{folder} holds a run of stage {c.stage!r}, not one of train_rl")
  if rl.load(c.algorithm.name).CRITIC:
    raise ValueError(
      f"{folder}: the advantages of {c.algorithm.name!r} need its critic's values, "
      "which no row has; train with another algorithm, such as 'grpo'"
    )
  if c.kl.where == "reward":
    raise ValueError(
      f"{folder}: with kl.where='reward' advantages need the reference's "
      "log-probabilities, which no row has; only 'loss' can be rewarded anew"
    )
  unlike = [
    key for key, usual in _COMBINED.items() if c.rewards.get(key, usual) != usual
  ]
  if unlike:
    raise ValueError(
      f"{folder}: its rewards were combined by {unlike} of its config's rewards, which "
      "is not done here; only plain weights and floors can be rewarded anew"
    )


def _weights(
  folder: epath.Path, c: ConfigDict, names: Sequence[str], rows: Sequence[Row]
) -> dict[str, float] | None:
  """The learned dimensions' weights where the rows do not tell all of them."""
  if all("weight" in row for row in rows):
    return None
  learned = c.rewards.learned.to_dict() if "learned" in c.rewards else {}
  if {*learned} != {*names}:
    raise ValueError(
      f"{folder}: its rows have no 'weight' (an earlier version wrote them), and "
      f"{sorted({*names} - {*learned})} are no learned dimensions of its config"
    )
  return learned


def _step(
  c: ConfigDict,
  number: int,
  rows: Sequence[Row],
  names: Sequence[str],
  known: Mapping[str, float] | None,
) -> Step:
  samples, width = c.sampling.samples, c.sampling.max_new_tokens
  groups = [rows[k : k + samples] for k in range(0, len(rows), samples)]
  prompts = [_asked(group[0]) for group in groups]
  wrong = [
    name
    for name, group in zip(prompts, groups, strict=True)
    if [row["sample"] for row in group] != [*range(samples)]
    or {_asked(row) for row in group} != {name}
  ]
  if wrong:
    raise ValueError(f"step {number}: {wrong} have not {samples} replies side by side")
  token_BT = np.zeros((len(rows), width), np.int32)
  logprob_BT = np.zeros((len(rows), width), np.float32)
  mask_BT = np.zeros((len(rows), width), bool)
  for k, row in enumerate(rows):
    count = len(row["token_ids"])
    token_BT[k, :count], logprob_BT[k, :count] = row["token_ids"], row["logprobs"]
    mask_BT[k, :count] = True
    mask_BT[k, row.get("forced", [])] = False
  return Step(
    number,
    prompts,
    token_BT,
    np.asarray([len(row["token_ids"]) for row in rows], np.int32),
    mask_BT,
    logprob_BT,
    _column([row["reward"] for row in rows], names),
    _column([known or row["weight"] for row in rows], names),
    np.asarray([_number(row["advantage"]) for row in rows], np.float32),
  )


def _asked(row: Row) -> str:
  """What the replies of a group answer: one turn where a dialogue is played."""
  return f"{row['prompt_id']} turn {row['turn']}" if "turn" in row else row["prompt_id"]


def _column(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
  return np.asarray([[_number(row[n]) for n in names] for row in rows], np.float32)


def _number(value: float | None) -> float:
  return float("nan") if value is None else value


def weighed(saved: Saved, step: Step, weights: Mapping[str, float]) -> np.ndarray:
  """weight_BC of a step under other weights of the learned dimensions.

  What a prompt's rubric made of the learned weights stays, of those too that were 0;
  rules and other rewards keep theirs; learned dimensions that are not named have none.

  Raises:
    ValueError: a dimension that the run has not; its own are listed.
  """
  learned = _learned(saved)
  unknown = sorted({*weights} - {*learned})
  if unknown:
    raise ValueError(
      f"{saved.folder} has no learned reward {unknown}; it has {sorted(learned)}"
    )
  out_BC, factor_B = step.weight_BC.copy(), np.ones(len(step.weight_BC), np.float32)
  for k, name in enumerate(saved.names):
    if learned.get(name):
      factor_B = step.weight_BC[:, k] / learned[name]
  for k, name in enumerate(saved.names):
    if name in learned:
      out_BC[:, k] = factor_B * weights.get(name, 0.0)
  return out_BC


def unnamed(saved: Saved, weights: Mapping[str, float]) -> dict[str, float]:
  """The run's own weights of learned dimensions that `weights` leaves out."""
  learned = _learned(saved)
  return {name: w for name, w in learned.items() if w and name not in weights}


def _learned(saved: Saved) -> dict[str, float]:
  rewards = saved.config.rewards
  return rewards.learned.to_dict() if "learned" in rewards else {}


def advised(
  saved: Saved, step: Step, weight_BC: np.ndarray, normalisation: str | None = None
) -> Experience:
  """The step's replies with the advantages that the run's algorithm gives them.

  Args:
    normalisation: in place of the run's own.
  """
  c = saved.config
  if normalisation is not None:
    c = c.copy_and_resolve_references()
    c.algorithm.normalisation = normalisation
  zero_BT = jnp.zeros(step.mask_BT.shape, jnp.float32)
  experience = Experience(
    mask_BT=jnp.asarray(step.mask_BT),
    sampler_BT=jnp.asarray(step.logprob_BT),
    old_BT=jnp.asarray(step.logprob_BT),
    reference_BT=zero_BT,
    reward_BC=jnp.asarray(step.reward_BC),
    weight_BC=jnp.asarray(weight_BC),
    value_BT=zero_BT,
    advantage_BT=zero_BT,
    return_BT=zero_BT,
  )
  return learner.advised(c, saved.algorithm, experience, 0.0)


def of_question(saved: Saved, step: Step, asked: Question) -> Experience:
  """`advised` under a question's reward."""
  weight_BC = weighed(saved, step, asked.weights)
  return advised(saved, step, weight_BC, asked.normalisation)


def by_reply(experience: Experience) -> np.ndarray:
  """advantage_B, alike on all tokens of a reply; NaN where the reply is masked."""
  mask_BT = np.asarray(experience.mask_BT)
  first_B = mask_BT.argmax(1)
  advantage_B = np.asarray(experience.advantage_BT)[np.arange(len(first_B)), first_B]
  return np.where(mask_BT.any(1), advantage_B, np.nan)


def normalisations(algorithm: ModuleType) -> tuple[str, ...]:
  """Those that an algorithm lets the user choose from."""
  return ("sum", "gdpo") if "normalisation" in algorithm.DEFAULTS else ()
