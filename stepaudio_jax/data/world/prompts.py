"""Dialogues of a built world chosen as prompts: prompts-{split}.jsonl beside them.

A split's prompts are dialogues of that split, so those of "train" never hear held-out
speech.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from stepaudio_jax.data.world import build, words


def write_prompts(
  folder: str | os.PathLike,
  split: str,
  tasks: Sequence[str],
  limit: int | None,
  seed: int,
) -> pathlib.Path:
  """Writes prompts-{split}.jsonl, rows of dialogues-{split}.jsonl; see `chosen`."""
  folder = pathlib.Path(folder)
  dialogues = build.read_jsonl(folder / f"dialogues-{split}.jsonl")
  rows = chosen(dialogues, tasks, limit, seed)
  return build.write_jsonl(folder / f"prompts-{split}.jsonl", rows)


def chosen(
  dialogues: Sequence[dict], tasks: Sequence[str], limit: int | None, seed: int
) -> list[dict]:
  """Dialogues of `tasks` in turn, those of a task in a drawn order.

  Args:
    limit: dialogues in all; the tasks' shares differ by at most one. None takes as
      many of each task as there are of the rarest.

  Raises:
    ValueError: a task that is unknown or named twice, or more than there are.
  """
  check_tasks(tasks)
  rng = np.random.default_rng([seed, 13])
  drawn = []
  for task in tasks:
    found = [row for row in dialogues if row["meta"]["task"] == task]
    drawn.append([found[int(k)] for k in rng.permutation(len(found))])
  counts = {task: len(rows) for task, rows in zip(tasks, drawn, strict=True)}
  if limit is None:
    limit = min(counts.values()) * len(tasks)
  shares = [len(range(place, limit, len(tasks))) for place in range(len(tasks))]
  if limit < 1 or any(len(r) < share for r, share in zip(drawn, shares, strict=True)):
    raise ValueError(f"limit={limit} dialogues in equal shares: there are {counts}")
  return [drawn[k % len(tasks)][k // len(tasks)] for k in range(limit)]


def check_tasks(tasks: Sequence[str]) -> None:
  """Raises ValueError unless they are different tasks of the world, at least one."""
  unknown = sorted(set(tasks) - set(words.TASKS))
  if unknown or not tasks or len(set(tasks)) < len(tasks):
    raise ValueError(
      f"tasks {list(tasks)} must be different ones of {list(words.TASKS)}"
    )
