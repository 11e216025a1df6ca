"""Prefill and decoding of all replies side by side, as one compiled program."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models.decoder import Cache, appended, empty_cache
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import draws
from stepaudio_jax.sampling.draws import Next, Settings

# Tokens between two writes to the large cache of the replies. XLA copies what a loop
# writes to, and slices a cache's layers anew where it may have changed; a small cache
# takes the keys of a block, and the large one stays as it is meanwhile.
BLOCK = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Asked:
  """Beside the prompts, what a program is given.

  Attributes:
    stream_B: int32, of the prompts.
    divisor: of the logits.
    after_SV: of text/thoughts.py; None where no thought is watched.
  """

  rng: Array
  stream_B: Array
  divisor: Array
  after_SV: Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompted:
  """What all steps of the loop read. B counts replies; those to a prompt share `cache`.

  Attributes:
    cache: of the prompts.
    count_B: tokens of the reply's prompt.
    key_B: of the reply's random stream.
    divisor, after_SV: see `Asked`.
  """

  cache: Cache
  count_B: Array
  key_B: Array
  divisor: Array
  after_SV: Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Of the loop. Slot `step` of the outputs is the next to be written.

  Attributes:
    cache: of the replies, up to the block that is being decoded.
    block: of the tokens after it.
    alive_B: has not drawn a stop token.
    thought_B: of text/thoughts.py; None where no thought is watched.
  """

  step: Array
  cache: Cache
  block: Cache
  alive_B: Array
  thought_B: Array | None
  token_BT: Array
  logprob_BT: Array
  mask_BT: Array


def sampled(
  params: Params, prompts: Batch, asked: Asked, *, model: StepAudio, settings: Settings
) -> Rollout:
  known = {"model": model, "settings": settings}
  prompted, state = prefilled(params, prompts, asked, **known)
  state = lax.while_loop(
    functools.partial(_unfinished, settings=settings),
    lambda state: decoded_block(params, prompted, state, **known),
    state,
  )
  return Rollout(
    token_BT=state.token_BT,
    logprob_BT=state.logprob_BT,
    mask_BT=state.mask_BT,
    count_B=counted(state.mask_BT),
    truncated_B=state.alive_B,
  )


def counted(mask_BT: Array) -> Array:
  """Tokens of each reply: its last one was drawn, whatever was not before it."""
  place_1T = jnp.arange(1, mask_BT.shape[1] + 1, dtype=jnp.int32)[None]
  return jnp.where(mask_BT, place_1T, 0).max(axis=1)


def read(
  params: Params, prompts: Batch, asked: Asked, *, model: StepAudio, copies: int
) -> tuple[Prompted, Array]:
  """Reads the prompts; the array is x_BD of each reply's prompt at its last token."""
  prompt_B = (prompts.segment_BT > 0).sum(axis=1, dtype=jnp.int32)
  x_BTD, cache = model.apply({"params": params}, prompts, method="prefill")
  last_B11 = jnp.maximum(prompt_B - 1, 0)[:, None, None]
  x_BD = jnp.take_along_axis(x_BTD, last_B11, axis=1)[:, 0]

  # From here on B counts replies.
  prompt_B, x_BD = (jnp.repeat(x, copies, axis=0) for x in (prompt_B, x_BD))
  key_B = _keys(asked.rng, asked.stream_B, copies)
  return Prompted(cache, prompt_B, key_B, asked.divisor, asked.after_SV), x_BD


