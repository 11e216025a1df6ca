"""The training runs of an ablation: one for each question and seed, and its commands.

All runs of a seed share start, prompts, order and random streams; only the reward's
weights (or the normalisation) differ.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax.ablate.jobs import Job, Task
from stepaudio_jax.ablate.questions import Question
from stepaudio_jax.core import entry, recipe

EVALUATION = "evaluation"
START = "start"


@dataclasses.dataclass(frozen=True)
class Arm:
  """One training run.

  Attributes:
    overrides: {key of the base recipe: what it says on the command line}.
  """

  question: Question
  seed: int
  folder: epath.Path
  overrides: dict[str, str]

  @property
  def name(self) -> str:
    return f"{self.question.name}-seed-{self.seed}"


def base(c: ConfigDict, workdir: epath.Path) -> ConfigDict:
  """The recipe of all runs, without a question's weights.

  Raises:
    ValueError: no such recipe, key or value; or the dimensions are not the recipe's.
  """
  out = entry.recipe_of(c.base)
  recipe.check_loop(out, "algorithm", "train")
  for key, text in _shared(c, workdir).items():
    entry.override(out, key, text)
  learned = sorted(out.rewards.learned)
  unknown = sorted({*c.weights} - {*learned})
  if unknown:
    raise ValueError(
      f"weights of {unknown}: {c.base} has the learned rewards {learned}"
    )
  return out


def _shared(c: ConfigDict, workdir: epath.Path) -> dict[str, str]:
  """The overrides of every run; those of `overrides` come last, so they hold."""
  out = {
    "init": c.init,
    "reward_model": c.reward_model,
    "data.cache": c.cache or str(workdir / "cache"),
  }
  if c.prompts:
    out["data.options.prompts.path"] = c.prompts
  if c.total_steps:
    out["total_steps"] = str(c.total_steps)
  for item in c.overrides:
    key, given, text = item.partition("=")
    if not given:
      raise ValueError(f"overrides: {item!r} is not of the form KEY=VALUE")
    out[key] = text
  return out


def arms(
  c: ConfigDict, workdir: epath.Path, questions: Sequence[Question]
) -> list[Arm]:
  """Of each seed all questions, so that pairs are complete early."""
  learned = base(c, workdir).rewards.learned
  out = []
  for seed in c.seeds:
    for asked in questions:
      weights = {name: asked.weights.get(name, 0.0) for name in learned}
      own = {f"rewards.learned.{name}": str(float(w)) for name, w in weights.items()}
      own["seed"] = str(seed)
      if asked.normalisation:
        own["algorithm.normalisation"] = asked.normalisation
      folder = workdir / "runs" / asked.name / f"seed-{seed}"
      out.append(Arm(asked, seed, folder, _shared(c, workdir) | own))
  return out


def config(c: ConfigDict, arm: Arm) -> ConfigDict:
  """The recipe that an arm runs."""
  out = entry.recipe_of(c.base)
  for key, text in arm.overrides.items():
    entry.override(out, key, text)
  return out


def job(c: ConfigDict, workdir: epath.Path, arm: Arm) -> Job:
  """Training, and where there is a world, what its gold listener says of the end."""
  options = [f"--config.{key}={text}" for key, text in arm.overrides.items()]
  command = ("train_rl", "--config", c.base, "--workdir", str(arm.folder), *options)
  steps = config(c, arm).total_steps
  tasks = [Task("train", _module(*command), lambda: _unfinished(arm.folder, steps))]
  return Job(arm.name, [*tasks, *_gold(c, workdir, str(arm.folder), arm.folder)])


def start_job(c: ConfigDict, workdir: epath.Path) -> list[Job]:
  """What the gold listener says of the start, from which all runs begin."""
  folder = workdir / "runs" / START
  tasks = _gold(c, workdir, c.init, folder)
  return [Job(START, tasks)] if tasks else []


def _gold(
  c: ConfigDict, workdir: epath.Path, checkpoint: str, folder: epath.Path
) -> list[Task]:
  if not c.world.data:
    return []
  out = folder / EVALUATION
  command = ["evaluate", "--checkpoint", checkpoint, "--benchmark", "world", "--data"]
  command += [c.world.data, "--out", str(out), "--no-silence"]
  command += ["--cache", _shared(c, workdir)["data.cache"]]
  command += ["--batch_size", str(c.world.batch_size)]
  command += ["--max_new_tokens", str(c.world.max_new_tokens)]
  command += ["--limit", str(c.world.limit)] if c.world.limit else []
  path = out / "world.json"
  return [Task("gold", _module(*command), lambda: _absent(path))]


def _module(name: str, *arguments: str) -> tuple[str, ...]:
  return (sys.executable, "-m", f"stepaudio_jax.{name}", *arguments)


def _unfinished(folder: epath.Path, steps: int) -> str | None:
  path = folder / "heldout.json"
  if not path.exists():
    return f"{folder} has no heldout.json: the run was interrupted"
  last = json.loads(path.read_text())["steps"][-1]
  return None if last == steps else f"{folder} ended after step {last} of {steps}"


def _absent(path: epath.Path) -> str | None:
  return None if path.exists() else f"there is no {path}"
