"""A run's folder as train_rl leaves it, with replies and rewards made up by hand."""

import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from configs import rlhf
from stepaudio_jax import logs
from stepaudio_jax.core import recipe
from tests import tones


def row(
  prompt: str, sample: int, reward: Mapping[str, float | None], weights: dict, **more
) -> dict:
  """A rollout row; what `more` does not tell is of one token."""
  known = {"step": 1, "token_ids": [5], "logprobs": [-0.5], "advantage": 0.0}
  known |= {"prompt_id": prompt, "sample": sample, "tokens": 1.0}
  return known | {"reward": dict(reward), "weight": dict(weights)} | more


def rows(
  prompts: Sequence[str],
  reward_PGC: Sequence,
  weights: Mapping[str, float],
  **more,
) -> list[dict]:
  """Groups of replies; NaN is a reward that is missing."""
  found = []
  for prompt, reward_GC in zip(prompts, reward_PGC, strict=True):
    for sample, reward_C in enumerate(reward_GC):
      told = [None if np.isnan(x) else float(x) for x in reward_C]
      named = dict(zip(weights, told, strict=True))
      found.append(row(prompt, sample, named, dict(weights), **more))
  return found


def folder(
  path: pathlib.Path, found: Sequence[dict], weights: Mapping[str, float], **keys
) -> pathlib.Path:
  """samples.jsonl and config.json of a run of configs/rlhf.py.

  Args:
    keys: of the recipe, with "__" for each dot.
  """
  c = rlhf.get_config("smoke")
  c.rewards.learned = dict(weights)
  flat = recipe.flat(c) | {key.replace("__", "."): v for key, v in keys.items()}
  flat["sampling.samples"] = 1 + max(one["sample"] for one in found)
  path.mkdir(parents=True)
  logs.write_json(path / "config.json", {"hash": "", "config": flat})
  tones.write(path / "samples.jsonl", found)
  return path


def pinned(path: pathlib.Path, init: pathlib.Path) -> None:
  """sources.json of a run that started there."""
  (path / "sources.json").write_text(json.dumps({"init": str(init)}))
