"""What a policy-gradient step takes: how often it runs each program, and their sum."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.fit import programs
from stepaudio_jax.fit.job import Job
from stepaudio_jax.rollout import ensemble


def runs(job: Job) -> Mapping[str, int]:
  """{program: times in a step}, all replies being as long as they may be.

  Frames of clips are kept, so none is encoded where all have been heard before. The
  reward model, or each of several, reads the replies in the parts of an update.
  """
  c = job.c
  models = len(ensemble.sources(c.reward_model))
  return {
    "encoder features": 0,
    "prefill": 1,
    "decode step": job.new_tokens - 1,  # prefill draws the first
    "reward scores": c.minibatches * c.microbatches * models,
    "old log-probs": 1,
    "reference log-probs": 1,
    "values": 1,
    "update": c.epochs * c.minibatches,
  }


def asked(job: Job) -> list[str]:
  """The programs that every step runs."""
  known = runs(job)
  return [name for name in programs.asked(job.c) if known[name]]


def added(job: Job, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Rows of the report with `runs_a_step`."""
  known = runs(job)
  return [row | {"runs_a_step": known[row["program"]]} for row in rows]


def note(rows: Sequence[dict[str, Any]], wanted: Sequence[str]) -> str:
  """For a report: a table of seconds and their sum.

  Args:
    wanted: the programs that a step runs; those without a time are named.
  """
  timed = [row for row in rows if row["seconds_expected"] is not None]
  found = {row["program"] for row in timed}
  lacking = [name for name in wanted if name not in found]
  ran = [row for row in timed if row["runs_a_step"]]
  whole = sum(map(_seconds, ran))
  lines = [
    "## What a step takes",
    "Expected seconds, every reply as long as it may be and its caches as large from "
    "the first token on. Not in them: the host, the policy's way to the mesh of "
    "sampling, clips that were never heard, a judge, further rounds of refilling.",
    "\n".join(
      [
        "| program | runs | s each | s | share |",
        "|---|---|---|---|---|",
        *(_line(row, whole) for row in ran),
      ]
    ),
    f"**Together {whole:.1f} s**"
    + (f", without {', '.join(lacking)}: no time is known." if lacking else "."),
  ]
  return "\n\n".join(lines)


def _seconds(row: Mapping[str, Any]) -> float:
  return row["runs_a_step"] * row["seconds_expected"]


def _line(row: Mapping[str, Any], whole: float) -> str:
  each, taken = row["seconds_expected"], _seconds(row)
  cells = (row["program"], f"{row['runs_a_step']:,}", f"{each:.4g}", f"{taken:.1f}")
  return f"| {' | '.join(cells)} | {taken / whole:.1%} |"
