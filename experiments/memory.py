r"""How much memory the SFT step takes with whole logits, and with logits in chunks.

  python -m experiments.memory [--tokens 4096] [--vocabulary 158720] [--chunks 1 8 16]

For each number of chunks a fresh process compiles and runs one step of a narrow model
with the 7B's vocabulary on one row, and prints what XLA planned for temporaries and how
far the process's peak grew while the step ran. Nothing else of a step grows with the
vocabulary, so the difference is that of a wide model too. Needs 12 GB.
"""

import argparse
import dataclasses
import functools
import json
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepaudio_jax import meshes, sharding, steps
from stepaudio_jax.core import tree
from stepaudio_jax.core.types import Batch
from stepaudio_jax.models import sizes, step_audio


def row(tokens: int, width: int) -> Batch:
  """One row of text without padding."""
  shape = (1, tokens)
  return Batch(
    token_BT=np.arange(tokens, dtype=np.int32)[None],
    segment_BT=np.ones(shape, np.int32),
    position_BT=np.arange(tokens, dtype=np.int32)[None],
    loss_BT=np.ones(shape, bool),
    example_BT=np.zeros(shape, np.int32),
    source_BT=np.zeros(shape, np.int32),
    frames_BRUE=np.zeros((1, 0, 0, width), np.float32),
    frame_count_BR=np.zeros((1, 0), np.int32),
    audio_BT=np.full(shape, -1, np.int32),
  )


def peak_bytes() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(tokens: int, vocabulary: int, chunks: int) -> dict[str, int]:
  """Temporaries that XLA planned, and the growth of this process's peak."""
  size = dataclasses.replace(
    sizes.size("tiny"), layers=1, vocabulary=vocabulary, max_positions=tokens
  )
  mesh = meshes.mesh({"data": 1, "fsdp": 1, "tensor": 1, "context": 1})
  params = step_audio.init_params(jax.random.key(0), size)
  place = sharding.placer(
    mesh, step_audio.axis_names(size), dict.fromkeys(step_audio.PARTS, jnp.float32)
  )
  params = tree.nested((name, place(name, x)) for name, x in tree.named_leaves(params))
  tx = optax.sgd(0.1)
  state = steps.initial_state(params, ("adaptor", "decoder"), tx, jax.random.key(0))
  del params
  # Of T² of attention nothing is kept, or it would drown what is compared.
  model = step_audio.StepAudio(size, remat="full", head_chunks=chunks)
  step = functools.partial(
    steps.train_step,
    loss_fn=steps.next_token_loss(model, ("text",)),
    tx=tx,
    microbatches=1,
  )
  batch = row(tokens, size.encoder_width)
  compiled = steps.jitted(step, state).lower(state, batch).compile()
  before = peak_bytes()
  _, scalars = compiled(state, batch)
  loss = float(scalars["loss"])
  return {
    "chunks": chunks,
    "planned_bytes": compiled.memory_analysis().temp_size_in_bytes,
    "grown_bytes": peak_bytes() - before,
    "loss": loss,
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.memory",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--tokens", type=int, default=4096)
  parser.add_argument("--vocabulary", type=int, default=158_720)
  parser.add_argument("--chunks", type=int, nargs="+", default=[1, 8, 16])
  args = parser.parse_args()
  if len(args.chunks) == 1:
    print(json.dumps(measured(args.tokens, args.vocabulary, *args.chunks)))
    return
  sizes_ = ["--tokens", str(args.tokens), "--vocabulary", str(args.vocabulary)]
  command = [sys.executable, "-m", "experiments.memory", *sizes_, "--chunks"]
  print(f"SFT step, {args.tokens} tokens, {args.vocabulary} words")
  print("chunks   planned GB   peak grew by GB   loss")
  for chunks in args.chunks:
    done = subprocess.run(
      [*command, str(chunks)], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(
      f"{chunks:6}   {found['planned_bytes'] / 1e9:10.2f}   "
      f"{found['grown_bytes'] / 1e9:15.2f}   {found['loss']:.6f}"
    )


if __name__ == "__main__":
  main()
