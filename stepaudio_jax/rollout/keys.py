"""The keys of a policy-gradient recipe, and what their values may be."""

import dataclasses
from types import ModuleType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from stepaudio_jax import meshes, optim, rl
from stepaudio_jax.core import recipe
from stepaudio_jax.core.types import Experience
from stepaudio_jax.rl.parts.correction import Correction
from stepaudio_jax.rl.parts.kl import ESTIMATORS
from stepaudio_jax.rollout import combining, overlong, preference, watch
from stepaudio_jax.rollout.talks import REWARDED

# How a judge is asked, see evals/parts/judging.py.
ASKING = ("max_tokens", "concurrency", "timeout_s", "hears", "weighs")
ASKING += ("prompt_price", "completion_price")
_KEYS = (
  *("stage", "seed", "size", "tokenizer", "dtype", "remat"),
  *("head_chunks", "attention", "offload"),
  *("init", "reference", "reward_model", "judge", "judge_key"),
  *("rewards.rubric.weight", "rewards.rubric.learned", "rewards.turns"),
  "rewards.uncertainty",
  *(
    f"rewards.preference.{one.name}" for one in dataclasses.fields(preference.Settings)
  ),
  *(f"asking.{name}" for name in ASKING),
  *("rewards.noise", *(f"log.warn.{name}" for name in watch.KEYS)),
  *("rewards.overlong.buffer_tokens", "rewards.overlong.weight"),
  *("total_steps", "prompts_per_step", "epochs", "minibatches", "microbatches"),
  *("sampling.samples", "sampling.max_new_tokens", "sampling.temperature"),
  *("rollout.refill_rounds", "rollout.overlap", "rollout.max_age"),
  *("gate.max_abs", "gate.min_pearson"),
  *("sampling.max_think_tokens", "sampling.slots", "sampling.turns"),
  *("algorithm.name", "aggregation", "kl.beta", "kl.estimator", "kl.where"),
  *("kl.target", "kl.horizon", "correction.kind", "correction.limit"),
  "correction.low",
  *(
    f"{name}.{axis}" for name in ("mesh", "sampling_mesh") for axis in meshes.MESH_AXES
  ),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps", "log.prompts"),
  *("heldout.split", "heldout.prompts", "heldout.samples", "heldout.batch_size"),
  "heldout.every_steps",
  *("data.split", "data.cache", "data.max_clip_s", "data.max_tokens"),
  *("data.max_clips", "data.encode_batch", "data.history", "data.pack"),
  *("data.share_prompts", "data.row_tokens", "data.pack_rows"),
  *("data.buckets", "data.clip_buckets_s", "sampling.reply_buckets"),
  *(f"optim.{name}" for name in optim.KEYS),
)
_FREE = ("data.mix.", "data.options.", "rewards.rules.", "rewards.learned.")
_FREE += ("rewards.veto.",)
_COUNTS = (
  *("total_steps", "prompts_per_step", "minibatches", "microbatches", "epochs"),
  *("head_chunks", "sampling.samples", "sampling.max_new_tokens", "sampling.turns"),
  *("heldout.prompts", "heldout.samples", "heldout.batch_size"),
  *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps"),
)
_NOT_BELOW_0 = (
  *("kl.beta", "kl.target", "rewards.uncertainty"),
  *("rewards.rubric.weight", "rewards.rubric.learned"),
  *("heldout.every_steps", "log.prompts"),
)
KL_PLACES = ("loss", "reward")


def checked(c: ConfigDict) -> ConfigDict:
  """The config, if every key is one that is read and none is missing.

  Raises:
    ValueError: naming the keys or values that are wrong, and the choices.
  """
  recipe.check_loop(c, "algorithm", "train")
  algorithm = rl.load(c.algorithm.name)
  keys = (*_KEYS, *(f"algorithm.{name}" for name in algorithm.DEFAULTS))
  if algorithm.CRITIC:
    keys += ("critic_first", *(f"critic_optim.{name}" for name in optim.KEYS))
  recipe.check_keys(c, keys, free=_FREE)
  recipe.check_counts(c, _COUNTS)
  recipe.check_counts(c, _NOT_BELOW_0, least=0)
  how = c.sampling
  recipe.check_ascending(
    "sampling.reply_buckets", how.reply_buckets, how.max_new_tokens
  )
  recipe.choose("kl.where", c.kl.where, dict.fromkeys(KL_PLACES))
  recipe.choose("kl.estimator", c.kl.estimator, dict.fromkeys(ESTIMATORS))
  if c.rollout.refill_rounds and how.samples < 2:
    raise ValueError(
      f"rollout.refill_rounds={c.rollout.refill_rounds} with sampling.samples="
      f"{how.samples}: a reply alone never differs from others"
    )
  _check_turns(c)
  _check_slots(c)
  _check_learned(c)
  _check_target(c)
  Correction(**c.correction)
  overlong.shaped(c.rewards, c.sampling.max_new_tokens)
  compared = preference.Settings(**c.rewards.preference)
  preference.checked(
    compared,
    judge=c.judge,
    samples=how.samples,
    heldout=c.heldout.samples,
    turns=how.turns,
  )
  combining.check(c)
  watch.Limits(**c.log.warn)
  if c.aggregation not in algorithm.AGGREGATIONS:
    raise ValueError(
      f"aggregation={c.aggregation!r} with algorithm {c.algorithm.name!r}; its choices "
      f"are {algorithm.AGGREGATIONS}"
    )
  _try(c, algorithm)
  if c.kl.where == "reward" and not c.kl.beta:
    raise ValueError("kl.where='reward' would do nothing with kl.beta=0")
  prompts, parts = c.prompts_per_step, c.minibatches * c.microbatches
  if prompts % parts or c.heldout.prompts % c.heldout.batch_size:
    raise ValueError(
      f"prompts_per_step={prompts} must be a multiple of minibatches × microbatches = "
      f"{parts}, and heldout.prompts={c.heldout.prompts} one of heldout.batch_size="
      f"{c.heldout.batch_size}"
    )
  _check_packing(c)
  return c


