"""The programs of a policy-gradient step behind its replies: judged, measured, learnt.

Every reply is as long as it may be behind the longest prompt, in the packs, rows and
parts of rows that the recipe makes of them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from stepaudio_jax import learner, policy, rl, sharding
from stepaudio_jax.core import packs
from stepaudio_jax.core.types import (
  Experience,
  PackedReplies,
  Params,
  Replies,
  TrainState,
)
from stepaudio_jax.data import loader
from stepaudio_jax.fit import abstract, work
from stepaudio_jax.fit.job import Job, Program
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.rollout import actor, judge
from stepaudio_jax.text import tokenizer as tokenizers

_ON_THOUGHT = ("acoustic_grounding",)  # as configs/reward_model.py has it


def reward_scores(job: Job) -> Program:
  """One part of a step's replies, each in two views, read by the reward model."""
  c, size, mesh = job.c, job.size, job.mesh
  if not c.rewards.learned:
    raise ValueError(f"a recipe of {c.stage!r} without rewards.learned asks no model")
  model = sharding.model(c, size, mesh)
  room = judge.reply_room(
    job.new_tokens, judge.opening_tokens(tokenizers.load(c.tokenizer))
  )
  prompts, views = _rows(job), 2 * job.copies
  limits = loader.limits(c.data)
  if c.data.pack:
    replies = abstract.packed(
      limits,
      prompts,
      views,
      room,
      size.encoder_width,
      mesh,
      shared=False,
      row_tokens=judge.packed_row(limits.max_tokens, room),
    )
  else:
    asked_ = abstract.batch(prompts, limits, size.encoder_width, mesh)
    replies = abstract.replies(asked_, views, room, mesh)
  thought = [name in _ON_THOUGHT for name in c.rewards.learned]
  return Program(
    "reward scores",
    mesh,
    judge.program(model, tuple(thought)),
    (reward_model(job), replies),
    flops=_read(job, prompts, views, room),
    tokens=_tokens(replies),
  )


def old_logprobs(job: Job) -> Program:
  """Log-probabilities and entropies of all of a step's replies under the policy."""
  function = functools.partial(policy.measured, **_known(job))
  params = _speaking(job, jnp.float32)
  return _measured(job, "old log-probs", function, params, head=True)


def reference_logprobs(job: Job) -> Program:
  """The same replies under the reference, which may come from the host's memory."""
  params = reference(job)
  function = actor.from_host(params, _known(job))
  return _measured(job, "reference log-probs", function, params, head=True)


def values(job: Job) -> Program:
  """What the critic expects before each token of the same replies."""
  if not rl.load(job.c.algorithm.name).CRITIC:
    raise ValueError(f"algorithm={job.c.algorithm.name!r} has no critic")
  critic = state(job).params["critic"]
  model = sharding.model(job.c, job.size, job.mesh)
  function = functools.partial(policy.values, model=model)
  return _measured(job, "values", function, critic, head=False)


def update(job: Job) -> Program:
  """One update: losses of policy and critic, gradients, optimiser."""
  c, size, mesh = job.c, job.size, job.mesh
  algorithm = rl.load(c.algorithm.name)
  model = sharding.model(c, size, mesh)
  begun = state(job)
  step = learner.step_program(
    c, model, algorithm, learner.optimiser(c, algorithm), begun
  )
  prompts = job.prompts // c.minibatches
  some = replies(job, prompts, c.microbatches)
  passes = _read(job, prompts, job.copies, job.new_tokens)
  if algorithm.CRITIC:
    passes += _read(job, prompts, job.copies, job.new_tokens, head=False)
  return Program(
    "update",
    mesh,
    step,
    (begun, learnt(some)),
    flops=3 * passes,
    tokens=_tokens(some),
  )


PROGRAMS: Mapping[str, Callable[[Job], Program]] = {
  "reward scores": reward_scores,
  "old log-probs": old_logprobs,
  "reference log-probs": reference_logprobs,
  "values": values,
  "update": update,
}


def asked(c: ConfigDict) -> list[str]:
  """Those of `PROGRAMS` that a recipe runs in a step."""
  absent = set() if c.rewards.learned else {"reward scores"}
  if learner.update_measures(c):
    absent.add("old log-probs")
  if not rl.load(c.algorithm.name).CRITIC:
    absent.add("values")
  return [name for name in PROGRAMS if name not in absent]


def state(job: Job) -> TrainState:
  """learner.initial_state's, abstract."""
  c, size = job.c, job.size
  algorithm = rl.load(c.algorithm.name)
  params = _speaking(job, jnp.float32)
  held = {**params, **abstract.params(size, job.mesh, {"encoder": _dtype(c)})}
  if algorithm.CRITIC:
    make = functools.partial(heads.init_value, width=size.width)
    shapes = jax.eval_shape(make, jax.random.key(0))
    held["critic"] = {**params, "value": _everywhere(job, shapes)}
  trained = tuple(part for part in held if part != "encoder")
  offload = "optimiser" in sharding.offloads(c.offload, learner.OFFLOADS)
  return abstract.state(held, trained, learner.optimiser(c, algorithm), offload=offload)


