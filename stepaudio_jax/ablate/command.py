"""The whole ablation: runs, then what saved replies say, then tables and figures."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import logs
from stepaudio_jax.ablate import (
  arms,
  gradients,
  jobs,
  pages,
  ranking,
  runs,
  saved,
  settings,
)
from stepaudio_jax.ablate.arms import Arm
from stepaudio_jax.ablate.questions import CONTROL, Question
from stepaudio_jax.core import entry, recipe

# Runs of one ablation compile the same programs.
_PROGRAMS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}

Row = dict[str, Any]


class Failed(RuntimeError):
  """Some runs failed; the tables are made of the others."""


def run(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Does what is not done yet and returns the path of ablation.json.

  Raises:
    Failed: runs did; the tables, made of all others, tell which.
  """
  workdir = epath.Path(workdir)
  c = settings.checked(config.copy_and_resolve_references(), workdir)
  if c.questions:
    settings.check_folders(c)
  logs.check_workdir(workdir, c, free=settings.FREE)
  flat = recipe.flat(c)
  workdir.mkdir(parents=True, exist_ok=True)
  logs.write_json(
    workdir / "config.json", {"hash": logs.config_hash(flat), "config": flat}
  )
  asked = settings.trained(c, workdir)
  made = arms.arms(c, workdir, asked) if asked else []
  states = _run(c, workdir, made) if made else {}
  # Not before: it asks JAX for the devices, which the runs may have needed.
  logs.record(workdir, c)
  entry.compilation_cache(workdir / "xla_cache")
  found: Row = {"config": flat, "runs": states, "start": {}}
  found["questions"] = {one.name: _described(one) for one in asked[1:]}
  _add_effects(found, c, workdir, made, asked)
  pages.write(workdir, found)  # whatever comes of the rest
  _add_offline(found, c, workdir, made)
  pages.write(workdir, found)
  failed = [name for name, one in states.items() if one["state"] == "failed"]
  if failed:
    raise Failed(
      f"{len(failed)} of {len(states)} jobs failed: {failed}; "
      f"{workdir / 'ablation.md'} is made of the others, and the same command tries "
      "these again"
    )
  return workdir / "ablation.json"


def _described(asked: Question) -> Row:
  return {"weights": dict(asked.weights), "normalisation": asked.normalisation}


def _run(c: ConfigDict, workdir: epath.Path, made: Sequence[Arm]) -> Row:
  shared = {"JAX_COMPILATION_CACHE_DIR": str(workdir / "xla_cache")} | _PROGRAMS
  variables = [shared | {c.device_variable: name} for name in c.devices] or [shared]
  wanted = [*arms.start_job(c, workdir), *(arms.job(c, workdir, arm) for arm in made)]
  return jobs.run(
    wanted,
    workdir / "jobs",
    slots=jobs.at_a_time(c.parallel, c.devices),
    variables=variables,
  )


def _add_effects(
  found: Row,
  c: ConfigDict,
  workdir: epath.Path,
  made: Sequence[Arm],
  asked: Sequence[Question],
) -> None:
  weights = c.weights.to_dict()
  done = {
    arm.name: runs.measured(arm.folder, weights)
    for arm in made
    if found["runs"][arm.name]["state"] == "done"
  }
  by_question = {q.name: [a for a in made if a.question.name == q.name] for q in asked}
  for one in asked[1:]:
    found["questions"][one.name]["effects"] = runs.effects(
      done, by_question[CONTROL], by_question[one.name], c.offline.draws
    )
  for name in done:
    found["runs"][name]["means"] = runs.means(done[name])
  found["start"] = runs.means(runs.gold(workdir / "runs" / arms.START))


def _add_offline(
  found: Row, c: ConfigDict, workdir: epath.Path, made: Sequence[Arm]
) -> None:
  """Of the runs that are named, or else of the control's."""
  asked = settings.offline(c)
  folders = [epath.Path(folder) for folder in c.offline.runs] or [
    arm.folder
    for arm in made
    if arm.question.name == CONTROL and found["runs"][arm.name]["state"] == "done"
  ]
  if not asked or not folders:
    if asked:
      logging.warning("no control's run is done: nothing to ask of saved replies")
    return
  known = _known(workdir, c, folders, asked)
  for one in asked[1:]:
    row = found["questions"].setdefault(one.name, _described(one))
    row["offline"] = known["questions"][one.name]
  found["offline"] = {key: known[key] for key in known if key != "questions"}


def _known(
  workdir: epath.Path,
  c: ConfigDict,
  folders: Sequence[epath.Path],
  asked: Sequence[Question],
) -> Row:
  """What offline.json has of these very replies and questions, or it is made."""
  path, key = workdir / "offline.json", hashlib.blake2b(digest_size=8, person=b"2")
  given = {**c.offline.to_dict(), "weights": c.weights.to_dict()}
  key.update(json.dumps([*map(str, folders), given], sort_keys=True).encode())
  kept = [saved.load(folder) for folder in folders]
  for folder in folders:
    key.update((folder / "samples.jsonl").read_bytes())
  if (
    path.exists() and (before := json.loads(path.read_text()))["key"] == key.hexdigest()
  ):
    return before["offline"]
  logs.say(f"offline: {len(asked)} rewards for the replies of {len(kept)} runs")
  found = _rankings(kept, asked, c)
  logs.write_json(path, {"key": key.hexdigest(), "offline": found})
  return found


def _rankings(
  kept: Sequence[saved.Saved], asked: Sequence[Question], c: ConfigDict
) -> Row:
  ranking.check(kept, asked)
  out: Row = {
    "runs": [str(one.folder) for one in kept],
    "groups": sum(len(one.prompts) for one in kept),
    "prompts": len({name for one in kept for name in one.prompts}),
    "agreement": ranking.agreement(kept),
    "whole": dict(asked[0].weights),
    "unnamed": {str(one.folder): saved.unnamed(one, asked[0].weights) for one in kept},
    "questions": ranking.compared(kept, asked, c.offline.draws),
  }
  if not c.offline.gradient_steps:
    return out
  first = [saved.load(one.folder, c.offline.gradient_steps) for one in kept]
  found = gradients.gradients(first, asked, c.offline.blocks)
  pointed = gradients.compared(found, asked, c.offline.draws)
  for name, row in out["questions"].items():
    row |= pointed[name]
  return out | {
    "gradient_steps": c.offline.gradient_steps,
    "gradient_groups": sum(len(one.prompts) for one in first),
    "moved": found.moved,
  }
