"""The programs of a recipe: the functions that training and sampling run, no others."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from stepaudio_jax import learner, optim, policy, sharding, steps
from stepaudio_jax.core.types import Params
from stepaudio_jax.data import features, loader
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.fit import abstract, gradients, work
from stepaudio_jax.fit.job import Job, Program
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.sampling import program
from stepaudio_jax.sampling.draws import Settings


def encoder_features(job: Job) -> Program:
  """A batch of the longest clips on every chip (data.encode_batch on four of them)."""
  c, size = job.c, job.size
  mesh = Mesh(job.mesh.devices.reshape(-1), ("replica",))
  model = sharding.model(c, size, job.mesh)
  clips = mesh.size * max(c.data.encode_batch // 4, 1)
  frames = features.BUCKETS[-1]
  rows = jax.NamedSharding(mesh, jax.P("replica"))
  held = step_audio.abstract_params(size)["encoder"]
  dtype, everywhere = _dtype(c), jax.NamedSharding(mesh, jax.P())
  encoder = jax.tree.map(lambda x: abstract.at(everywhere, x.shape, dtype), held)
  return Program(
    "encoder features",
    mesh,
    hearing.replicated(model, mesh),
    (
      {"encoder": encoder},
      abstract.at(rows, (clips, frames, size.mel_bins), jnp.float32),
      abstract.at(rows, (clips,), jnp.int32),
    ),
    flops=clips * work.encoded(size, frames),
    tokens=clips * frames // 4,
    split=False,
  )


def supervised_step(job: Job) -> Program:
  """The next-token step of train.py."""
  c, size = job.c, job.size
  if _draws(c) or c.objective != "next_token":
    kind = c.stage if _draws(c) else c.objective
    raise ValueError(f"{kind!r} has no step that is priced as yet, only 'next_token'")
  sharding.rows(c.batch_size, c.microbatches, job.mesh)
  model = sharding.model(c, size, job.mesh)
  tx = optim.optimiser(c.optim, c.total_steps)
  dtypes = dict.fromkeys(step_audio.PARTS, _dtype(c))
  dtypes |= dict.fromkeys(c.trainable, jnp.float32)
  params = abstract.params(size, job.mesh, dtypes)
  offload = "optimiser" in c.offload
  state = abstract.state(params, tuple(c.trainable), tx, offload=offload)
  limits = loader.limits(c.data)
  batch = abstract.batch(c.batch_size, limits, size.encoder_width, job.mesh)
  step = functools.partial(
    steps.train_step,
    loss_fn=steps.next_token_loss(model, tuple(c.data.mix)),
    tx=tx,
    microbatches=c.microbatches,
  )
  tokens = c.batch_size * limits.max_tokens
  return Program(
    "supervised step",
    job.mesh,
    steps.jitted(step, state),
    (state, batch),
    flops=3 * work.decoded(size, c.batch_size, limits.max_tokens, scored=tokens),
    tokens=tokens,
  )


def prefill(job: Job) -> Program:
  """What sampling does first: prompts read, one token drawn for each reply."""
  function, arguments = _prefill(job)
  tokens = job.prompts * job.c.data.max_tokens
  scored = job.prompts * job.copies
  return Program(
    "prefill",
    job.sampling_mesh,
    jax.jit(function),
    arguments,
    flops=work.decoded(job.size, job.prompts, job.c.data.max_tokens, scored=scored),
    tokens=tokens,
  )


def decode_step(job: Job) -> Program:
  """A block of sampling's tokens, behind full prompts and with full caches."""
  if _draws(job.c) and job.c.sampling.slots:
    raise ValueError(
      f"sampling.slots={job.c.sampling.slots}: a decode step is priced for all replies"
      " side by side; set it to 0 here, and copies and prompts to what the slots hold"
    )
  function, arguments = _prefill(job)
  params = arguments[0]
  mesh, size, rows = job.sampling_mesh, job.size, job.prompts * job.copies
  prompted, state = abstract.by_shape(jax.eval_shape(function, *arguments), mesh)
  block = functools.partial(program.decoded_block, **function.keywords)
  lies = jax.tree.map(lambda leaf: leaf.sharding, state)
  weights = {k: v for k, v in params["decoder"].items() if k != "embed"}
  return Program(
    "decode step",
    mesh,
    jax.jit(block, donate_argnums=2, out_shardings=lies),
    (params, prompted, state),
    flops=rows * work.drawn(size, job.c.data.max_tokens + job.new_tokens),
    tokens=rows,
    runs=program.BLOCK,
    streamed=abstract.bytes_on_chip((weights, prompted.cache, state.cache)),
  )


