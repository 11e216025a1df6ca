"""Slots that decode a block of tokens together, and bring it home to their replies."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Params
from stepaudio_jax.models import layers
from stepaudio_jax.models.decoder import Cache, appended
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import program
from stepaudio_jax.sampling.draws import Settings
from stepaudio_jax.sampling.program import BLOCK, Prompted


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Written:
  """Of all replies, in their order (B counts replies, as in `Prompted`)."""

  token_BT: Array
  logprob_BT: Array
  mask_BT: Array
  truncated_B: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
  """B counts slots here.

  Attributes:
    reply_B: int32 number of the reply; an empty slot has one that does not exist.
    step_B: int32 tokens of the reply so far.
    alive_B: bool, the reply goes on.
    token_B: the one drawn last.
    thought_B: of text/thoughts.py; None where no thought is watched.
  """

  reply_B: Array
  step_B: Array
  alive_B: Array
  token_B: Array
  thought_B: Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Of the loop.

  Attributes:
    written: what the slots have brought home, up to the last whole block.
    waiting_P: int32 place in each share's queue of the next reply to be taken.
    blocks: int32, decoded so far.
    ring: cache of the slots.
  """

  written: Written
  slots: Slots
  waiting_P: Array
  blocks: Array
  ring: Cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
  """Tokens of one block, [slots, BLOCK], before they are brought home.

  Attributes:
    cut_B: the limit came before a stop token.
  """

  slots: Slots
  cache: Cache
  token_BT: Array
  logprob_BT: Array
  mask_BT: Array
  cut_B: Array


def columns(settings: Settings) -> int:
  """Of the ring: whole blocks of all tokens that are read, which the last is not."""
  return max(-(-(settings.max_new_tokens - 1) // BLOCK), 1) * BLOCK


def apart(x_B: Array, settings: Settings) -> Array:
  """[P, B / P, …]: each share's rows."""
  return x_B.reshape(settings.shares, -1, *x_B.shape[1:])


def picked(x_B: Array, number_B: Array, settings: Settings) -> Array:
  """Rows of the replies, or prompts, with those numbers, each from its own share."""
  both = (apart(x_B, settings), apart(number_B, settings))
  found = jax.vmap(lambda x, number: x[number])(*both)
  return found.reshape(-1, *found.shape[2:])


def own_prompts(prompted: Prompted, reply_B: Array, settings: Settings) -> Prompted:
  """Of the slots' replies: each gathers its prompt's cache, once for many blocks."""
  replies = len(prompted.count_B) // settings.shares
  reply_B = jnp.minimum(reply_B, replies - 1)  # of an empty slot: any
  prompt_B = reply_B // settings.copies
  pick = functools.partial(picked, settings=settings)

  def gathered(x_ZBKSh: Array) -> Array:
    axes = (None, "batch", "kv_heads", None, None)[-x_ZBKSh.ndim :]
    # A layer's own cache begins with the rows, one of all layers with them.
    apart_ = x_ZBKSh.ndim < 5
    by_layer = pick if apart_ else jax.vmap(pick, in_axes=(0, None))
    return layers.constrain(by_layer(x_ZBKSh, prompt_B), *axes)

  cache = dataclasses.replace(
    prompted.cache,
    k_ZBKSh=jax.tree.map(gathered, prompted.cache.k_ZBKSh),
    v_ZBKSh=jax.tree.map(gathered, prompted.cache.v_ZBKSh),
    segment_BS=pick(prompted.cache.segment_BS, prompt_B),
  )
  return dataclasses.replace(
    prompted,
    cache=cache,
    count_B=pick(prompted.count_B, reply_B),
    key_B=pick(prompted.key_B, reply_B),
  )


def decoded_block(
  params: Params, own: Prompted, state: State, model: StepAudio, settings: Settings
) -> State:
  """Up to `BLOCK` tokens more in every living slot, brought home."""

  def goes_on(block: Block) -> Array:
    return block.slots.alive_B.any() & (block.cache.used < BLOCK)

  def advance(block: Block) -> Block:
    return _advanced(params, own, state.ring, block, model, settings)

  start_B1 = state.slots.step_B[:, None]
  block = lax.while_loop(goes_on, advance, _empty_block(state.slots, model, settings))
  row_B1, column_BT = state.slots.reply_B[:, None], start_B1 + jnp.arange(BLOCK)[None]

  def home(x_BT: Array, new_BT: Array, column_BT: Array = column_BT) -> Array:
    def one(x_BT, new_BT, row_B1, column_BT):
      return x_BT.at[row_B1, column_BT].set(new_BT, mode="drop")

    told = (x_BT, new_BT, row_B1, column_BT)
    found = jax.vmap(one)(*(apart(x, settings) for x in told))
    return found.reshape(x_BT.shape)

  written = state.written
  cut_B1 = block.cut_B[:, None]
  whole_B1 = written.truncated_B[:, None]
  cut_B1 = home(whole_B1, cut_B1, jnp.where(cut_B1, 0, 1))  # column 1 is none
  written = Written(
    token_BT=home(written.token_BT, block.token_BT),
    logprob_BT=home(written.logprob_BT, block.logprob_BT),
    mask_BT=home(written.mask_BT, block.mask_BT),
    truncated_B=cut_B1[:, 0],
  )
  column = state.blocks * BLOCK % columns(settings)
  ring = appended(dataclasses.replace(state.ring, used=column), block.cache)
  return dataclasses.replace(
    state, written=written, slots=block.slots, blocks=state.blocks + 1, ring=ring
  )


def _empty_block(slots: Slots, model: StepAudio, settings: Settings) -> Block:
  rows = len(slots.reply_B)
  return Block(
    slots=slots,
    cache=program.empty(model, rows, BLOCK),
    token_BT=jnp.full((rows, BLOCK), settings.pad_id, jnp.int32),
    logprob_BT=jnp.zeros((rows, BLOCK), jnp.float32),
    mask_BT=jnp.zeros((rows, BLOCK), bool),
    cut_B=jnp.zeros((rows,), bool),
  )


def _advanced(
  params: Params,
  own: Prompted,
  ring: Cache,
  block: Block,
  model: StepAudio,
  settings: Settings,
) -> Block:
  """Reads the token that each slot drew last and draws the next."""
  slots, place = block.slots, block.cache.used
  x_B1D, cache = model.apply(
    {"params": params},
    slots.token_B[:, None],
    (own.count_B + slots.step_B - 1)[:, None],
    slots.alive_B[:, None].astype(jnp.int32),
    block.cache,
    (own.cache, ring),
    method="extend",
  )
  thought = (slots.step_B, slots.thought_B)
  new = program.drawn(params, own, x_B1D[:, 0], *thought, model, settings)
  column = functools.partial(program.written, step=place, keep_B=slots.alive_B)
  step_B = slots.step_B + slots.alive_B.astype(jnp.int32)
  open_B = slots.alive_B & ~new.stopped_B
  full_B = step_B == settings.max_new_tokens
  return Block(
    slots=Slots(slots.reply_B, step_B, open_B & ~full_B, new.token_B, new.thought_B),
    cache=cache,
    token_BT=column(block.token_BT, new.token_B, settings.pad_id),
    logprob_BT=column(block.logprob_BT, new.logprob_B, 0.0),
    mask_BT=column(block.mask_BT, new.drawn_B, False),
    cut_B=block.cut_B | (open_B & full_B),
  )
