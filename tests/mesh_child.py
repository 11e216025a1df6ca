"""Run on 8 fake devices: a stage's step on every mesh, beside one device."""

import functools
import json
import sys

import jax
import numpy as np
import optax

from stepaudio_jax import meshes, sharding, steps
from stepaudio_jax.core import tree
from tests import stages

MESHES = {
  "8×1": (8, 1, 1, 1),
  "1×8": (1, 8, 1, 1),
  "2×2×2": (2, 2, 2, 1),
  "context": (1, 2, 2, 2),
}


def ran(stage, lengths, microbatches=1):
  """Losses of three SGD steps, the first gradient and the last parameters."""
  lengths = dict(zip(meshes.MESH_AXES, lengths, strict=True))
  mesh = meshes.mesh(lengths, jax.devices()[: int(np.prod([*lengths.values()]))])
  dtypes = dict.fromkeys(stage.params, np.float32)
  place = sharding.placer(mesh, stage.axes, dtypes)
  placed = [(path, place(path, x)) for path, x in tree.named_leaves(stage.params)]
  trained = [part for part in stage.params if part != "encoder"]
  tx = optax.chain(optax.trace(0.0), optax.scale(-0.1))  # SGD that keeps its gradient
  state = steps.initial_state(tree.nested(placed), trained, tx, jax.random.key(0))
  del placed
  one = functools.partial(
    steps.train_step, loss_fn=stage.loss_fn, tx=tx, microbatches=microbatches
  )
  step, losses, gradients = steps.jitted(one, state), [], []
  with sharding.over(mesh):
    batch = sharding.put(stage.batch, mesh)
    for _ in range(3):
      state, scalars = step(state, batch)
      losses.append(float(scalars["loss"]))
      gradients.append(sharding.gathered(state.opt_state[0].trace))
  return losses, gradients[0], sharding.gathered(state.params)


def furthest(found, wanted):
  """Largest difference of a leaf, in units of its largest value, and its name."""
  named = zip(tree.named_leaves(found), tree.named_leaves(wanted), strict=True)
  gaps = {
    path: float(np.max(np.abs(a - b)) / np.max(np.abs(b), initial=1e-9))
    for (path, a), (_, b) in named
  }
  worst = max(gaps, key=lambda path: (np.isnan(gaps[path]), gaps[path]))
  return gaps[worst], worst


def cases(every: bool):
  """(mesh, lengths, micro-batches, packed), see stages.laid."""
  yield "1×8", MESHES["1×8"], 1, False
  yield "2×2×2", MESHES["2×2×2"], 2, "prompts"
  if every:
    yield "one", (1, 1, 1, 1), 2, False
    yield "one", (1, 1, 1, 1), 1, True
    yield "one", (1, 1, 1, 1), 1, "prompts"
    yield "1×8", MESHES["1×8"], 1, True
    yield "context", MESHES["context"], 1, "prompts"
    yield "2×2×2", MESHES["2×2×2"], 2, True
    for mesh in ("8×1", "2×2×2", "context"):
      yield mesh, MESHES[mesh], 1, False


def main(name, every):
  losses, gradient, params = ran(stages.STAGES[name](), (1, 1, 1, 1))
  for mesh, lengths, microbatches, packed in cases(every):
    its = ran(stages.STAGES[name](packed=packed), lengths, microbatches)
    row = {"mesh": mesh, "microbatches": microbatches, "packed": packed}
    row["loss"] = float(np.max(np.abs(np.divide(its[0], losses) - 1)))
    row["gradient"] = furthest(its[1], gradient)
    row["params"] = furthest(its[2], params)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
  main(sys.argv[1], "every" in sys.argv[2:])
