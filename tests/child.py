"""A small run in a process of its own that tells what it is about to do.

`python -m tests.child {sft,rlhf,talks,judged,chosen,gradients} WORLD WORKDIR` appends
"<phase> <n>" to WORKDIR.phases before each sampling, update, write and rename; whoever
kills it waits for these lines.
With PAUSE="<phase> <n>" in the environment the thread that does the work stops there;
with DIE="<process> <phase> <n>" that process of several kills itself there, with LEAVE
it is told to leave.
"""

import os
import pathlib
import signal
import sys
import time
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import config as jax_config

from configs import dpo, reward_model, rlhf, sft
from stepaudio_jax import meshes, origins, sharding, steps, train, train_rl
from stepaudio_jax.core import processes, tree
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout.actor import Actor
from stepaudio_jax.text import tokenizer as tokenizers
from tests import dialogues, tones

STEPS = 4
PHASES = {"sft": ("update", "write", "rename")}
PHASES["rlhf"] = PHASES["talks"] = ("sample", *PHASES["sft"])
JOURNALS = dict.fromkeys(("sft", "judged", "chosen"), ("metrics",))
JOURNALS |= {"rlhf": ("metrics", "samples", "heldout")}
_PAUSE_S = 120


def supervised(world: epath.Path) -> Any:
  c = sft.get_config("smoke")
  c.init = str(world / "sft")
  c.data.options.dialogue.path = str(world / "prompts-train.jsonl")
  c.data.max_tokens, c.data.max_clip_s, c.data.max_clips = 128, 1.0, 2
  c.total_steps, c.batch_size, c.microbatches = STEPS, 8, 2
  c.checkpoint.every_steps = 1
  return shared(c, world)


def policy_gradient(world: epath.Path) -> Any:
  c = rlhf.get_config("smoke")
  c.init, c.reward_model = str(world / "sft"), str(world / "rm")
  # A model that knows nothing closes no thought, so a learned reward alone would mask
  # every reply: rules count, the judge is heard, and another reference pulls.
  c.rewards.rules = {"audio": {"think_format": 1.0}}
  c.rewards.learned = {"correctness": 0.0, "naturalness": 0.0}
  c.reference, c.kl.beta = str(world / "other"), 0.5
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.max_tokens, c.sampling.max_new_tokens, c.data.pack = 64, 8, True
  c.prompts_per_step, c.total_steps = 4, STEPS
  c.checkpoint.every_steps = 2
  return shared(c, world)


def shared(c: Any, world: epath.Path) -> Any:
  c.data.cache = str(world / "cache")
  c.optim.schedule = "constant"
  return c


def played(world: epath.Path) -> Any:
  """Dialogues of three turns, groups without spread replaced, replies begun ahead."""
  c = dialogues.recipe(world)
  c.rollout.update({"refill_rounds": 1, "overlap": True, "max_age": 1})
  c.prompts_per_step, c.heldout.batch_size = 4, 4
  c.reference, c.kl.beta = str(world / "other"), 0.5  # what always pulls
  return shared(c, world)


def judged(world: epath.Path) -> Any:
  """A reward model of packed comparisons, all in four rows."""
  c = reward_model.get_config("smoke")
  c.dimensions, c.dims_on_thought = ("overall", "correctness"), ("correctness",)
  c.data.pack_rows = (4,)
  return compared(c, world)


def chosen(world: epath.Path) -> Any:
  """DPO on packed comparisons, in as many rows as a batch needs."""
  return compared(dpo.get_config("smoke"), world)


def compared(c: Any, world: epath.Path) -> Any:
  """Packs of two comparisons; SGD, for others divide rounding by itself."""
  c.init = str(world / "sft")
  c.data.options.preference.path = str(world / "preferences-unlike.jsonl")
  c.data.max_tokens, c.data.max_clip_s, c.data.max_reply_tokens = 64, 1.0, 64
  c.data.pack, c.total_steps, c.batch_size, c.microbatches = True, STEPS, 16, 2
  c.optim.update({"name": "sgd", "lr": 0.5, "eps": 0.0, "warmup_steps": 0})
  c.optim.b2, c.optim.weight_decay, c.checkpoint.every_steps = 0.0, 0.0, 1
  c.log.every_steps = 1
  return shared(c, world)


