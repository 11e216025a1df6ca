"""Policy-gradient stages: RLVR and RLHF. One loop around sampling, different rewards.

  python -m stepaudio_jax.train_rl --config configs/rlvr.py --workdir runs/rlvr \
    --config.init=runs/sft

The same command with the same workdir goes on where it was killed.
"""

import dataclasses
import functools
import time
from contextlib import closing
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import (
  checkpoint,
  logs,
  meshes,
  optim,
  origins,
  policy,
  preemption,
  rl,
  sharding,
  steps,
  workdirs,
)
from stepaudio_jax.core import entry, packs, processes, recipe
from stepaudio_jax.core.types import Experience, Params, TrainState
from stepaudio_jax.data import loader
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.rl.parts.kl import ESTIMATORS, kl
from stepaudio_jax.rollout import heldout, summary
from stepaudio_jax.rollout.actor import Actor, Packing, Played, Sampling
from stepaudio_jax.rollout.judge import LearnedJudge
from stepaudio_jax.rollout.scorer import Scorer
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

_KEYS = (
  *("stage", "seed", "size", "tokenizer", "dtype", "remat"),
  *("head_chunks", "attention", "offload"),
  *("init", "reference", "reward_model"),
  *("total_steps", "prompts_per_step", "epochs", "minibatches", "microbatches"),
  *("sampling.samples", "sampling.max_new_tokens", "sampling.temperature"),
  *("algorithm.name", "aggregation", "kl.beta", "kl.estimator", "kl.where"),
  *(
    f"{name}.{axis}" for name in ("mesh", "sampling_mesh") for axis in meshes.MESH_AXES
  ),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps", "log.prompts"),
  *("heldout.split", "heldout.prompts", "heldout.samples", "heldout.batch_size"),
  "heldout.every_steps",
  *("data.split", "data.cache", "data.max_clip_s", "data.max_tokens"),
  *("data.max_clips", "data.encode_batch", "data.history", "data.pack"),
  *(f"optim.{name}" for name in optim.KEYS),
)
_FREE = ("data.mix.", "data.options.", "rewards.")
_COUNTS = (
  *("total_steps", "prompts_per_step", "minibatches", "microbatches", "epochs"),
  *("head_chunks", "sampling.samples", "sampling.max_new_tokens"),
  *("heldout.prompts", "heldout.samples", "heldout.batch_size"),
  *("checkpoint.every_steps", "checkpoint.keep"),
)
_SPEAKING = ("adaptor", "decoder")
OFFLOADS = ("optimiser", "reference")
KL_PLACES = ("loss", "reward")
AGGREGATIONS = ("token_mean", "sequence_mean_token_mean")


