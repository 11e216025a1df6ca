"""Supervised stages: pre-alignment to SFT, reward models. One loop, different losses.

  python -m stepaudio_jax.train --config configs/sft.py:size=tiny --workdir runs/sft

The same command with the same workdir goes on where it was killed.
"""

import functools
import time
from contextlib import closing

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import (
  checkpoint,
  logs,
  meshes,
  objectives,
  optim,
  origins,
  preemption,
  sharding,
  steps,
  workdirs,
)
from stepaudio_jax.core import entry, packs, processes, recipe, tree
from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import adapters, heads, hear, mixture, raters, step_audio
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

OBJECTIVES = objectives.OBJECTIVES
_KEYS = (
  *("stage", "seed", "size", "tokenizer", "dtype", "remat"),
  *("head_chunks", "attention", "offload"),
  *("init", "fresh", "objective", "trainable"),
  *("total_steps", "batch_size", "microbatches"),
  *(f"mesh.{axis}" for axis in meshes.MESH_AXES),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps"),
  *("data.split", "data.cache", "data.max_clip_s"),
  *(f"optim.{name}" for name in optim.KEYS),
)
_COUNTS = ("total_steps", "batch_size", "microbatches", "head_chunks")
_COUNTS += ("checkpoint.every_steps", "checkpoint.keep", "log.every_steps")