def log_probs(job: Job) -> Program:
  """Of replies, on the mesh of training: what compares a model with another."""
  c, size, mesh = job.c, job.size, job.mesh
  if _draws(c):
    names = ", ".join(map(repr, gradients.PROGRAMS))
    raise ValueError(f"a recipe of {c.stage!r} has log-probs of its own: {names}")
  limits, width = loader.limits(c.data), size.encoder_width
  count = job.prompts * job.copies
  sharding.rows(job.prompts, 1, mesh)
  prompts = abstract.batch(job.prompts, limits, width, mesh)
  replies = abstract.replies(prompts, job.copies, job.new_tokens, mesh)
  function = functools.partial(
    policy.logprobs, model=sharding.model(c, size, mesh), temperature=1.0
  )
  params = abstract.params(size, mesh, dict.fromkeys(learner.SPEAKING, _dtype(c)))
  return Program(
    "log-probs",
    mesh,
    jax.jit(function),
    (params, replies),
    flops=work.decoded(size, job.prompts, limits.max_tokens, scored=0)
    + work.continued(size, count, limits.max_tokens, job.new_tokens),
    tokens=job.prompts * limits.max_tokens + count * job.new_tokens,
  )


PROGRAMS: Mapping[str, Callable[[Job], Program]] = {
  "encoder features": encoder_features,
  "supervised step": supervised_step,
  "prefill": prefill,
  "decode step": decode_step,
  "log-probs": log_probs,
  **gradients.PROGRAMS,
}


def _prefill(job: Job) -> tuple[functools.partial, tuple[Params, ...]]:
  """sampling.program.prefilled of the job, and its arguments."""
  c, size, mesh = job.c, job.size, job.sampling_mesh
  sharding.rows(job.prompts, 1, mesh)
  settings = Settings(job.new_tokens, stop_ids=(0,), pad_id=0, copies=job.copies)
  function = functools.partial(
    program.prefilled, model=sharding.model(c, size, mesh), settings=settings
  )
  rows, everywhere = sharding.by_rows(mesh), sharding.replicated(mesh)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return function, (
    abstract.params(size, mesh, dict.fromkeys(learner.SPEAKING, _dtype(c))),
    abstract.batch(job.prompts, loader.limits(c.data), size.encoder_width, mesh),
    program.Asked(
      rng=abstract.at(everywhere, key.shape, key.dtype),
      stream_B=abstract.at(rows, (job.prompts,), jnp.int32),
      divisor=abstract.at(everywhere, (), jnp.float32),
    ),
  )


def asked(c: ConfigDict) -> list[str]:
  """Those of `PROGRAMS` that the recipe has, in the order of a step."""
  if _draws(c):
    return ["encoder features", "prefill", "decode step", *gradients.asked(c)]
  return [name for name in PROGRAMS if name not in gradients.PROGRAMS]


def _draws(c: ConfigDict) -> bool:
  """Whether the recipe samples: policy gradients."""
  return "sampling" in c


def _dtype(c: ConfigDict) -> Any:
  return step_audio.DTYPES[c.dtype]


def split_by_heads(size: Size, devices: int) -> dict[str, int]:
  """Lengths of a mesh for sampling: no weight is gathered, no cache is held twice."""
  tensor = math.gcd(size.kv_heads, devices)
  return {"data": -1, "fsdp": 1, "tensor": tensor, "context": 1}
