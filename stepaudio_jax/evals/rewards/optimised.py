"""What a policy gradient did to its proxy and to gold, against √KL (simulated gold).

Of every exam that a run has held on held-out prompts (heldout.jsonl): the objective
that was maximised, gold of the same replies, and how far the policy has gone from its
reference, in nats of whole replies. A proxy that rises while gold falls is
over-optimised (Gao et al., arXiv 2210.10760, whose curves are against √KL). Where
dialogues were played (sampling.turns) the last turn counts, the one that gold knows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.data import jsonl
from stepaudio_jax.data.world import gold, raters
from stepaudio_jax.evals.rewards.resampling import Draws

_KEYS = ("step", "prompt_id", "dialogue_id", "text", "objective", "kl", "tokens")

Row = dict[str, Any]


def curves(runs: Sequence[str], data: epath.Path) -> dict[str, list[Row]]:
  """{run: its points}.

  Args:
    runs: workdirs of train_rl.
    data: the folder with truth-heldout.jsonl, gold's knowledge of the dialogues.

  Raises:
    ValueError: a file is absent or wrong, or a dialogue has no truth.
  """
  if not runs:
    return {}
  known = truths(data)
  return {str(run): points(read(epath.Path(run)), known) for run in runs}


def truths(data: epath.Path) -> dict[str, Row]:
  """What gold knows of the held-out dialogues, by their ids."""
  rows = jsonl.Rows(data / "truth-heldout.jsonl")
  return {row.value["id"]: row.value for row in rows}


def read(run: epath.Path) -> list[Row]:
  """The rows of a run's exams: replies to the last turn of each dialogue."""
  out, last = [], {}
  for row in jsonl.Rows(run / "heldout.jsonl"):
    lacking = [key for key in _KEYS if key not in row.value]
    if lacking:
      raise ValueError(f"{row.at}: lacks {lacking}; its keys are {sorted(row.value)}")
    out.append(row.value)
    name, turn = row.value["prompt_id"], row.value.get("turn", 0)
    last[name] = max(last.get(name, turn), turn)
  return [
    row
    for row in out
    if row.get("turn", 0) == last[row["prompt_id"]] and not row.get("failed")
  ]


def points(rows: Sequence[Row], truths: Mapping[str, Row]) -> list[Row]:
  """By exam: √KL, proxy and gold, with intervals by bootstrap over prompts.

  Replies without an objective (a thought that never closed) are left out of the proxy,
  not of gold, which gives them its lowest mark.
  """
  steps = sorted({row["step"] for row in rows})
  return [
    _point([row for row in rows if row["step"] == step], truths) for step in steps
  ]


def _point(rows: Sequence[Row], truths: Mapping[str, Row]) -> Row:
  draws = Draws([row["prompt_id"] for row in rows])
  told = {
    "kl": [row["kl"] * _drawn(row) for row in rows],
    "proxy": [row["objective"] for row in rows],
    "gold": [overall(row, truths) for row in rows],
  }
  means = {name: _mean(values, draws) for name, values in told.items()}
  return {
    "step": rows[0]["step"],
    "replies": len(rows),
    # What is left of 0 is rounding: the estimator is of no sign.
    "root_kl": float(np.sqrt(max(means["kl"]["value"], 0.0))),
    **means,
  }


def _drawn(row: Row) -> float:
  """Tokens of a reply, of which "kl" is the mean; what closed its thought was not."""
  return row["tokens"] - len(row.get("forced", ()))


def overall(row: Row, truths: Mapping[str, Row]) -> float:
  """Gold of a reply: the mean of its dimensions by the raters' common weights."""
  marks, weights = marked(row, truths), raters.WEIGHTS
  return sum(weights[name] * marks[name] for name in weights) / sum(weights.values())


def marked(row: Row, truths: Mapping[str, Row]) -> dict[str, float]:
  """Gold's marks of a reply.

  Raises:
    ValueError: its dialogue has no truth.
  """
  if row["dialogue_id"] not in truths:
    raise ValueError(
      f"dialogue {row['dialogue_id']!r} is none of the {len(truths)} with truths"
    )
  return gold.score(truths[row["dialogue_id"]], row["text"])


def _mean(values: Sequence[float | None], draws: Draws) -> Row:
  value_N = np.asarray([np.nan if v is None else v for v in values], np.float64)
  known_N = np.isfinite(value_N)
  told = draws.ratio(np.where(known_N, value_N, 0.0), known_N.astype(np.float64))
  return told or dict.fromkeys(("value", "low", "high"))