def hyper(c: ConfigDict) -> dict[str, Any]:
  """The algorithm's hyper-parameters."""
  return {name: value for name, value in c.algorithm.items() if name != "name"}


def _check_target(c: ConfigDict) -> None:
  """Whether a weight of the KL that follows a target can."""
  if c.kl.target and not c.kl.beta:
    raise ValueError(f"kl.target={c.kl.target} with kl.beta=0, which stays 0")
  replies = c.prompts_per_step * c.sampling.samples * c.sampling.turns
  if c.kl.target and c.kl.horizon < replies:
    raise ValueError(
      f"kl.horizon={c.kl.horizon} is less than the {replies} replies of one step"
    )


def _try(c: ConfigDict, algorithm: ModuleType) -> None:
  """Has the algorithm refuse what it cannot do before anything is loaded."""
  replies = c.sampling.samples
  zero_BT = np.zeros((replies, 1), np.float32)  # of one token and one dimension
  blank = {field.name: zero_BT for field in dataclasses.fields(Experience)}
  blank["mask_BT"] = zero_BT > 0
  known = {"group": replies, "aggregation": c.aggregation, **hyper(c)}
  if c.kl.where == "reward":
    known["kl_reward_BT"] = zero_BT

  def both(experience: Experience) -> None:
    experience = algorithm.advantages(experience, **known)
    algorithm.token_loss(zero_BT, experience, **hyper(c))

  jax.eval_shape(both, Experience(**blank))


def _check_packing(c: ConfigDict) -> None:
  """That what is said of packed rows acts."""
  least = c.data.max_tokens + c.sampling.max_new_tokens
  if not c.data.pack and (
    c.data.row_tokens or c.data.pack_rows or not c.data.share_prompts
  ):
    raise ValueError(
      f"data.row_tokens={c.data.row_tokens}, data.pack_rows={tuple(c.data.pack_rows)} "
      f"and data.share_prompts={c.data.share_prompts} are of data.pack=True; replies "
      "that are not packed share their prompt (row_tokens=0, pack_rows=(), "
      "share_prompts=True)"
    )
  most = c.prompts_per_step * c.sampling.samples * c.sampling.turns
  recipe.check_ascending("data.pack_rows", c.data.pack_rows, most)
  if c.data.row_tokens and c.data.row_tokens < least:
    raise ValueError(
      f"data.row_tokens={c.data.row_tokens} must be 0 or at least data.max_tokens + "
      f"sampling.max_new_tokens = {least}"
    )


def check_prompts(c: ConfigDict, prompts: int, skipped: int) -> None:
  """Whether there are enough prompts for a step.

  Args:
    prompts: that fit.
    skipped: that do not.

  Raises:
    ValueError: there are fewer.
  """
  if prompts < c.prompts_per_step:
    raise ValueError(
      f"prompts_per_step={c.prompts_per_step} is more than the {prompts} prompts of "
      f"data.split={c.data.split!r} ({skipped} more do not fit): at most {prompts}"
    )


def _check_slots(c: ConfigDict) -> None:
  replies = c.prompts_per_step * c.sampling.samples
  if c.sampling.slots > replies:
    raise ValueError(
      f"sampling.slots={c.sampling.slots} is more than prompts_per_step × "
      f"sampling.samples = {replies} replies; 0 decodes all of them at a time"
    )


def _check_learned(c: ConfigDict) -> None:
  """Whether what is said of learned rewards can act without any."""
  if c.rewards.learned:
    return
  if c.reward_model:
    raise ValueError(
      f"reward_model={c.reward_model!r} would do nothing: rewards.learned names none "
      "of its dimensions; leave it '', or take configs/rlhf.py, which names them (a "
      "weight of 0 only logs one)"
    )
  if c.rewards.rubric.learned != 1.0:
    raise ValueError(
      f"rewards.rubric.learned={c.rewards.rubric.learned} is a factor of the weights "
      "in rewards.learned, which has none; leave it 1.0"
    )


def _check_turns(c: ConfigDict) -> None:
  """Whether what is said of dialogues' turns can act."""
  recipe.choose("rewards.turns", c.rewards.turns, dict.fromkeys(REWARDED))
  if c.sampling.turns == 1 and c.rewards.turns != REWARDED[0]:
    raise ValueError(
      f"rewards.turns={c.rewards.turns!r} would do nothing with sampling.turns=1"
    )
