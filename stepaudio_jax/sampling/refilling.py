"""Fewer slots than replies: a slot whose reply has ended takes the next one.

Slots decode in step, a block at a time, and are filled anew between blocks alone; so a
reply is always a whole number of blocks old, and all slots write a block's keys to the
same columns. Their cache is a ring of columns as long as the longest reply: what a
column held before belongs to the slot's earlier replies, or is hidden by its segment,
which is set to 0 when the slot takes another reply. Keys carry their positions in them
(rotation), so the order of columns does not matter.

A reply's first token is drawn where its prompt is read, from all prompts at once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models import layers
from stepaudio_jax.models.decoder import Cache, appended, empty_cache
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import program
from stepaudio_jax.sampling.draws import Next, Settings
from stepaudio_jax.sampling.program import BLOCK, Asked, Prompted


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
    reply_B: int32 number of the reply; there is none of that number in an empty slot.
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
    waiting: int32 place in the queue of the next reply to be taken.
    blocks: int32, decoded so far.
    ring: cache of the slots.
  """

  written: Written
  slots: Slots
  waiting: Array
  blocks: Array
  ring: Cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queue:
  """Replies that go on behind their first token.

  Attributes:
    reply_B: their numbers first, in order.
    count: how many they are.
    thought_B: of all replies, after the first token.
  """

  reply_B: Array
  count: Array
  thought_B: Array | None


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


def sampled(
  params: Params, prompts: Batch, asked: Asked, *, model: StepAudio, settings: Settings
) -> Rollout:
  """As program.sampled, but at most `settings.slots` replies are decoded at a time."""
  prompted, x_BD = program.read(
    params, prompts, asked, model=model, copies=settings.copies
  )
  step_B = jnp.zeros(prompted.count_B.shape, jnp.int32)
  thought_B = program.unread(len(step_B), settings)
  first = program.drawn(params, prompted, x_BD, step_B, thought_B, model, settings)
  written, queue = _begun(prompted, first, settings)
  columns = _columns(settings)
  ring = empty_cache(model.size, settings.slots, columns, model.dtype, model.apart)
  zero = jnp.zeros((), jnp.int32)
  state = State(written, _empty_slots(len(step_B), settings), zero, zero, ring)
  decode = functools.partial(
    _decoded, params, prompted, queue, model=model, settings=settings
  )
  state = lax.while_loop(
    lambda state: state.slots.alive_B.any() | (state.waiting < queue.count),
    lambda state: decode(_filled(state, queue)),
    state,
  )
  written = state.written
  return Rollout(
    token_BT=written.token_BT,
    logprob_BT=written.logprob_BT,
    mask_BT=written.mask_BT,
    count_B=program.counted(written.mask_BT),
    truncated_B=written.truncated_B,
  )


