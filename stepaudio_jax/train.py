"""Supervised stages: pre-alignment to SFT, reward models. One loop, different losses.

  python -m stepaudio_jax.train --config configs/sft.py:size=tiny --workdir runs/sft

The same command with the same workdir goes on where it was killed.
"""

import functools
import time
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from stepaudio_jax import checkpoint, logs, optim, sharding, steps
from stepaudio_jax.core import recipe, tree
from stepaudio_jax.core.types import Params, TrainState
from stepaudio_jax.data import hearing, loader
from stepaudio_jax.models import heads, hear, sizes, step_audio
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

_KEYS = (
  *("stage", "seed", "size", "tokenizer", "dtype", "remat"),
  *("init", "fresh", "objective", "trainable"),
  *("total_steps", "batch_size", "microbatches"),
  *("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.context"),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps"),
  *("data.split", "data.cache", "data.max_clip_s"),
  *(f"optim.{name}" for name in optim.KEYS),
)
_OBJECTIVE_KEYS = {
  "hear": ("data.symbols", "data.max_symbols"),
  "next_token": (
    *("data.max_tokens", "data.max_clips", "data.encode_batch"),
    *("data.history", "data.pack"),
  ),
  "preference": (
    *("dimensions", "dims_on_thought", "loss.margin", "loss.scaled"),
    *(f"loss.weights.{name}" for name in steps.PREFERENCE_LOSSES),
    *("data.max_tokens", "data.max_clips", "data.encode_batch"),
    *("data.max_reply_tokens", "data.max_raters"),
  ),
}


class NonFiniteLoss(FloatingPointError):
  """The loss or gradient is not finite; the last checkpoint is intact."""