RUNS = {"sft": (train.run, supervised), "rlhf": (train_rl.run, policy_gradient)}
RUNS["talks"] = (train_rl.run, played)
RUNS |= {"judged": (train.run, judged), "chosen": (train.run, chosen)}


def gradients(c: Any, workdir: pathlib.Path) -> None:
  """Writes the loss and its gradient on the first batch to WORKDIR.npz."""
  tokenizer, mesh = tokenizers.load(c.tokenizer), meshes.mesh(c.mesh)
  size = origins.start_size(c.size, c.init)
  model, rng = sharding.model(c, size, mesh), jax.random.key(0)
  params = train.initial_params(c, size, tokenizer, rng, mesh)
  trained, frozen = tree.split(params, tuple(c.trainable))
  make = train.OBJECTIVES[c.objective].make
  batches, _, loss_fn = make(c, model, frozen, tokenizer, epath.Path(c.data.cache))
  batch = sharding.put(next(batches)[0], mesh)
  batches.close()

  def total(trained, frozen, batch):
    return loss_fn({**frozen, **trained}, batch, rng)[0]

  with sharding.over(mesh):
    found = jax.jit(jax.value_and_grad(total))(trained, frozen, batch)
  loss, grads = sharding.gathered(found)
  if processes.first():
    leaves = dict(tree.named_leaves(grads))
    np.savez(workdir.with_suffix(".npz"), loss=loss, **leaves)


RUNS["gradients"] = (gradients, supervised)


def make_world(folder: pathlib.Path) -> pathlib.Path:
  """What both runs start from."""
  folder.mkdir(exist_ok=True)
  dialogues.with_talks(tones.world(folder))
  tones.write(folder / "preferences-unlike.jsonl", [unlike(i) for i in range(24)])
  tones.policy(folder / "sft")
  tones.policy(folder / "other", seed=5)
  tones.reward_model(folder / "rm", ("correctness", "naturalness"))
  return folder


def unlike(i: int) -> dict:
  """A preference whose replies are long or short; some contexts are text alone."""
  row = tones.preference(i % 8) | {"id": f"unlike-{i}", "task_id": f"unlike-{i}"}
  if i % 3 == 0:
    row["context"] = [{"role": "human", "content": "Pitch? " * (1 + i % 8)}]
  for k, one in enumerate(row["candidates"]):
    one["think"] = "I hear it. " * (9 if i % 4 == 0 else 1 + (i + k) % 3)
  return row


class Teller:
  """Has functions write a line before they do their work."""

  def __init__(self, log: pathlib.Path):
    self._log, self._counts = log, {}
    self._pause = os.environ.get("PAUSE")

  def announce(self, owner: Any, name: str, phase: str, when=lambda *args: True):
    work = getattr(owner, name)

    def told(*args, **kwargs):
      if when(*args):
        self.tell(phase)
      return work(*args, **kwargs)

    setattr(owner, name, told)

  def tell(self, phase: str) -> None:
    self._counts[phase] = self._counts.get(phase, 0) + 1
    line = f"{phase} {self._counts[phase]}"
    for name, number in {"DIE": signal.SIGKILL, "LEAVE": signal.SIGTERM}.items():
      if os.environ.get(name) == f"{jax.process_index()} {line}":
        os.kill(os.getpid(), number)
    if processes.first():
      with self._log.open("a") as file:
        file.write(f"{line}\n")
    if line == self._pause:
      time.sleep(_PAUSE_S)


def main() -> None:
  processes.start()
  stage, (world, workdir) = sys.argv[1], map(pathlib.Path, sys.argv[2:])
  jax_config.update("jax_compilation_cache_dir", str(world / "xla"))
  jax_config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  sizes.SIZES["tiny"] = tones.LITTLE
  teller = Teller(workdir.with_suffix(".phases"))
  teller.announce(Actor, "begun", "sample")
  teller.announce(steps, "finite", "update")  # while the update is still computed
  # orbax writes the arrays, then their names, and renames the folder when all is there
  named = lambda path, *args: path.name == "_METADATA"  # noqa: E731
  teller.announce(type(epath.Path("x")), "write_text", "write", named)
  whole = lambda old, new: str(old).endswith("checkpoint-tmp")  # noqa: E731
  teller.announce(os, "rename", "rename", whole)
  run, recipe = RUNS[stage]
  run(recipe(world), workdir)


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  main()