def run(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Trains to `config.total_steps` and returns the workdir, a loadable checkpoint."""

  # ─── Set-up ───────────────────────────────────────────────────────────────────────
  c = checked(config.copy_and_resolve_references())
  workdir = logs.check_workdir(workdir, c)
  entry.compilation_cache(workdir / "xla_cache")
  tokenizer = tokenizers.load(c.tokenizer)
  origins.check_tokenizer(c.init, tokenizer)
  mesh = meshes.mesh(c.mesh)
  drawing_mesh = meshes.another_mesh(c.sampling_mesh, mesh)
  sharding.rows(c.prompts_per_step, 1, drawing_mesh)
  sharding.rows(c.prompts_per_step // c.minibatches, c.microbatches, mesh)
  for each in (mesh, drawing_mesh):
    sharding.rows(c.heldout.batch_size, 1, each)
  size = origins.start_size(c.size, c.init)
  model = sharding.model(c, size, mesh)
  algorithm = rl.load(c.algorithm.name)

  # ─── Policy, critic, reference ────────────────────────────────────────────────────
  sources = {"init": c.init, "reference": c.reference or c.init}
  sources |= {"reward_model": c.reward_model} if c.reward_model else {}
  sources = origins.pinned(workdir, sources)
  axes = step_audio.axis_names(size)
  held = dict.fromkeys(_SPEAKING, "float32") | {"encoder": c.dtype}
  loaded = origins.load_params(sources["init"], place=sharding.placer(mesh, axes, held))
  tx = optimiser(c, algorithm)
  state = initial_state(c, loaded, tx, algorithm)
  encoder = sharding.gathered(loaded["encoder"])
  del loaded  # the state's, which the first step overwrites
  place = sharding.placer(
    mesh, axes, dict.fromkeys(_SPEAKING, c.dtype), offload="reference" in c.offload
  )
  reference = _speaking(origins.load_params(sources["reference"], place=place))

  # ─── Prompts, rewards ─────────────────────────────────────────────────────────────
  cache = epath.Path(c.data.cache) if c.data.cache else workdir / "cache"
  ear = hearing.frozen_encoder({"encoder": encoder}, model)
  open_prompts = functools.partial(
    loader.prompts, c.data, cache=cache, tokenizer=tokenizer, **ear
  )
  feed = open_prompts(c.data.split)
  batches = loader.batches(feed, c.seed, c.prompts_per_step, pack=False)
  reader = judge(c, sources, encoder, tokenizer, mesh)
  scorer = Scorer(c.rewards.rules, c.rewards.learned, reader)
  player = functools.partial(
    Actor,
    model,
    tokenizer,
    scorer,
    reference,
    mesh,
    drawing_mesh=drawing_mesh,
  )
  actor = player(
    Sampling(**c.sampling), packing(c, mesh, c.minibatches * c.microbatches)
  )
  exam = heldout.Exam(
    open_prompts(c.heldout.split),
    c.heldout.prompts,
    c.heldout.batch_size,
    player(
      Sampling(**{**c.sampling, "samples": c.heldout.samples}), packing(c, mesh, 1)
    ),
  )
  logs.record(workdir, c)
  if processes.first():
    workdirs.describe(workdir, model.size, tokenizer)

  # ─── Resume ───────────────────────────────────────────────────────────────────────
  saved = checkpoint.Checkpoints(workdir, **c.checkpoint)
  if saved.begun(c.total_steps):
    state, position = saved.restore(state)
    batches.set_state(position)
    logs.say(f"resumed after step {int(state.step) // (c.epochs * c.minibatches)}")
  start = int(state.step) // (c.epochs * c.minibatches)
  metrics = logs.Metrics(workdir, start_step=start, total_steps=c.total_steps)
  samples = logs.Journal(workdir / "samples.jsonl", start_step=start)
  # Rows of step 0 are whole once there is a checkpoint.
  exams = logs.Journal(workdir / "heldout.jsonl", start_step=start or -1)
  update = updater(c, model, algorithm, tx, state)
  advantages = jax.jit(functools.partial(advised, c, algorithm))

  # ─── Loop ─────────────────────────────────────────────────────────────────────────
  with (
    sharding.over(mesh),
    closing(batches),
    closing(metrics),
    closing(samples),
    closing(exams),
    closing(saved),
    preemption.Notice() as notice,
  ):
    if not exams.kept:
      exams.write(exam.rows(state.params, 0, c.seed))
    for step in range(start + 1, c.total_steps + 1):
      clock = time.perf_counter()
      prompts, ids = next(batches)
      rng = jax.random.fold_in(jax.random.key(c.seed), step)
      asked = [feed.row(name) for name in ids]
      played = actor.play(state.params, prompts, processes.part(asked), rng)
      learned = dataclasses.replace(played, experience=advantages(played.experience))
      state, values = update(state, learned, step, ids)
      values |= summary.summary(actor.whole(played), c.sampling.samples)
      values |= {"data/skipped": len(feed.skipped)}
      values |= packs.padding(played.replies)
      values |= {f"time/{name}": taken for name, taken in played.seconds.items()}
      values |= {"time/step_s": time.perf_counter() - clock}
      if step % c.log.every_steps == 0 or step == c.total_steps:
        metrics.write(step, values)
        samples.write(summary.rows(step, asked, actor.whole(learned), c.log.prompts))
      if exam.due(step, c.heldout.every_steps, c.total_steps):
        exams.write(exam.rows(state.params, step, c.seed))
      leaving = notice.given(step)
      if leaving or saved.due(step, c.total_steps):
        for journal in (metrics, samples, exams):
          journal.flush()
        saved.save(step, state, batches.get_state())
      if leaving:
        saved.wait()
        preemption.leave(step, workdir)
  if processes.first():
    result = heldout.compared(logs.read_metrics(workdir / "heldout.jsonl"))
    logs.write_json(workdir / "heldout.json", result)
    logs.say(heldout.table(result))
  return workdir


def checked(c: ConfigDict) -> ConfigDict:
  """The config, if every key is one that is read and none is missing.

  Raises:
    ValueError: naming the keys or values that are wrong, and the choices.
  """
  recipe.check_loop(c, "algorithm", "train")
  algorithm = rl.load(c.algorithm.name)
  keys = (*_KEYS, *(f"algorithm.{name}" for name in algorithm.DEFAULTS))
  if algorithm.CRITIC:
    keys += tuple(f"critic_optim.{name}" for name in optim.KEYS)
  recipe.check_keys(c, keys, free=_FREE)
  recipe.check_counts(c, _COUNTS)
  if c.kl.where not in KL_PLACES or (c.kl.where == "reward" and not algorithm.CRITIC):
    raise ValueError(
      f"kl.where={c.kl.where!r} with {c.algorithm.name!r}; the choices are "
      f"{KL_PLACES}, and 'reward' needs an algorithm with rewards by token (a critic)"
    )
  recipe.choose("aggregation", c.aggregation, dict.fromkeys(AGGREGATIONS))
  recipe.choose("kl.estimator", c.kl.estimator, dict.fromkeys(ESTIMATORS))
  prompts, parts = c.prompts_per_step, c.minibatches * c.microbatches
  if prompts % parts or c.heldout.prompts % c.heldout.batch_size:
    raise ValueError(
      f"prompts_per_step={prompts} must be a multiple of minibatches × microbatches = "
      f"{parts}, and heldout.prompts={c.heldout.prompts} one of heldout.batch_size="
      f"{c.heldout.batch_size}"
    )
  return c


def optimiser(c: ConfigDict, algorithm: ModuleType) -> optax.GradientTransformation:
  """The policy's, and beside it the critic's own."""
  updates = c.total_steps * c.epochs * c.minibatches
  ours = optim.optimiser(c.optim, updates)
  if not algorithm.CRITIC:
    return ours
  both = {"policy": ours, "critic": optim.optimiser(c.critic_optim, updates)}
  return optax.partition(both, _owners)


def _owners(params: Params) -> dict[str, str]:
  return {name: "critic" if name == "critic" else "policy" for name in params}


def initial_state(
  c: ConfigDict,
  loaded: Params,
  tx: optax.GradientTransformation,
  algorithm: ModuleType,
) -> TrainState:
  """The policy of `c.init`; a critic starts as its copy with a value head."""
  params = {**_speaking(loaded), "encoder": loaded["encoder"]}
  key = jax.random.key(c.seed)
  if algorithm.CRITIC:
    scale = loaded["decoder"]["norm"]["scale"]
    everywhere = sharding.replicated(scale.sharding.mesh)
    make = functools.partial(heads.init_value, width=scale.shape[-1])
    value = jax.jit(make, out_shardings=everywhere)(key)
    # Its own copy: a step overwrites both.
    params["critic"] = {**jax.tree.map(jnp.copy, _speaking(loaded)), "value": value}
  trained = [part for part in params if part != "encoder"]
  offload = "optimiser" in sharding.offloads(c.offload, OFFLOADS)
  return steps.initial_state(params, trained, tx, key, offload=offload)


def _speaking(params: Params) -> Params:
  return {part: params[part] for part in _SPEAKING}


def packing(c: ConfigDict, mesh: jax.sharding.Mesh, parts: int) -> Packing | None:
  """A pack for each device and part of an update; none where `data.pack` is off."""
  if not c.data.pack:
    return None
  packs = sharding.packs(mesh, parts)
  return Packing(packs, c.data.max_tokens + c.sampling.max_new_tokens)


def judge(
  c: ConfigDict,
  sources: dict[str, epath.Path],
  encoder: Params,
  tokenizer: Tokenizer,
  mesh: jax.sharding.Mesh,
) -> LearnedJudge | None:
  """The reward model of `c.reward_model`; none where no learned reward is named.

  Raises:
    ValueError: a dimension that it lacks; its own are listed.
  """
  if not c.rewards.learned:
    return None
  if not c.reward_model:
    raise ValueError(f"rewards {sorted(c.rewards.learned)} need a reward_model")
  loaded = origins.load_reward_model(sources["reward_model"])
  unknown = sorted(set(c.rewards.learned) - set(loaded.dimensions))
  if unknown:
    raise ValueError(
      f"unknown reward dimensions {unknown}; {c.reward_model} has {loaded.dimensions}"
    )
  return LearnedJudge(
    loaded,
    encoder=encoder,
    tokenizer=tokenizer,
    max_new_tokens=c.sampling.max_new_tokens,
    dtype=jnp.dtype(c.dtype),
    mesh=mesh,
  )


def advised(c: ConfigDict, algorithm: ModuleType, experience: Experience) -> Experience:
  """With the algorithm's advantages; a KL in the reward is added to each token's."""
  extra = {}
  if c.kl.where == "reward":
    k1_BT = kl(experience.old_BT, experience.reference_BT, "k1")
    extra["kl_reward_BT"] = -c.kl.beta * k1_BT
  return algorithm.advantages(
    experience, group=c.sampling.samples, **_hyper(c), **extra
  )


def updater(
  c: ConfigDict,
  model: Any,
  algorithm: ModuleType,
  tx: optax.GradientTransformation,
  like: TrainState,
) -> Any:
  """(state, played, step, ids) → (state, values): epochs × minibatches updates.

  Args:
    like: a state that lies as the states are to lie.
  """
  loss_fn = policy.policy_loss(
    model,
    algorithm,
    _hyper(c),
    estimator=c.kl.estimator,
    aggregation=c.aggregation,
    temperature=c.sampling.temperature,
  )
  one = functools.partial(
    steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=c.microbatches
  )
  step_fn = steps.jitted(one, like)
  beta = c.kl.beta if c.kl.where == "loss" else 0.0

  def update(
    state: TrainState, played: Played, step: int, ids: list[str]
  ) -> tuple[TrainState, dict[str, float]]:
    whole = policy.grouped(played.replies, played.experience, beta)
    found = []
    for part in range(c.epochs * c.minibatches):
      first = part % c.minibatches
      some = jax.tree.map(lambda x, a=first: x[a :: c.minibatches], whole)
      state, scalars = step_fn(state, some)
      found.append(steps.finite(scalars, step, ids))
    return state, {name: np.mean([row[name] for row in found]) for name in found[0]}

  return update


def _hyper(c: ConfigDict) -> dict[str, Any]:
  return {name: value for name, value in c.algorithm.items() if name != "name"}


def main() -> None:
  entry.run_recipe("train_rl", __doc__, run)


if __name__ == "__main__":
  main()
