"""Fewer slots than replies: a slot whose reply has ended takes the next one.

Slots decode in step, a block at a time, and are filled anew between blocks alone; so a
reply is always a whole number of blocks old, and all slots write a block's keys to the
same columns. Their cache is a ring of columns as long as the longest reply: what a
column held before belongs to the slot's earlier replies, or is hidden by its segment,
which is set to 0 when the slot takes another reply. Keys carry their positions in them
(rotation), so the order of columns does not matter.

A reply's first token is drawn where its prompt is read, from all prompts at once.

Rows may lie on several devices. Then each has a queue of its own (a *share* of the
prompts, their replies and the slots), and no cache travels; numbers of replies are
those within a share.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import program
from stepaudio_jax.sampling import slots as slots_lib
from stepaudio_jax.sampling.draws import Next, Settings
from stepaudio_jax.sampling.program import Asked, Prompted
from stepaudio_jax.sampling.slots import Slots, State, Written


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Queue:
  """Replies that go on behind their first token; P counts shares.

  Attributes:
    reply_PB: their numbers first, in order.
    count_P: how many they are.
    thought_B: of all replies, after the first token.
  """

  reply_PB: Array
  count_P: Array
  thought_B: Array | None


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
  columns = slots_lib.columns(settings)
  ring = program.empty(model, settings.slots, columns)
  zero = jnp.zeros((), jnp.int32)
  waiting_P = jnp.zeros_like(queue.count_P)
  state = State(written, _empty_slots(queue, settings), waiting_P, zero, ring)
  decode = functools.partial(
    _decoded, params, prompted, queue, model=model, settings=settings
  )
  state = lax.while_loop(
    lambda state: state.slots.alive_B.any() | (state.waiting_P < queue.count_P).any(),
    lambda state: decode(_filled(state, queue, settings)),
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
  goes_on_PB = slots_lib.apart(goes_on_B, settings)
  order_PB = jnp.argsort(~goes_on_PB, axis=1, stable=True).astype(jnp.int32)
  count_P = goes_on_PB.sum(axis=1, dtype=jnp.int32)
  return written, Queue(order_PB, count_P, first.thought_B)


def _empty_slots(queue: Queue, settings: Settings) -> Slots:
  zero_B = jnp.zeros((settings.slots,), jnp.int32)
  return Slots(
    reply_B=zero_B + queue.reply_PB.shape[1],
    step_B=zero_B,
    alive_B=zero_B > 0,
    token_B=zero_B,
    thought_B=program.unread(settings.slots, settings),
  )


def _filled(state: State, queue: Queue, settings: Settings) -> State:
  """With the next replies of the queue in the slots that have none."""
  slots, replies = state.slots, queue.reply_PB.shape[1]
  idle_B = ~slots.alive_B
  before_PB = jnp.cumsum(slots_lib.apart(idle_B, settings), axis=1, dtype=jnp.int32) - 1
  place_PB = state.waiting_P[:, None] + before_PB
  takes_B = idle_B & (place_PB < queue.count_P[:, None]).reshape(-1)
  place_PB = jnp.minimum(place_PB, replies - 1)
  next_B = jnp.take_along_axis(queue.reply_PB, place_PB, axis=1).reshape(-1)

  def taken(new_B: Array, old_B: Array) -> Array:
    return jnp.where(takes_B, new_B, old_B)

  thought_B = slots.thought_B
  if thought_B is not None:
    thought_B = taken(slots_lib.picked(queue.thought_B, next_B, settings), thought_B)
  first_B = slots_lib.picked(state.written.token_BT[:, 0], next_B, settings)
  segment_BS = jnp.where(takes_B[:, None], 0, state.ring.segment_BS)
  return dataclasses.replace(
    state,
    slots=Slots(
      reply_B=jnp.where(idle_B & ~takes_B, replies, taken(next_B, slots.reply_B)),
      step_B=taken(jnp.ones_like(slots.step_B), slots.step_B),
      alive_B=slots.alive_B | takes_B,
      token_B=taken(first_B, slots.token_B),
      thought_B=thought_B,
    ),
    waiting_P=state.waiting_P
    + slots_lib.apart(takes_B, settings).sum(axis=1, dtype=jnp.int32),
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
  own = slots_lib.own_prompts(prompted, state.slots.reply_B, settings)

  def goes_on(state: State) -> Array:
    alive_PB = slots_lib.apart(state.slots.alive_B, settings)
    wanted_P = (state.waiting_P < queue.count_P) & ~alive_PB.all(axis=1)
    return alive_PB.any() & ~wanted_P.any()

  def advance(state: State) -> State:
    return slots_lib.decoded_block(params, own, state, model, settings)

  return lax.while_loop(goes_on, advance, state)
