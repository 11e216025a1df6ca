"""What the supervised loop can learn: the batches and the loss of each objective."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import (
  meshes,
  mixing,
  origins,
  preference_losses,
  sharding,
  steps,
  workdirs,
)
from stepaudio_jax.core import recipe
from stepaudio_jax.core.types import Params, TrainState
from stepaudio_jax.data import comparisons, hearing, loader
from stepaudio_jax.evals.parts.hearing import frozen_encoder
from stepaudio_jax.models import adapters, heads, hear, mixture
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
    beside: config → parts that it adds to those of `parts`; they begin anew and are
      trained.
    begun: (config, model, state, feed) → the state in which the first step begins,
      where something of it is to be found in the data.
  """

  make: Callable[..., tuple[Any, Any, steps.LossFn]]
  parts: tuple[str, ...]
  keys: tuple[str, ...]
  free: tuple[str, ...] = ("data.mix.", "data.options.")
  encoder_is_frozen: bool = True
  reference: bool = False
  beside: Callable[[ConfigDict], tuple[str, ...]] = lambda c: ()
  begun: Callable[..., TrainState] = lambda c, model, state, feed: state


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
  if unknown or mixture.NAME in c.dimensions:
    raise ValueError(
      f"dims_on_thought {unknown} are not in {tuple(c.dimensions)}, none of which may "
      f"be called {mixture.NAME!r}"
    )
  known = {"rater_room": c.raters.room}
  batches, feed = _compared(c, model, frozen, tokenizer, cache, **known)
  loss_fn = preference_losses.preference_loss(
    model,
    heads.RewardHeads(len(c.dimensions), model.dtype),
    c.dimensions,
    [name in c.dims_on_thought for name in c.dimensions],
    c.loss.weights,
    margin=c.loss.margin,
    scaled=c.loss.scaled,
    rater_ridge=c.raters.ridge,
  )
  return batches, feed, loss_fn


def _compared(
  c: ConfigDict,
  model: Any,
  frozen: Params,
  tokenizer: Tokenizer,
  cache: epath.Path,
  **known: Any,
) -> loader.Loaded:
  return loader.preferences(
    c.data,
    cache=cache,
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizer,
    dimensions=c.dimensions,
    packs=sharding.packs(meshes.mesh(c.mesh), c.microbatches),
    **known,
    **frozen_encoder(frozen, model),
  )


def _mixture(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
  its = origins.reward_dimensions(c.init) if c.init else {}
  wanted = {name: [*c[name]] for name in ("dimensions", "dims_on_thought")}
  if its != wanted:
    raise ValueError(
      f"init={c.init!r} has {its or 'no reward heads'}, the recipe {wanted}: a mixture "
      "is of the heads of a reward model, whose names these are"
    )
  if jax.process_count() > 1:
    raise NotImplementedError("objective 'mixture' in several processes")
  batches, feed = _compared(c, model, frozen, tokenizer, cache)
  named = (*c.dimensions, mixture.NAME)
  loss_fn = preference_losses.mixture_loss(
    model,
    heads.RewardHeads(len(named), model.dtype),
    named,
    [name in c.dims_on_thought for name in named],
    chosen=c.dimensions.index(comparisons.OVERALL),
    margin=c.loss.margin,
    scaled=c.loss.scaled,
  )
  return batches, feed, loss_fn


def mixed(c: ConfigDict) -> tuple[bool, ...]:
  """Of each dimension whether the mixture is of it: of all but the one to predict.

  Raises:
    ValueError: there is nothing to be predicted.
  """
  if comparisons.OVERALL not in c.dimensions:
    raise ValueError(
      f"dimensions={tuple(c.dimensions)}: a mixture learns from {comparisons.OVERALL!r}"
    )
  return tuple(name != comparisons.OVERALL for name in c.dimensions)


def _gate(c: ConfigDict) -> tuple[str, ...]:
  """The mixture's part; nothing else may be trained beside it."""
  mixed(c)
  how = c.mixture
  if c.trainable or not 0 < how.most < 1 or min(how.reference, how.width) < 1:
    raise ValueError(
      f"trainable={tuple(c.trainable)}, {how.to_dict()}: of a mixture trainable is (), "
      "`most` between 0 and 1, `reference` and `width` at least 1"
    )
  return (mixture.NAME,)


def _dpo(
  c: ConfigDict, model: Any, frozen: Params, tokenizer: Tokenizer, cache: epath.Path
) -> tuple[Any, Any, steps.LossFn]:
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


def check_rows(c: ConfigDict) -> None:
  """Whether what is said of the rows of packed comparisons can act.

  Raises:
    ValueError: it cannot.
  """
  views = 4  # of a comparison, a row each at most
  recipe.check_ascending("data.pack_rows", c.data.pack_rows, c.batch_size * views)
  if c.data.pack_rows and not c.data.pack:
    raise ValueError(f"data.pack_rows={tuple(c.data.pack_rows)} is of data.pack=True")


def _beside(c: ConfigDict) -> tuple[str, ...]:
  """Low-rank adapters and raters' terms, where a reward model's recipe has them."""
  how, raters = c.adapters, c.raters
  if how.rank:
    adapters.check(how.rank, how.alpha, how.maps)
    if "decoder" in c.trainable:
      raise ValueError(
        f"adapters.rank={how.rank} with trainable={tuple(c.trainable)}: they adapt a "
        "decoder that is frozen; leave 'decoder' out, or set the rank to 0"
      )
  elif (how.alpha, {*how.maps}) != (adapters.ALPHA, {*adapters.MAPS}):
    raise ValueError(
      f"adapters.rank=0: there are none, and adapters.alpha={how.alpha} and "
      f"adapters.maps={tuple(how.maps)} would do nothing; train=adapters has some"
    )
  if bool(raters.room) != bool(raters.ridge) or min(raters.room, raters.ridge) < 0:
    raise ValueError(
      f"raters.room={raters.room} and raters.ridge={raters.ridge}: both above 0, or "
      "both 0 where raters have no terms of their own"
    )
  return ("adapters",) * bool(how.rank) + ("raters",) * bool(raters.room)


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
      *(f"loss.weights.{name}" for name in preference_losses.LOSSES),
      *("adapters.rank", "adapters.alpha", "adapters.maps"),
      *("raters.room", "raters.ridge"),
      *_FRAMES_KEYS,
      *("data.max_reply_tokens", "data.max_raters", "data.pack", "data.pack_rows"),
    ),
    beside=_beside,
  ),
  "mixture": Objective(
    _mixture,
    workdirs.REWARD_PARTS,
    (
      *("dimensions", "dims_on_thought", "loss.margin", "loss.scaled"),
      *(f"mixture.{name}" for name in ("width", "temperature", "reference", "most")),
      *_FRAMES_KEYS,
      *("data.max_reply_tokens", "data.max_raters", "data.pack", "data.pack_rows"),
    ),
    beside=_gate,
    begun=mixing.begun,
  ),
  "dpo": Objective(
    _dpo,
    workdirs.PARTS,
    (
      *("reference", "loss.beta", "loss.length_normalised", "loss.nll_weight"),
      *_FRAMES_KEYS,
      *("data.max_reply_tokens", "data.max_raters", "data.pack", "data.pack_rows"),
    ),
    reference=True,
  ),
}
