"""A small RLHF run in a process of its own that tells what it is about to do.

`python -m tests.rl_child WORLD WORKDIR` appends "sample <n>", "update <n>" or
"save <n>" to WORKDIR.phases before each: the test that kills it waits for these lines.
"""

import pathlib
import sys
from typing import Any

import jax
from jax import config as jax_config

from configs import rlhf
from stepaudio_jax import checkpoint, steps, train_rl
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout.actor import Actor
from tests import tones

STEPS = 4


def recipe(world: pathlib.Path) -> Any:
  c = rlhf.get_config("smoke")
  c.init, c.reward_model = str(world / "sft"), str(world / "rm")
  c.rewards.learned = {"correctness": 2.0, "naturalness": 1.0}
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.cache = str(world / "cache")
  c.data.max_tokens, c.sampling.max_new_tokens = 64, 8
  c.prompts_per_step, c.total_steps = 2, STEPS
  c.checkpoint.every_steps = 2
  return c


def announce(owner: Any, name: str, phase: str, log: pathlib.Path) -> None:
  """Has `owner.name` write a line before it does its work."""
  work, count = getattr(owner, name), 0

  def told(*args, **kwargs):
    nonlocal count
    count += 1
    with log.open("a") as file:
      file.write(f"{phase} {count}\n")
    return work(*args, **kwargs)

  setattr(owner, name, told)


def main() -> None:
  world, workdir = map(pathlib.Path, sys.argv[1:])
  jax_config.update("jax_compilation_cache_dir", str(world / "xla"))
  jax_config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  sizes.SIZES["tiny"] = tones.LITTLE
  log = workdir.with_suffix(".phases")
  announce(Actor, "_sampled", "sample", log)
  announce(steps, "finite", "update", log)  # while the update is still computed
  announce(checkpoint.Checkpoints, "save", "save", log)
  train_rl.run(recipe(world), workdir)


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  main()