def prefilled(
  params: Params, prompts: Batch, asked: Asked, *, model: StepAudio, settings: Settings
) -> tuple[Prompted, State]:
  """Reads the prompts and draws the first token of each reply."""
  prompted, x_BD = read(params, prompts, asked, model=model, copies=settings.copies)
  rows = x_BD.shape[0]
  shape = (rows, settings.max_new_tokens)
  state = State(
    step=jnp.zeros((), jnp.int32),
    cache=empty(model, rows, -(-settings.max_new_tokens // BLOCK) * BLOCK),
    block=empty(model, rows, BLOCK),
    alive_B=prompted.count_B > 0,
    thought_B=unread(rows, settings),
    token_BT=jnp.full(shape, settings.pad_id, jnp.int32),
    logprob_BT=jnp.zeros(shape, jnp.float32),
    mask_BT=jnp.zeros(shape, bool),
  )
  return prompted, _drawn(params, prompted, state, x_BD, model, settings)


def empty(model: StepAudio, rows: int, slots: int) -> Cache:
  """A cache of replies, as the model keeps them."""
  layout = {"apart": model.apart, "turned": model.turned}
  return empty_cache(model.size, rows, slots, model.dtype, **layout)


def unread(rows: int, settings: Settings) -> Array | None:
  """`State.thought_B` of replies that have not begun."""
  if settings.max_think_tokens is None:
    return None
  return jnp.zeros((rows,), jnp.int32)


def decoded_block(
  params: Params,
  prompted: Prompted,
  state: State,
  *,
  model: StepAudio,
  settings: Settings,
) -> State:
  """`state` with up to `BLOCK` tokens more in every living row."""

  def advance(state: State) -> State:
    """Reads the token drawn last and draws the next."""
    token_B1 = lax.dynamic_slice_in_dim(state.token_BT, state.step - 1, 1, axis=1)
    x_B1D, block = model.apply(
      {"params": params},
      token_B1,
      (prompted.count_B + state.step - 1)[:, None],
      state.alive_B[:, None].astype(jnp.int32),
      state.block,
      (prompted.cache, state.cache),
      method="extend",
    )
    state = dataclasses.replace(state, block=block)
    return _drawn(params, prompted, state, x_B1D[:, 0], model, settings)

  def goes_on(state: State) -> Array:
    return _unfinished(state, settings) & (state.block.used < BLOCK)

  state = lax.while_loop(goes_on, advance, state)
  rows = state.alive_B.shape[0]
  block = empty(model, rows, BLOCK)
  cache = appended(state.cache, state.block)
  return dataclasses.replace(state, cache=cache, block=block)


def _drawn(
  params: Params,
  prompted: Prompted,
  state: State,
  x_BD: Array,
  model: StepAudio,
  settings: Settings,
) -> State:
  """`state` with the next token of the living rows, read from x_BD."""
  step_B = jnp.broadcast_to(state.step, state.alive_B.shape)
  new = drawn(params, prompted, x_BD, step_B, state.thought_B, model, settings)
  column = functools.partial(written, step=state.step, keep_B=state.alive_B)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    alive_B=state.alive_B & ~new.stopped_B,
    thought_B=new.thought_B,
    token_BT=column(state.token_BT, new.token_B, settings.pad_id),
    logprob_BT=column(state.logprob_BT, new.logprob_B, 0.0),
    mask_BT=column(state.mask_BT, new.drawn_B, False),
  )


def drawn(
  params: Params,
  prompted: Prompted,
  x_BD: Array,
  step_B: Array,
  thought_B: Array | None,
  model: StepAudio,
  settings: Settings,
) -> Next:
  """The next token of each row, read from x_BD."""
  logits_BV = model.apply({"params": params}, x_BD, method="logits") / prompted.divisor
  stream = (prompted.key_B, step_B, thought_B, prompted.after_SV)
  return draws.following(logits_BV, *stream, settings)


def _unfinished(state: State, settings: Settings) -> Array:
  return (state.step < settings.max_new_tokens) & state.alive_B.any()


def _keys(rng: Array, stream_B: Array, copies: int) -> Array:
  """One key a reply, from its prompt's stream and its number among the copies."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, 0))
  rows = stream_B.shape[0]
  key_B = fold(jnp.broadcast_to(rng, (rows,)), stream_B)
  copy_B = jnp.tile(jnp.arange(copies, dtype=jnp.int32), rows)
  return fold(jnp.repeat(key_B, copies), copy_B)


def written(
  x_BT: Array, value_B: Array, other: float, *, step: Array, keep_B: Array
) -> Array:
  """x_BT with column `step` replaced by `value_B`, `other` in rows not kept."""
  value_B = jnp.where(keep_B, value_B, other).astype(x_BT.dtype)
  return lax.dynamic_update_slice_in_dim(x_BT, value_B[:, None], step, axis=1)