def run(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Trains to `config.total_steps` and returns the workdir, a loadable checkpoint."""

  # ─── Set-up ───────────────────────────────────────────────────────────────────────
  c = checked(config.copy_and_resolve_references())
  workdir = logs.check_workdir(workdir, c)
  jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "xla_cache"))
  tokenizer = tokenizers.load(c.tokenizer)
  model_size = sizes.size(c.size)
  mesh = sharding.mesh(c.mesh)

  # ─── Model ────────────────────────────────────────────────────────────────────────
  model = step_audio.StepAudio(model_size, dtype=jnp.dtype(c.dtype), remat=c.remat)
  params = initial_params(c, model_size, tokenizer)
  trained, frozen = tree.split(params, tuple(c.trainable))
  tx = optim.optimiser(c.optim, c.total_steps)
  key = jax.random.key_data(jax.random.key(c.seed))
  state = TrainState(trained, frozen, tx.init(trained), jnp.int32(0), key)
  state = jax.device_put(state, sharding.replicated(mesh))
  logs.say(f"{_count(trained)} trained, {_count(frozen)} frozen parameters")

  # ─── Data ─────────────────────────────────────────────────────────────────────────
  objective = recipe.choose("objective", c.objective, OBJECTIVES)
  cache = epath.Path(c.data.cache) if c.data.cache else workdir / "cache"
  batches, feed, loss_fn = objective(c, model, params, tokenizer, cache)

  logs.record(workdir, c)
  checkpoint.describe(workdir, model_size, tokenizer)
  if "rewards" in params:
    checkpoint.describe_rewards(workdir, c.dimensions, c.dims_on_thought)

  # ─── Resume ───────────────────────────────────────────────────────────────────────
  saved = checkpoint.Checkpoints(workdir, **c.checkpoint)
  if saved.latest() is not None:
    state, position = saved.restore(state)
    batches.set_state(position)
    logs.say(f"resumed after step {int(state.step)}")
  start = int(state.step)
  metrics = logs.Metrics(workdir, start_step=start, total_steps=c.total_steps)
  step_fn = jax.jit(
    functools.partial(
      steps.train_step, loss_fn=loss_fn, tx=tx, microbatches=c.microbatches
    ),
    donate_argnums=0,
  )

  # ─── Loop ─────────────────────────────────────────────────────────────────────────
  with closing(batches), closing(saved), closing(metrics):
    clock = time.perf_counter()
    for step in range(start + 1, c.total_steps + 1):
      batch, ids = next(batches)
      data_s = time.perf_counter() - clock
      state, scalars = step_fn(state, sharding.put(batch, mesh))
      values = _finite(scalars, step, ids)
      step_s, clock = time.perf_counter() - clock, time.perf_counter()
      if step % c.log.every_steps == 0 or step == c.total_steps:
        times = {"time/step_s": step_s, "time/data_s": data_s}
        metrics.write(step, values | times | {"data/skipped": len(feed.skipped)})
      if saved.due(step, c.total_steps):
        saved.save(step, state, batches.get_state())
  return workdir


def checked(c: ConfigDict) -> ConfigDict:
  """The config, if every key is one that is read and none is missing.

  Raises:
    ValueError: naming the keys or values that are wrong, and the choices.
  """
  keys = _KEYS + recipe.choose("objective", c.objective, _OBJECTIVE_KEYS)
  recipe.check_keys(c, keys, free=("data.mix.", "data.options.", "data.attributes."))
  if c.batch_size % c.microbatches:
    raise ValueError(
      f"microbatches {c.microbatches} do not divide batch_size {c.batch_size}"
    )
  return c


def initial_params(c: ConfigDict, model_size: Size, tokenizer: Tokenizer) -> Params:
  """Parameters at step 0: read from `c.init`, anew where `c.fresh` says so.

  Raises:
    ValueError: a part is neither in `c.init` nor in `c.fresh`, or a shape differs.
  """
  parts = recipe.choose("objective", c.objective, PARTS)
  unknown = sorted({*c.fresh, *c.trainable} - set(parts))
  if unknown:
    raise ValueError(f"unknown parts {unknown}; {c.objective!r} has {parts}")
  rng = jax.random.key(c.seed)
  fresh = dict(step_audio.init_params(rng, model_size))
  if "hear" in parts:
    fresh["hear"] = hear.init_params(
      rng, _hearing_heads(c, tokenizer), model_size.encoder_width
    )
  if "rewards" in parts:
    fresh["rewards"] = heads.init_rewards(rng, model_size.width, len(c.dimensions))
  loaded = checkpoint.load_params(c.init) if c.init else {}
  lacking = [part for part in parts if part not in loaded and part not in c.fresh]
  if lacking:
    raise ValueError(
      f"parameters {lacking} are not in init={c.init!r} (which has {sorted(loaded)}); "
      "name them in `fresh` to start them from random weights"
    )
  chosen = {part: fresh[part] if part in c.fresh else loaded[part] for part in parts}
  _check_shapes(chosen, fresh, c.init)
  return chosen


def _check_shapes(chosen: Params, fresh: Params, init: str) -> None:
  wants = {name: leaf.shape for name, leaf in tree.named_leaves(fresh)}
  has = {name: leaf.shape for name, leaf in tree.named_leaves(chosen)}
  wrong = [
    f"{name} {has[name]} ≠ {wants.get(name, 'absent')}"
    for name in has
    if name not in wants or has[name] != wants[name]
  ]
  if wrong:
    raise ValueError(f"init={init!r} is of another size: {'; '.join(wrong[:8])}")


def _next_token(
  c: ConfigDict, model: Any, params: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  batches, feed = loader.dialogues(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    **_frozen_encoder(model, params),
  )
  return batches, feed, steps.next_token_loss(model, feed.names)


def _preference(
  c: ConfigDict, model: Any, params: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  unknown = sorted(set(c.dims_on_thought) - set(c.dimensions))
  if unknown:
    raise ValueError(f"dims_on_thought {unknown} are not in {tuple(c.dimensions)}")
  batches, feed = loader.preferences(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    dimensions=c.dimensions,
    **_frozen_encoder(model, params),
  )
  loss_fn = steps.preference_loss(
    model,
    heads.RewardHeads(len(c.dimensions), model.dtype),
    c.dimensions,
    [name in c.dims_on_thought for name in c.dimensions],
    c.loss.weights,
    margin=c.loss.margin,
    scaled=c.loss.scaled,
  )
  return batches, feed, loss_fn


def _frozen_encoder(model: Any, params: Params) -> dict[str, Any]:
  """What the loader needs of the encoder, whose frames are computed once."""
  encoder = {"encoder": params["encoder"]}
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  return {
    "encode": functools.partial(encode, {"params": encoder}),
    "encoder_hash": tree.content_hash(encoder),
    "encoder_width": model.size.encoder_width,
  }


def _hear(
  c: ConfigDict, model: Any, params: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  del params
  batches, feed = loader.clips(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    spell=hearing.spelling(c.data.symbols, tokenizer)[0],
  )
  hearing_heads = _hearing_heads(c, tokenizer)
  return batches, feed, steps.hear_loss(model, hearing_heads, tuple(feed.attributes))


OBJECTIVES = {"hear": _hear, "next_token": _next_token, "preference": _preference}
PARTS = {
  "hear": ("encoder", "hear"),
  "next_token": checkpoint.PARTS,
  "preference": checkpoint.REWARD_PARTS,
}


def _hearing_heads(c: ConfigDict, tokenizer: Tokenizer) -> hear.HearingHeads:
  attributes = {name: tuple(classes) for name, classes in c.data.attributes.items()}
  _, symbols = hearing.spelling(c.data.symbols, tokenizer)
  return hear.HearingHeads(symbols, attributes)


def _finite(scalars: dict[str, Any], step: int, ids: list[str]) -> dict[str, float]:
  values = {f"train/{name}": float(value) for name, value in scalars.items()}
  for name in ("train/loss", "train/grad_norm"):
    if not np.isfinite(values[name]):
      raise NonFiniteLoss(f"{name} is {values[name]} at step {step}, examples {ids}")
  return values


def _count(params: Params) -> str:
  return f"{tree.parameter_count(params):,}"


def main() -> None:
  config = config_flags.DEFINE_config_file("config", None, "configs/<stage>.py[:args]")
  workdir = flags.DEFINE_string("workdir", None, "Folder of the run; may be gs://.")
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(lambda argv: run(config.value, workdir.value))


if __name__ == "__main__":
  main()
