"""What the supervised loop can learn: the batches and the loss of each objective."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import meshes, sharding, steps, workdirs
from stepaudio_jax.core.types import Params
from stepaudio_jax.data import hearing, loader
from stepaudio_jax.evals.parts.hearing import frozen_encoder
from stepaudio_jax.models import heads, hear
from stepaudio_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Objective:
  """What a recipe's `objective` names.

  Attributes:
    make: (config, model, frozen, tokenizer, cache) → (batches, feed, loss_fn).
    parts: of the parameters.
    keys: of the config, beside those of all.
    free: prefixes under which the user names the keys.
    encoder_is_frozen: its frames are computed once, before training.
    reference: its loss compares with frozen parameters, `params["reference"]`.
  """

  make: Callable[..., tuple[Any, Any, steps.LossFn]]
  parts: tuple[str, ...]
  keys: tuple[str, ...]
  free: tuple[str, ...] = ("data.mix.", "data.options.")
  encoder_is_frozen: bool = True
  reference: bool = False


def _next_token(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  batches, feed = loader.dialogues(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    **frozen_encoder(frozen, model),
  )
  return batches, feed, steps.next_token_loss(model, feed.names)


def _preference(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  unknown = sorted(set(c.dims_on_thought) - set(c.dimensions))
  if unknown:
    raise ValueError(f"dims_on_thought {unknown} are not in {tuple(c.dimensions)}")
  _check_packs(c)
  batches, feed = loader.preferences(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    dimensions=c.dimensions,
    packs=sharding.packs(meshes.mesh(c.mesh), c.microbatches),
    **frozen_encoder(frozen, model),
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


def _dpo(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  _check_packs(c)
  loss_fn = steps.dpo_loss(model, **c.loss)
  batches, feed = loader.choices(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    packs=sharding.packs(meshes.mesh(c.mesh), c.microbatches),
    **frozen_encoder(frozen, model),
  )
  return batches, feed, loss_fn


def _check_packs(c: ConfigDict) -> None:
  if c.data.pack and jax.process_count() > 1:
    raise NotImplementedError(
      "data.pack=True with preferences in several processes: their rows would differ"
    )


def _hear(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  del frozen
  batches, feed = loader.clips(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    spell=hearing.spelling(c.data.symbols, tokenizer)[0],
  )
  loss_fn = steps.hear_loss(model, hearing_heads(c, tokenizer), tuple(feed.attributes))
  return batches, feed, loss_fn


def hearing_heads(c: ConfigDict, tokenizer: Tokenizer) -> hear.HearingHeads:
  attributes = {name: tuple(classes) for name, classes in c.data.attributes.items()}
  _, symbols = hearing.spelling(c.data.symbols, tokenizer)
  return hear.HearingHeads(symbols, attributes)


_FRAMES_KEYS = ("data.max_tokens", "data.max_clips", "data.encode_batch")
OBJECTIVES = {
  "hear": Objective(
    _hear,
    ("encoder", "hear"),
    ("data.symbols", "data.max_symbols"),
    free=("data.mix.", "data.options.", "data.attributes."),
    encoder_is_frozen=False,
  ),
  "next_token": Objective(
    _next_token, workdirs.PARTS, (*_FRAMES_KEYS, "data.history", "data.pack")
  ),
  "preference": Objective(
    _preference,
    workdirs.REWARD_PARTS,
    (
      *("dimensions", "dims_on_thought", "loss.margin", "loss.scaled"),
      *(f"loss.weights.{name}" for name in steps.PREFERENCE_LOSSES),
      *_FRAMES_KEYS,
      *("data.max_reply_tokens", "data.max_raters", "data.pack"),
    ),
  ),
  "dpo": Objective(
    _dpo,
    workdirs.PARTS,
    (
      *("reference", "loss.beta", "loss.length_normalised", "loss.nll_weight"),
      *_FRAMES_KEYS,
      *("data.max_reply_tokens", "data.max_raters", "data.pack"),
    ),
    reference=True,
  ),
}
