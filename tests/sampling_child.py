"""Run on fake devices: RLHF whose policy is sampled on a mesh of its own.

python -m tests.sampling_child WORLD WORKDIR FSDP TENSOR
"""

import dataclasses
import pathlib
import sys

from configs import rlhf
from stepaudio_jax import train_rl
from stepaudio_jax.core import processes
from stepaudio_jax.models import sizes
from stepaudio_jax.rewards import think_format
from tests import tones
from tests.test_train_rl import wired


def main(world, workdir, fsdp, tensor):
  tones.LITTLE = dataclasses.replace(tones.LITTLE, heads=4, kv_heads=4, head_width=4)
  sizes.SIZES["tiny"] = tones.LITTLE
  think_format.score = lambda example, text: len(text) % 7 / 7  # random replies differ
  world = pathlib.Path(world)
  if not world.exists():
    world.mkdir()
    tones.world(world)
    tones.policy(world / "sft")
    return
  processes.start()
  c = wired(rlhf.get_config("smoke"), world, 2)
  c.prompts_per_step = c.heldout.batch_size = 4
  c.mesh.data, c.mesh.fsdp = -1, int(fsdp)
  c.sampling_mesh.tensor = int(tensor)
  c.reward_model, c.rewards.learned = None, {}
  c.rewards.rules = {"audio": {"think_format": 1.0}, "text": {"think_format": 1.0}}
  train_rl.run(c, workdir)


if __name__ == "__main__":
  main(*sys.argv[1:])
