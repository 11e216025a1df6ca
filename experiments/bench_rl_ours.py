"""Our GRPO step of experiments/bench_rl.py, by the project's own programs."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from stepaudio_jax import meshes, optim, policy, sampling, sharding, steps
from stepaudio_jax.core.types import Array, Batch, Experience, Replies, Rollout
from stepaudio_jax.data import packing
from stepaudio_jax.fit import work
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rl import grpo
from stepaudio_jax.sampling import program

BETA, TEMPERATURE, PAD = 0.04, 1.0, 256
# 23.6 million parameters in the decoder; no audio is heard, the encoder is a stub.
SIZE = dataclasses.replace(
  sizes.size("small"),
  name="bench",
  layers=8,
  max_positions=1024,
  rope_theta=1e4,
  encoder_width=16,
  encoder_heads=2,
  encoder_layers=1,
  adaptor_width=16,
)
_HYPER = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 0.0}
# What TRL's trainer takes by default.
_ADAMW = {
  "name": "adamw",
  "lr": 1e-6,
  "schedule": "constant",
  "warmup_steps": 0,
  "b1": 0.9,
  "b2": 0.999,
  "eps": 1e-8,
  "weight_decay": 0.0,
  "clip_norm": 1.0,
}
PHASES = ("prefill", "decode", "reward", "reference", "update")


@dataclasses.dataclass(frozen=True)
class Job:
  """A step's work: `prompts` × `samples` replies, all of `new_tokens`."""

  prompts: int
  samples: int
  prompt_tokens: int
  new_tokens: int

  @property
  def drawn(self) -> int:
    return self.prompts * self.samples * self.new_tokens


JOBS = {"A": Job(8, 4, 64, 64), "B": Job(8, 8, 320, 64)}


class Ours:
  """The policy, its reference and the programs of a step.

  Args:
    shared: the prompt is computed once for its replies in training too, or once for
      each of them.
  """

  def __init__(self, job: Job, shared: bool, size: Size = SIZE):
    self.job, self.shared = job, shared
    self.model = model = StepAudio(size)
    self.mesh = meshes.mesh(dict.fromkeys(meshes.MESH_AXES, 1), jax.devices()[:1])
    place = jax.jit(
      functools.partial(step_audio.init_params, size=size),
      out_shardings=sharding.replicated(self.mesh),
    )
    params = place(jax.random.key(0))
    trained = ("adaptor", "decoder")
    tx = optim.optimiser(ConfigDict(_ADAMW), 1000)
    self.state = steps.initial_state(params, trained, tx, jax.random.key(1))
    self.reference = jax.tree.map(jnp.copy, {part: params[part] for part in trained})
    known = {"model": model, "temperature": TEMPERATURE}
    self.logprobs = jax.jit(functools.partial(policy.logprobs, **known))
    loss_fn = policy.policy_loss(
      model,
      grpo,
      _HYPER,
      estimator="k3",
      aggregation="token_mean",
      temperature=TEMPERATURE,
      first=True,
    )
    one = functools.partial(steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=1)
    self.update = steps.jitted(one, self.state)
    self.advised = jax.jit(functools.partial(grpo.advantages, group=job.samples))
    settings = sampling.Settings(
      job.new_tokens, stop_ids=(), pad_id=PAD, copies=job.samples
    )
    self.prefilled = jax.jit(
      functools.partial(program.prefilled, model=model, settings=settings)
    )
    self.prompts = prompts(job, size)

  def sample(self, key: Array) -> Rollout:
    return sampling.sample(
      self.state.params,
      self.prompts,
      key,
      model=self.model,
      max_new_tokens=self.job.new_tokens,
      stop_ids=(),
      pad_id=PAD,
      temperature=TEMPERATURE,
      copies=self.job.samples,
    )

  def laid(self, rollout: Rollout) -> Any:
    """The replies behind their prompts, as training reads them."""
    job = self.job
    shape = (job.prompts, job.samples, job.new_tokens)
    counts = np.full(shape[:2], job.new_tokens, np.int32)
    replies = Replies(self.prompts, np.asarray(rollout.token_BT).reshape(shape), counts)
    if self.shared:
      return replies
    return packing.packed(replies, 1, job.prompt_tokens + job.new_tokens, PAD)

  def key(self, number: int) -> Array:
    return jax.random.fold_in(jax.random.key(2), number)

  def step(self, number: int) -> dict[str, float]:
    """One step; seconds of the whole ("step") and of each phase."""
    clock = Clock()
    rollout = jax.block_until_ready(self.sample(self.key(number)))
    clock.stop("decode")
    replies = self.laid(rollout)
    reward_BC = rewards(np.asarray(rollout.token_BT))
    clock.stop("reward")
    told = jax.block_until_ready(self.logprobs(self.reference, replies))
    clock.stop("reference")
    seen = experience(rollout, told, reward_BC)
    whole = policy.grouped(replies, self.advised(seen), BETA)
    self.state, scalars = self.update(self.state, whole)
    jax.block_until_ready(scalars)
    clock.stop("update")
    drawn = int(np.asarray(rollout.mask_BT).sum())
    if drawn != self.job.drawn:
      raise RuntimeError(f"{drawn} tokens were drawn, the job has {self.job.drawn}")
    return clock.seconds | {"step": sum(clock.seconds.values())}

  def sample_s(self, number: int) -> float:
    """Seconds of generation alone."""
    clock = time.perf_counter()
    jax.block_until_ready(self.sample(self.key(number)))
    return time.perf_counter() - clock

  def prefill_s(self) -> float:
    """Seconds of the prefill alone, a part of what `step` calls decode."""
    rows = np.arange(self.job.prompts, dtype=np.int32)
    asked = program.Asked(self.key(0), rows, np.float32(1.0))
    arguments = (self.reference, self.prompts, asked)
    jax.block_until_ready(self.prefilled(*arguments))
    clock = time.perf_counter()
    jax.block_until_ready(self.prefilled(*arguments))
    return time.perf_counter() - clock


