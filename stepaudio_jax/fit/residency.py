"""What shares the HBM of a chip with each program of a policy-gradient step.

The loop of train_rl holds its state, the reference, the reward model or several, and
the encoder on every chip from the first step to the last, and with rollout.overlap a
copy of the policy that speaks; the replies that it learnt from last stay until the next
have been learnt from; the sampler's own copy and its caches are there while replies are
drawn. A program's peak counts its arguments, and nothing else of these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stepaudio_jax.core import tree
from stepaudio_jax.fit import abstract, gradients, programs
from stepaudio_jax.fit.job import Job
from stepaudio_jax.rollout import ensemble

_GIB = 2**30
_DRAWN = ("sampler's copy", "KV caches")
_STATE = ("policy", "policy's optimiser", "critic", "critic's optimiser", "encoder")
# Program → what of `parts` are its arguments.
_GIVEN: Mapping[str, Sequence[str]] = {
  "encoder features": ("encoder on every chip",),
  "prefill": _DRAWN[:1],
  "decode step": _DRAWN,
  "reward scores": ("reward model",),
  "old log-probs": ("policy",),
  "reference log-probs": ("reference",),
  "values": ("critic",),
  "update": _STATE,
}
_KEYS = ("resident_bytes", "given", "own_bytes", "together_bytes", "fits_together")


def parts(job: Job) -> dict[str, Any]:
  """{name: abstract arrays} of all that outlives a program; no empty ones."""
  begun = gradients.state(job)
  speaking = {k: v for k, v in begun.params.items() if k != "critic"}
  moments = [*tree.named_leaves(begun.opt_state)]
  critic = [leaf for path, leaf in moments if "critic" in path.split("/")]
  policy = [leaf for path, leaf in moments if "critic" not in path.split("/")]
  c = job.c
  learned = gradients.reward_model(job) if c.rewards.learned else {}
  several = len(ensemble.sources(c.reward_model)) - 1
  held = (speaking, policy, begun.params.get("critic", {}), critic, begun.frozen)
  found = dict(zip(_STATE, held, strict=True))
  found |= {"reference": gradients.reference(job), "reward model": learned}
  found["other reward models"] = [learned] * several
  found["encoder on every chip"] = programs.encoder_features(job).arguments[0]
  if c.sampling.turns == 1:
    drawn = gradients.replies(job, job.prompts, c.minibatches * c.microbatches)
    found["last replies"] = gradients.learnt(drawn)
  found["policy that speaks"] = speaking if c.rollout.overlap else {}
  if not c.sampling.slots:  # with slots no decode step is priced
    params, prompted, drawing = programs.decode_step(job).arguments
    caches = (prompted.cache, drawing.cache)
    found |= dict(zip(_DRAWN, (params, caches), strict=True))
  return {name: part for name, part in found.items() if jax.tree.leaves(part)}


def added(job: Job, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Rows of the report with what is in HBM while each program runs.

  Beside `resident_bytes` of every part, those of the program's arguments included,
  `own_bytes` are what of its peak no part is: its rows, temporaries, code.
  """
  known = parts(job)
  near = {name: abstract.bytes_on_chip(part) for name, part in known.items()}
  far = {name: abstract.bytes_on_host(part) for name, part in known.items()}
  return [beside(row, near, far) for row in rows]


def beside(
  row: dict[str, Any], near: Mapping[str, int], far: Mapping[str, int]
) -> dict[str, Any]:
  given = [name for name in _GIVEN[row["program"]] if name in near]
  absent = {name for name in _DRAWN if name not in given}
  resident = {name: size for name, size in near.items() if name not in absent}
  own = row["hbm_peak_bytes"] - sum(near[name] for name in given)
  together = own + sum(resident.values())
  fits = together <= row["hbm_limit_bytes"]
  found = dict(zip(_KEYS, (resident, given, own, together, fits), strict=True))
  return row | found | {"offloaded_bytes": {k: v for k, v in far.items() if v}}


def note(rows: Sequence[dict[str, Any]]) -> str:
  """For a report: a table of GiB on each chip."""
  names = [*dict.fromkeys(name for row in rows for name in row["resident_bytes"])]
  columns = ["while this runs", *names, "its own", "sum", "fits"]
  limit = rows[0]["hbm_limit_bytes"]
  most = max(row["together_bytes"] for row in rows)
  lines = [
    "## What is in HBM at a time",
    "GiB on each chip. **Bold** are arguments of the program, which its peak above "
    "counts; the rest of a line lies beside it. *Its own*: rows, results, temporaries, "
    f"code. The most is {most / _GIB:.1f} of {limit / _GIB:.1f} GiB.",
    "\n".join(
      [
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
        *(_line(row, names) for row in rows),
      ]
    ),
    _offloaded(rows[0]["offloaded_bytes"]),
  ]
  return "\n\n".join(lines)


def _line(row: dict[str, Any], names: Sequence[str]) -> str:
  cells = [row["program"]]
  for name in names:
    size = row["resident_bytes"].get(name)
    text = "" if size is None else f"{size / _GIB:.1f}"
    cells.append(f"**{text}**" if name in row["given"] else text)
  cells += [f"{row[key] / _GIB:.1f}" for key in ("own_bytes", "together_bytes")]
  cells.append("yes" if row["fits_together"] else "**no**")
  return f"| {' | '.join(cells)} |"


def _offloaded(far: Mapping[str, int]) -> str:
  if not far:
    return "Nothing waits in the host's memory."
  listed = (f"{name} {size / _GIB:.1f}" for name, size in far.items())
  return f"In the host's memory, GiB a chip: {', '.join(listed)}."