def _columns(settings: Settings) -> int:
  """Of the ring: whole blocks of all tokens that are read, which the last is not."""
  return max(-(-(settings.max_new_tokens - 1) // BLOCK), 1) * BLOCK


def _begun(
  prompted: Prompted, first: Next, settings: Settings
) -> tuple[Written, Queue]:
  """First tokens at home, and the replies that go on."""
  asked_B = prompted.count_B > 0
  shape = (len(asked_B), settings.max_new_tokens)
  zero = jnp.zeros((), jnp.int32)
  column = functools.partial(program.written, step=zero, keep_B=asked_B)
  open_B = asked_B & ~first.stopped_B
  last = settings.max_new_tokens == 1
  written = Written(
    token_BT=column(
      jnp.full(shape, settings.pad_id, jnp.int32), first.token_B, settings.pad_id
    ),
    logprob_BT=column(jnp.zeros(shape, jnp.float32), first.logprob_B, 0.0),
    mask_BT=column(jnp.zeros(shape, bool), first.drawn_B, False),
    truncated_B=open_B & last,
  )
  goes_on_B = open_B & (not last)
  order_B = jnp.argsort(~goes_on_B, stable=True).astype(jnp.int32)
  count = goes_on_B.sum(dtype=jnp.int32)
  return written, Queue(order_B, count, first.thought_B)


def _empty_slots(replies: int, settings: Settings) -> Slots:
  zero_B = jnp.zeros((settings.slots,), jnp.int32)
  return Slots(
    reply_B=zero_B + replies,
    step_B=zero_B,
    alive_B=zero_B > 0,
    token_B=zero_B,
    thought_B=program.unread(settings.slots, settings),
  )


def _filled(state: State, queue: Queue) -> State:
  """With the next replies of the queue in the slots that have none."""
  slots, replies = state.slots, len(queue.reply_B)
  idle_B = ~slots.alive_B
  place_B = state.waiting + jnp.cumsum(idle_B, dtype=jnp.int32) - 1
  takes_B = idle_B & (place_B < queue.count)
  next_B = queue.reply_B[jnp.minimum(place_B, replies - 1)]

  def taken(new_B: Array, old_B: Array) -> Array:
    return jnp.where(takes_B, new_B, old_B)

  thought_B = slots.thought_B
  if thought_B is not None:
    thought_B = taken(queue.thought_B[next_B], thought_B)
  segment_BS = jnp.where(takes_B[:, None], 0, state.ring.segment_BS)
  return dataclasses.replace(
    state,
    slots=Slots(
      reply_B=jnp.where(idle_B & ~takes_B, replies, taken(next_B, slots.reply_B)),
      step_B=taken(jnp.ones_like(slots.step_B), slots.step_B),
      alive_B=slots.alive_B | takes_B,
      token_B=taken(state.written.token_BT[next_B, 0], slots.token_B),
      thought_B=thought_B,
    ),
    waiting=state.waiting + takes_B.sum(dtype=jnp.int32),
    ring=dataclasses.replace(state.ring, segment_BS=segment_BS),
  )


def _decoded(
  params: Params,
  prompted: Prompted,
  queue: Queue,
  state: State,
  *,
  model: StepAudio,
  settings: Settings,
) -> State:
  """Decodes until a slot could take another reply, or all have ended."""
  own = _prompted(prompted, state.slots.reply_B, settings.copies)

  def goes_on(state: State) -> Array:
    alive_B = state.slots.alive_B
    wanted = (state.waiting < queue.count) & ~alive_B.all()
    return alive_B.any() & ~wanted

  def advance(state: State) -> State:
    return _decoded_block(params, own, state, model, settings)

  return lax.while_loop(goes_on, advance, state)


def _prompted(prompted: Prompted, reply_B: Array, copies: int) -> Prompted:
  """Of the slots' replies: each gathers its prompt's cache, once for many blocks."""
  reply_B = jnp.minimum(reply_B, len(prompted.count_B) - 1)  # of an empty slot: any
  prompt_B = reply_B // copies

  def gathered(x_ZBKSh: Array) -> Array:
    axes = (None, "batch", "kv_heads", None, None)[-x_ZBKSh.ndim :]
    rows = x_ZBKSh.ndim - 4  # a layer's own cache begins with them
    return layers.constrain(jnp.take(x_ZBKSh, prompt_B, axis=rows), *axes)

  cache = dataclasses.replace(
    prompted.cache,
    k_ZBKSh=jax.tree.map(gathered, prompted.cache.k_ZBKSh),
    v_ZBKSh=jax.tree.map(gathered, prompted.cache.v_ZBKSh),
    segment_BS=prompted.cache.segment_BS[prompt_B],
  )
  return dataclasses.replace(
    prompted,
    cache=cache,
    count_B=prompted.count_B[reply_B],
    key_B=prompted.key_B[reply_B],
  )


def _decoded_block(
  params: Params, own: Prompted, state: State, model: StepAudio, settings: Settings
) -> State:
  """Up to `BLOCK` tokens more in every living slot, brought home."""

  def goes_on(block: Block) -> Array:
    return block.slots.alive_B.any() & (block.cache.used < BLOCK)

  def advance(block: Block) -> Block:
    return _advanced(params, own, state.ring, block, model, settings)

  start_B1 = state.slots.step_B[:, None]
  block = lax.while_loop(goes_on, advance, _empty_block(state.slots, model, settings))
  row_B, column_BT = state.slots.reply_B, start_B1 + jnp.arange(BLOCK)[None]

  def home(x_BT: Array, new_BT: Array) -> Array:
    return x_BT.at[row_B[:, None], column_BT].set(new_BT, mode="drop")

  written = state.written
  nobody = len(written.truncated_B)
  cut_B = jnp.where(block.cut_B, row_B, nobody)
  written = Written(
    token_BT=home(written.token_BT, block.token_BT),
    logprob_BT=home(written.logprob_BT, block.logprob_BT),
    mask_BT=home(written.mask_BT, block.mask_BT),
    truncated_B=written.truncated_B.at[cut_B].set(True, mode="drop"),
  )
  column = state.blocks * BLOCK % _columns(settings)
  ring = appended(dataclasses.replace(state.ring, used=column), block.cache)
  return dataclasses.replace(
    state, written=written, slots=block.slots, blocks=state.blocks + 1, ring=ring
  )


def _empty_block(slots: Slots, model: StepAudio, settings: Settings) -> Block:
  rows = len(slots.reply_B)
  return Block(
    slots=slots,
    cache=empty_cache(model.size, rows, BLOCK, model.dtype, model.apart),
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