def reference(job: Job) -> Params:
  """Adaptor and decoder in the recipe's type, in the host's memory if it says so."""
  found = _speaking(job, _dtype(job.c))
  if "reference" not in job.c.offload:
    return found
  far = sharding.in_host_memory(sharding.places(found))
  return abstract.placed(found, far)


def reward_model(job: Job) -> Params:
  """A reward model of the policy's size, as rollout/judge.py holds it."""
  count = len(job.c.rewards.learned)
  make = functools.partial(heads.init_rewards, width=job.size.width, dimensions=count)
  shapes = jax.eval_shape(make, jax.random.key(0))
  return {**_speaking(job, _dtype(job.c)), "rewards": _everywhere(job, shapes)}


def replies(job: Job, prompts: int, parts: int) -> Replies | PackedReplies:
  """The replies to so many of a step's prompts.

  Args:
    parts: that are computed one after another.
  """
  c, mesh, width = job.c, job.mesh, job.size.encoder_width
  if c.sampling.turns > 1:
    raise ValueError(
      f"sampling.turns={c.sampling.turns}: one turn is priced; set it to 1 here, and "
      "prompts_per_step to the rows of all turns"
    )
  sharding.rows(prompts, parts, mesh)
  limits = loader.limits(c.data)
  if not c.data.pack:
    asked_ = abstract.batch(prompts, limits, width, mesh)
    return abstract.replies(asked_, job.copies, job.new_tokens, mesh)
  return abstract.packed(
    limits,
    prompts,
    job.copies,
    job.new_tokens,
    width,
    mesh,
    shared=c.data.share_prompts,
    parts=parts,
    row_tokens=c.data.row_tokens,
    row_counts=c.data.pack_rows,
  )


def learnt(some: Replies | PackedReplies) -> policy.Update:
  """policy.grouped of replies and what was measured of them."""
  place = jax.tree.leaves(some)[0].sharding
  token, _ = jax.eval_shape(packs.laid_out, some)
  count, length = token.shape[0] * token.shape[1], token.shape[2]
  number = jax.ShapeDtypeStruct((count, length), jnp.float32)
  once = jax.ShapeDtypeStruct((count, 1), jnp.float32)
  names = ("sampler", "old", "reference", "value", "advantage", "return")
  experience = Experience(
    mask_BT=jax.ShapeDtypeStruct(number.shape, jnp.bool_),
    reward_BC=once,
    weight_BC=once,
    **{f"{name}_BT": number for name in names},
  )
  whole = jax.eval_shape(policy.grouped, some, experience, 0.0)
  return jax.tree.map(lambda x: abstract.at(place, x.shape, x.dtype), whole)


def _measured(
  job: Job, name: str, function: Callable, params: Params, *, head: bool
) -> Program:
  """A program that reads all replies of a step under `params`."""
  c = job.c
  some = replies(job, job.prompts, c.minibatches * c.microbatches)
  return Program(
    name,
    job.mesh,
    jax.jit(function),
    (params, some),
    flops=_read(job, job.prompts, job.copies, job.new_tokens, head=head),
    tokens=_tokens(some),
  )


def _known(job: Job) -> dict[str, Any]:
  model = sharding.model(job.c, job.size, job.mesh)
  return {"model": model, "temperature": job.c.sampling.temperature}


def _rows(job: Job) -> int:
  """Prompts of one part of an update, all devices' together."""
  c = job.c
  sharding.rows(job.prompts // c.minibatches, c.microbatches, job.mesh)
  return job.prompts // (c.minibatches * c.microbatches)


def _read(
  job: Job, prompts: int, copies: int, tokens: int, *, head: bool = True
) -> float:
  """The model's own flops: each prompt once, and all replies to it."""
  size, before = job.size, job.c.data.max_tokens
  count = prompts * copies
  whole = work.decoded(size, prompts, before, scored=0)
  whole += work.continued(size, count, before, tokens)
  return whole if head else whole - 2.0 * work.weights(size)[1] * count * tokens


def _tokens(some: Replies | PackedReplies) -> int:
  """Slots of rows."""
  if isinstance(some, PackedReplies):
    return some.batch.token_BT.size
  return some.prompts.token_BT.size + some.token_BQT.size


def _speaking(job: Job, dtype: Any) -> Params:
  return abstract.params(job.size, job.mesh, dict.fromkeys(learner.SPEAKING, dtype))


def _everywhere(job: Job, shapes: Params) -> Params:
  place = sharding.replicated(job.mesh)
  return jax.tree.map(lambda x: abstract.at(place, x.shape, x.dtype), shapes)


def _dtype(c: ConfigDict) -> Any:
  return step_audio.DTYPES[c.dtype]