def run(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Trains to `config.total_steps` and returns the workdir, a loadable checkpoint."""

  # ─── Set-up ───────────────────────────────────────────────────────────────────────
  c = checked(config.copy_and_resolve_references())
  workdir = logs.check_workdir(workdir, c)
  entry.compilation_cache(workdir / "xla_cache")
  tokenizer = tokenizers.load(c.tokenizer)
  size = start_size(c, tokenizer)
  mesh = meshes.mesh(c.mesh)
  sharding.rows(c.batch_size, c.microbatches, mesh)

  # ─── Model ────────────────────────────────────────────────────────────────────────
  model = sharding.model(c, size, mesh)
  init_key, step_key = jax.random.split(jax.random.key(c.seed))
  params = initial_params(c, model.size, tokenizer, init_key, mesh)
  if objectives.OBJECTIVES[c.objective].reference:
    params["reference"] = reference_params(c, model.size, params, mesh)
  tx = optim.optimiser(c.optim, c.total_steps)
  offload = sharding.offloads(c.offload, ("optimiser",))
  trained = (*c.trainable, *OBJECTIVES[c.objective].beside(c))
  state = steps.initial_state(
    params, trained, tx, step_key, offload="optimiser" in offload
  )
  del params  # the state's, which the first step overwrites
  counts = [f"{tree.parameter_count(p):,}" for p in (state.params, state.frozen)]
  logs.say(f"{counts[0]} trained, {counts[1]} frozen parameters")

  # ─── Resume ───────────────────────────────────────────────────────────────────────
  saved = checkpoint.Checkpoints(workdir, **c.checkpoint)
  position = None
  if saved.begun(c.total_steps):
    state, position = saved.restore(state)
    logs.say(f"resumed after step {int(state.step)}")
  start = int(state.step)

  # ─── Data ─────────────────────────────────────────────────────────────────────────
  objective = recipe.choose("objective", c.objective, OBJECTIVES)
  cache = epath.Path(c.data.cache) if c.data.cache else workdir / "cache"
  # Frames are those of the encoder that is trained on, whatever lies in `init` by now.
  batches, feed, loss_fn = objective.make(c, model, state.frozen, tokenizer, cache)
  if position is not None:
    batches.set_state(position)
  else:
    state = objective.begun(c, model, state, feed)
  logs.record(workdir, c)
  if processes.first():
    workdirs.describe(workdir, model.size, tokenizer)
    if "rewards" in objective.parts:
      workdirs.describe_rewards(workdir, c.dimensions, c.dims_on_thought)
    if getattr(feed, "raters", None):
      logs.write_json(workdir / "raters.json", [*feed.raters])

  # ─── Loop ─────────────────────────────────────────────────────────────────────────
  metrics = logs.Metrics(workdir, start_step=start, total_steps=c.total_steps)
  one = functools.partial(
    steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=c.microbatches
  )
  step_fn = steps.jitted(one, state)
  save_s = 0.0  # of the checkpoints since the last row
  with (
    sharding.over(mesh),
    closing(batches),
    closing(metrics),
    closing(saved),
    preemption.Notice() as notice,
  ):
    for step in range(start + 1, c.total_steps + 1):
      clock = time.perf_counter()
      batch, ids = next(batches)
      data_s = time.perf_counter() - clock
      state, scalars = step_fn(state, sharding.put(batch, mesh))
      values = steps.finite(scalars, step, ids)
      step_s = time.perf_counter() - clock
      if step % c.log.every_steps == 0 or step == c.total_steps:
        times = {"time/step_s": step_s, "time/data_s": data_s, "time/save_s": save_s}
        told = packs.padding(batch) | {"data/skipped": len(feed.skipped)}
        metrics.write(step, values | times | told)
        save_s = 0.0
      leaving = notice.given(step)
      if leaving or saved.due(step, c.total_steps):
        clock = time.perf_counter()
        metrics.flush()
        saved.save(step, state, batches.get_state())
        save_s += time.perf_counter() - clock
      if leaving:
        saved.wait()
        preemption.leave(step, workdir)
  return workdir


def checked(c: ConfigDict) -> ConfigDict:
  """The config, if every key is one that is read, and none is missing or impossible.

  Raises:
    ValueError: naming the keys or values that are wrong, and the choices.
  """
  recipe.check_loop(c, "objective", "train_rl")
  objective = recipe.choose("objective", c.objective, OBJECTIVES)
  recipe.check_keys(c, _KEYS + objective.keys, free=objective.free)
  recipe.check_counts(c, _COUNTS)
  if "data.pack_rows" in objective.keys:
    objectives.check_rows(c)
  unknown = sorted({*c.fresh, *c.trainable} - set(objective.parts))
  if unknown:
    raise ValueError(f"unknown parts {unknown}; {c.objective!r} has {objective.parts}")
  if objective.encoder_is_frozen and "encoder" in c.trainable:
    raise ValueError(
      f"trainable={tuple(c.trainable)}: {c.objective!r} reads frames that the encoder "
      "gave before training, so no gradient reaches it"
    )
  if not (*c.trainable, *objective.beside(c)):
    raise ValueError(f"trainable=() of {c.objective!r}: choose of {objective.parts}")
  return c


def start_size(c: ConfigDict, tokenizer: Tokenizer) -> Size:
  """The size that is trained, if what the run starts from can be started from.

  Raises:
    ValueError: it has other tokens or another size, or writes no replies where the
      objective is to write.
  """
  objective = OBJECTIVES[c.objective]
  if objective.parts == workdirs.PARTS:
    for key in ("init", "reference")[: 1 + objective.reference]:
      origins.check_writes(key, c[key])
  if c.init:
    origins.check_tokenizer(c.init, tokenizer)
  whole = {*workdirs.PARTS} <= {*objective.parts} - {*c.fresh}
  return origins.start_size(c.size, c.init, whole=whole)


def initial_params(
  c: ConfigDict,
  size: Size,
  tokenizer: Tokenizer,
  rng: Array,
  mesh: jax.sharding.Mesh,
) -> Params:
  """Parameters at step 0 on the mesh: read from `c.init`, anew where `c.fresh` says so.

  Trained ones are float32; frozen ones are held in `c.dtype`, which alone is used.

  Raises:
    ValueError: a part is neither in `c.init` nor in `c.fresh`, or a shape differs.
  """
  beside = OBJECTIVES[c.objective].beside(c)
  parts = (*OBJECTIVES[c.objective].parts, *beside)
  begun = (*c.fresh, *beside)

  def anew(rng: Array, names: tuple[str, ...]) -> Params:
    model_key, heads_key = jax.random.split(rng)
    made = dict(step_audio.init_params(model_key, size))
    if "hear" in parts:
      listeners = objectives.hearing_heads(c, tokenizer)
      made["hear"] = hear.init_params(heads_key, listeners, size.encoder_width)
    if "rewards" in parts:
      made["rewards"] = heads.init_rewards(heads_key, size.width, len(c.dimensions))
    if "adapters" in parts:
      made["adapters"] = adapters.init_params(
        jax.random.fold_in(heads_key, 1), size, **c.adapters
      )
    if "mixture" in parts:
      made["mixture"] = mixture.init_params(
        jax.random.fold_in(heads_key, 2),
        size.width,
        objectives.mixed(c),
        hidden=c.mixture.width,
        temperature=c.mixture.temperature,
      )
    if "raters" in parts:
      made["raters"] = raters.init_params(c.raters.room, len(c.dimensions))
    return {
      part: jax.tree.map(lambda x, d=dtypes[part]: x.astype(d), made[part])
      for part in names
    }

  whole = (*c.trainable, *beside, "rewards")  # heads read in float32, frozen or not
  dtypes = dict.fromkeys(parts, c.dtype) | dict.fromkeys(whole, "float32")
  axes = step_audio.axis_names(size)
  wanted = jax.eval_shape(functools.partial(anew, names=parts), rng)
  places = sharding.parameters(mesh, axes, wanted)
  # Compiled as one program, parts that are not asked for are not computed.
  fresh = jax.jit(
    anew,
    static_argnames="names",
    out_shardings={part: places[part] for part in begun},
  )(rng, names=begun)
  place = sharding.placer(mesh, axes, {p: dtypes[p] for p in parts if p not in fresh})
  loaded = origins.load_params(c.init, place=place) if c.init else {}
  lacking = [part for part in parts if part not in loaded and part not in fresh]
  if lacking:
    raise ValueError(
      f"parameters {lacking} are not in init={c.init!r} (which has {sorted(loaded)}); "
      "name them in `fresh` to start them from random weights"
    )
  chosen = {part: fresh[part] if part in fresh else loaded[part] for part in parts}
  _check_shapes(chosen, wanted, f"init={c.init!r}")
  return chosen


def reference_params(
  c: ConfigDict, size: Size, start: Params, mesh: jax.sharding.Mesh
) -> Params:
  """Adaptor and decoder of `c.reference` in `c.dtype`; "" is a copy of the start.

  A run keeps them in its checkpoints, so that whatever lies there by now, it goes on
  with those that it began with.

  Raises:
    ValueError: they are of another size.
  """
  speaking = {part: start[part] for part in ("adaptor", "decoder")}
  if not c.reference:
    # Its own copy: a step overwrites what is trained.
    return jax.tree.map(lambda x: jnp.copy(x).astype(c.dtype), speaking)
  place = sharding.placer(
    mesh, step_audio.axis_names(size), dict.fromkeys(speaking, c.dtype)
  )
  origins.check_tokenizer(c.reference, tokenizers.load(c.tokenizer))
  loaded = origins.load_params(c.reference, place=place)
  chosen = {part: loaded[part] for part in speaking}
  _check_shapes(chosen, speaking, f"reference={c.reference!r}")
  return chosen


def _check_shapes(chosen: Params, wanted: Params, origin: str) -> None:
  wants = {name: leaf.shape for name, leaf in tree.named_leaves(wanted)}
  has = {name: leaf.shape for name, leaf in tree.named_leaves(chosen)}
  wrong = [
    f"{name} {has[name]} ≠ {wants.get(name, 'absent')}"
    for name in has
    if name not in wants or has[name] != wants[name]
  ]
  if wrong:
    raise ValueError(f"{origin} is of another size: {'; '.join(wrong[:8])}")


def main() -> None:
  entry.run_recipe("train", __doc__, run)


if __name__ == "__main__":
  main()