class Clock:
  """Seconds between stops, by name."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self._last = time.perf_counter()

  def stop(self, name: str) -> None:
    now = time.perf_counter()
    self.seconds[name], self._last = now - self._last, now


def prompts(job: Job, size: Size) -> Batch:
  """Random text of equal lengths, on the host."""
  shape = (job.prompts, job.prompt_tokens)
  rng = np.random.default_rng(0)
  ones = np.ones(shape, np.int32)
  return Batch(
    token_BT=rng.integers(0, 256, shape, np.int32),
    segment_BT=ones,
    position_BT=np.cumsum(ones, axis=1, dtype=np.int32) - 1,
    loss_BT=np.zeros(shape, np.bool_),
    example_BT=np.arange(job.prompts, dtype=np.int32)[:, None] * ones,
    source_BT=0 * ones,
    frames_BRUE=np.zeros((job.prompts, 0, 0, size.encoder_width), np.float32),
    frame_count_BR=np.zeros((job.prompts, 0), np.int32),
    audio_BT=-ones,
  )


def rewards(token_BT: np.ndarray) -> np.ndarray:
  """Different tokens of each reply, [B, 1]: what the peers' runs reward."""
  return np.asarray([[len(set(row))] for row in token_BT.tolist()], np.float32)


@jax.jit
def experience(rollout: Rollout, reference_BQT: Array, reward_BC: Array) -> Experience:
  shape = rollout.mask_BT.shape
  zero_BT = jnp.zeros(shape, jnp.float32)
  return Experience(
    mask_BT=rollout.mask_BT,
    sampler_BT=rollout.logprob_BT,
    old_BT=zero_BT,  # one update follows, which knows
    reference_BT=reference_BQT.reshape(shape),
    reward_BC=reward_BC,
    weight_BC=jnp.ones_like(reward_BC),
    value_BT=zero_BT,
    advantage_BT=zero_BT,
    return_BT=zero_BT,
  )


def flops(job: Job, shared: bool, size: Size = SIZE) -> dict[str, float]:
  """Of each phase, by fit/work.py: nothing for norms, activations or padding."""
  rows, new = job.prompts * job.samples, job.new_tokens
  context = job.prompt_tokens + new // 2
  read = job.prompts if shared else rows
  forward = work.decoded(size, read, job.prompt_tokens, scored=0)
  forward += work.continued(size, rows, job.prompt_tokens, new)
  first = job.prompts
  return {
    "prefill": work.decoded(size, first, job.prompt_tokens, scored=first),
    "decode": rows * (new - 1) * work.drawn(size, context),
    "reference": forward,
    "update": 3 * forward,
  }


def decode_bytes(job: Job, size: Size = SIZE) -> float:
  """Read while decoding: weights and keys for each token, float32."""
  rows, new = job.prompts * job.samples, job.new_tokens
  keys = 2 * size.layers * size.kv_heads * size.head_width
  cached = keys * (job.prompts * job.prompt_tokens + rows * new // 2)
  return 4.0 * (new - 1) * (sum(work.weights(size)) + cached)


def slots(replies: Any) -> int:
  """Places of tokens that a forward pass computes."""
  if isinstance(replies, Replies):
    return replies.prompts.token_BT.size + replies.token_BQT.size
  return replies.batch.token_BT.size


def matmul_rate(best_of: int = 7) -> float:
  """float32 FLOP/s of XLA on an MLP's product, the best of several."""
  a, b = jnp.ones((4096, 512)), jnp.ones((512, 1408))
  product = jax.jit(jnp.dot)
  return 2 * 4096 * 512 * 1408 / fastest(lambda: product(a, b), best_of)


def bandwidth(best_of: int = 7) -> float:
  """Bytes a second that a sum of 256 MB reads."""
  x = jnp.ones(64 << 20, jnp.float32)
  total = jax.jit(jnp.sum)
  return x.nbytes / fastest(lambda: total(x), best_of)


def fastest(run: Callable[[], Any], best_of: int) -> float:
  jax.block_until_ready(run())
  seconds = []
  for _ in range(best_of):
    clock = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - clock)
  return min(seconds)
