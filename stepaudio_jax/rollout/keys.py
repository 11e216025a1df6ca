"""The keys of a policy-gradient recipe, and what their values may be."""

from ml_collections import ConfigDict

from stepaudio_jax import meshes, optim, rl
from stepaudio_jax.core import recipe
from stepaudio_jax.rl.parts.kl import ESTIMATORS

_KEYS = (
  *("stage", "seed", "size", "tokenizer", "dtype", "remat"),
  *("head_chunks", "attention", "offload"),
  *("init", "reference", "reward_model"),
  *("total_steps", "prompts_per_step", "epochs", "minibatches", "microbatches"),
  *("sampling.samples", "sampling.max_new_tokens", "sampling.temperature"),
  *("rollout.refill_rounds", "rollout.overlap", "rollout.max_age"),
  *("gate.max_abs", "gate.min_pearson"),
  *("sampling.max_think_tokens", "sampling.slots"),
  *("algorithm.name", "aggregation", "kl.beta", "kl.estimator", "kl.where"),
  *(
    f"{name}.{axis}" for name in ("mesh", "sampling_mesh") for axis in meshes.MESH_AXES
  ),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps", "log.prompts"),
  *("heldout.split", "heldout.prompts", "heldout.samples", "heldout.batch_size"),
  "heldout.every_steps",
  *("data.split", "data.cache", "data.max_clip_s", "data.max_tokens"),
  *("data.max_clips", "data.encode_batch", "data.history", "data.pack"),
  *("data.buckets", "data.clip_buckets_s", "sampling.reply_buckets"),
  *(f"optim.{name}" for name in optim.KEYS),
)
_FREE = ("data.mix.", "data.options.", "rewards.")
_COUNTS = (
  *("total_steps", "prompts_per_step", "minibatches", "microbatches", "epochs"),
  *("head_chunks", "sampling.samples", "sampling.max_new_tokens"),
  *("heldout.prompts", "heldout.samples", "heldout.batch_size"),
  *("checkpoint.every_steps", "checkpoint.keep"),
)
KL_PLACES = ("loss", "reward")
AGGREGATIONS = ("token_mean", "sequence_mean_token_mean")


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
  how = c.sampling
  recipe.check_ascending(
    "sampling.reply_buckets", how.reply_buckets, how.max_new_tokens
  )
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
