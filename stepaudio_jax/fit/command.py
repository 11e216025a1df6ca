"""From a recipe and the name of a slice to the report."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import logs, meshes, sharding
from stepaudio_jax.core import recipe
from stepaudio_jax.fit import calibration, programs, report, residency, rows, step
from stepaudio_jax.fit.programs import PROGRAMS, Job
from stepaudio_jax.models import layers, sizes
from stepaudio_jax.pricing import topology
from stepaudio_jax.pricing.topology import Topology

REPLY_TOKENS = 1024  # where the recipe samples nothing itself


def run(
  config: ConfigDict,
  out: epath.PathLike | None,
  *,
  topology_name: str,
  names: Sequence[str] = (),
  sampling_mesh: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:
  """Compiles and prices programs of a recipe, prints the report, and returns its rows.

  Args:
    out: a folder for the report; None writes none.
    names: of `programs.PROGRAMS`; none are all that the recipe has.
    sampling_mesh: of prefill and decode step; None is the recipe's own, or one that
      splits heads alone.

  Raises:
    ValueError: an unknown program, slice or mesh; libtpu is missing.
  """
  names = names or programs.asked(config)
  chosen = [recipe.choose("program", name, PROGRAMS) for name in names]
  where = topology.topology(topology_name)
  job = job_of(config.copy_and_resolve_references(), where, sampling_mesh)
  found, recipe_ = [], settings(job)
  for make in chosen:
    program = make(job)
    logs.say(f"compiling {program.name} for {where.name}")
    found.append(rows.row(program, where, job.size.name) | {"recipe": recipe_})
  title = f"{job.size.name} {job.c.stage} {where.name}"
  notes = [settings_note(recipe_)]
  if "algorithm" in job.c:
    title = f"{job.size.name} {job.c.stage} {job.c.algorithm.name} {where.name}"
    found = step.added(job, residency.added(job, found))
    notes += [residency.note(found), step.note(found, step.asked(job))]
  _finish(title, found, out, notes)
  return found


def job_of(
  c: ConfigDict, where: Topology, sampling_mesh: Mapping[str, int] | None = None
) -> Job:
  """What a recipe asks of a slice.

  Sampling has the devices of training in the same order, as train_rl has it.
  """
  size = sizes.size(c.size)
  mesh = meshes.mesh(c.mesh, where.devices)
  drawn = "sampling" in c
  own = c.sampling_mesh if drawn else programs.split_by_heads(size, len(where.devices))
  return Job(
    c=c,
    size=size,
    mesh=mesh,
    sampling_mesh=meshes.another_mesh(sampling_mesh or own, mesh),
    prompts=c.prompts_per_step if drawn else c.batch_size,
    copies=c.sampling.samples if drawn else 1,
    new_tokens=c.sampling.max_new_tokens if drawn else REPLY_TOKENS,
  )


def settings(job: Job) -> dict[str, Any]:
  """What of a recipe and its job makes the programs as large as they are."""
  c = job.c
  keys = ("microbatches", "remat", "head_chunks", "attention", "dtype")
  found = {key: c[key] for key in keys} | {"offload": list(c.offload)}
  if "max_tokens" in c.data:  # of text: what hears alone has none
    found["max_tokens"] = c.data.max_tokens
  if "algorithm" in c:
    found |= {"algorithm": c.algorithm.name, "minibatches": c.minibatches}
    found["share_prompts"] = c.data.share_prompts
  if "critic_first" in c:
    found["critic_first"] = c.critic_first
  replies = ("prompts", "copies", "new_tokens")
  return found | {key: getattr(job, key) for key in replies}


def settings_note(found: Mapping[str, Any]) -> str:
  """For a report."""
  listed = (f"{key} {'nothing' if v == [] else v}" for key, v in found.items())
  return f"The recipe: {', '.join(listed)}."


def search(
  config: ConfigDict, out: epath.PathLike | None, *, topology_name: str
) -> list[dict[str, Any]]:
  """The supervised step over rows of a device × remat policy; the best is marked.

  The optimiser's batch stays as it is: a device takes its rows in micro-batches. So the
  fewest that fit are not always the best, and the step's seconds can be compared.
  """
  where = topology.topology(topology_name)
  c = config.copy_and_resolve_references()
  mesh = meshes.mesh(c.mesh, where.devices)
  most = sharding.rows(c.batch_size, 1, mesh)
  found = []
  for remat, parts in itertools.product(_REMAT, _divisors(most)):
    c.remat, c.microbatches = remat, parts
    logs.say(f"compiling remat={remat}, {most // parts} rows a device at a time")
    row = rows.row(programs.supervised_step(job_of(c, where)), where, c.size)
    found.append(row | {"remat": remat, "microbatches": parts})
  fitting = [row for row in found if row["fits"]]
  best = min(fitting, key=lambda row: row["seconds_expected"], default=None)
  for row in found:
    row["best"] = row is best
    mark = " **best**" if row["best"] else ""
    row["program"] += (
      f", remat {row['remat']}, microbatches {row['microbatches']}{mark}"
    )
  title = f"{c.size} {c.stage} {where.name} search"
  notes = [] if best else ["**Nothing fits.**"]
  _finish(title, found, out, notes)
  return found


_REMAT = tuple(name for name in layers.REMAT_POLICIES if not name.startswith("dots"))


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]


def _finish(
  title: str,
  found: Sequence[dict[str, Any]],
  out: epath.PathLike | None,
  notes: Sequence[str],
) -> None:
  notes = list(notes)
  if out is not None:
    notes.append(calibration.note(calibration.row(out)))
    report.write(out, title, found, notes)
  print(report.markdown(title, found, notes))
