"""Prompts to replies: prefill and decoding as one compiled program.

A row's text depends on its own key alone, so it does not change with the rows beside
it (up to float noise). Log-probabilities are those of the tempered distribution
before truncation, the ones a policy gradient needs.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models.decoder import Cache, appended, empty_cache
from stepaudio_jax.models.step_audio import StepAudio

# Tokens between two writes to the large cache of the replies. XLA copies what a loop
# writes to, and slices a cache's layers anew where it may have changed; a small cache
# takes the keys of a block, and the large one stays as it is meanwhile.
BLOCK = 8


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a token is drawn and when a reply ends (hashable: part of the program).

  Attributes:
    temperature: 0 takes the likeliest token.
    top_k: draw among the k likeliest only (and any tied with the last of them).
    top_p: draw among the fewest likeliest tokens whose mass reaches p, counted
      within the top k (nucleus sampling, arXiv 1904.09751).
    min_p: draw among tokens of at least min_p times the likeliest one's probability.
    stop_ids: each of them ends a reply and belongs to it.
    pad_id: written behind the end.
    copies: replies to each prompt, which is read (prefilled) once.
  """

  max_new_tokens: int
  stop_ids: tuple[int, ...]
  pad_id: int
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  copies: int = 1

  def __post_init__(self):
    checks = {
      "max_new_tokens": self.max_new_tokens >= 1,
      "stop_ids": len(self.stop_ids) >= 1,
      "copies": self.copies >= 1,
      "temperature": self.temperature >= 0,
      "top_k": self.top_k is None or self.top_k >= 1,
      "top_p": self.top_p is None or 0 < self.top_p <= 1,
      "min_p": self.min_p is None or 0 <= self.min_p <= 1,
    }
    wrong = [
      f"{key}={getattr(self, key)!r}" for key, fine in checks.items() if not fine
    ]
    if wrong:
      raise ValueError(
        f"cannot sample with {', '.join(wrong)}: max_new_tokens ≥ 1, one stop id or"
        " more, copies ≥ 1, temperature ≥ 0, top_k ≥ 1, 0 < top_p ≤ 1, 0 ≤ min_p ≤ 1"
      )


def sample(
  params: Params,
  prompts: Batch,
  rng: Array,
  *,
  model: StepAudio,
  max_new_tokens: int,
  stop_ids: tuple[int, ...],
  pad_id: int,
  temperature: float = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
  copies: int = 1,
  stream_B: Array | None = None,
) -> Rollout:
  """Replies to prompts; see `Settings` for the options.

  Args:
    params: of `model`; the encoder's are not needed.
    prompts: one segment a row, right-padded; a row without any (segment 0
      throughout) gets an empty reply.
    stream_B: int32, names each prompt's random stream, by default its row number.
      Give the prompt's own number for text that is the same in whichever batch it
      lands. Copies of a prompt have streams of their own within it.

  Returns:
    Rollout with B·G rows and T = max_new_tokens; the G = `copies` replies to a
    prompt touch, prompts keep their order.

  Raises:
    ValueError: impossible settings, ids outside the vocabulary, `stream_B` of another
      length, or replies that would pass the model's last position. A packed or
      left-padded row too, if the prompts are numpy: arrays on a device are not read.
  """
  settings = Settings(
    max_new_tokens=max_new_tokens,
    stop_ids=tuple(int(i) for i in stop_ids),
    pad_id=int(pad_id),
    temperature=float(temperature),
    top_k=None if top_k is None else int(top_k),
    top_p=None if top_p is None else float(top_p),
    min_p=None if min_p is None else float(min_p),
    copies=int(copies),
  )
  _check(prompts, model, settings)
  rows = prompts.token_BT.shape[0]
  if stream_B is None:
    stream_B = np.arange(rows, dtype=np.int32)
  if stream_B.shape != (rows,):
    raise ValueError(f"stream_B has shape {stream_B.shape}; there are {rows} prompts")
  needed = {key: params[key] for key in ("adaptor", "decoder") if key in params}
  # Logits are divided before they are drawn from: one program for all temperatures.
  divisor = np.float32(settings.temperature or 1.0)
  settings = dataclasses.replace(settings, temperature=float(temperature > 0))
  return _sample(
    needed, prompts, rng, stream_B, divisor, model=model, settings=settings
  )


def _check(prompts: Batch, model: StepAudio, settings: Settings) -> None:
  length, size = prompts.token_BT.shape[1], model.size
  if length + settings.max_new_tokens > size.max_positions:
    raise ValueError(
      f"prompts of {length} slots and {settings.max_new_tokens} new tokens pass the"
      f" {size.max_positions} positions of {size.name!r}"
    )
  if settings.top_k is not None and settings.top_k > size.vocabulary:
    raise ValueError(f"top_k={settings.top_k} of a vocabulary of {size.vocabulary}")
  for name in ("pad_id", "stop_ids"):
    ids = np.atleast_1d(getattr(settings, name))
    if ((ids < 0) | (ids >= size.vocabulary)).any():
      raise ValueError(f"{name}={getattr(settings, name)} outside 0…{size.vocabulary}")
  if isinstance(prompts.segment_BT, np.ndarray):  # straight from the host
    segment_BT = prompts.segment_BT
    wrong_B = (segment_BT > 1).any(1) | (np.diff(segment_BT, axis=1) > 0).any(1)
    if wrong_B.any():
      rows = np.flatnonzero(wrong_B).tolist()
      raise ValueError(
        f"prompt rows {rows} (examples {prompts.example_BT[rows].max(1).tolist()}) are"
        " packed or padded on the left; sampling needs one right-padded prompt a row"
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prompted:
  """What all steps of the loop read. B counts replies; those to a prompt share `cache`.

  Attributes:
    cache: of the prompts.
    count_B: tokens of the reply's prompt.
    key_B: of the reply's random stream.
    divisor: of the logits.
  """

  cache: Cache
  count_B: Array
  key_B: Array
  divisor: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Of the loop. Slot `step` of the outputs is the next to be written.

  Attributes:
    cache: of the replies, up to the block that is being decoded.
    block: of the tokens after it.
  """

  step: Array
  cache: Cache
  block: Cache
  alive_B: Array  # has not drawn a stop token
  token_BT: Array
  logprob_BT: Array
  mask_BT: Array


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _sample(params, prompts, rng, stream_B, divisor, *, model, settings) -> Rollout:
  known = {"model": model, "settings": settings}
  prompted, state = prefilled(params, prompts, rng, stream_B, divisor, **known)
  state = lax.while_loop(
    functools.partial(_unfinished, settings=settings),
    lambda state: decoded_block(params, prompted, state, **known),
    state,
  )
  return Rollout(
    token_BT=state.token_BT,
    logprob_BT=state.logprob_BT,
    mask_BT=state.mask_BT,
    truncated_B=state.alive_B,
  )


def prefilled(
  params: Params,
  prompts: Batch,
  rng: Array,
  stream_B: Array,
  divisor: Array,
  *,
  model: StepAudio,
  settings: Settings,
) -> tuple[Prompted, State]:
  """Reads the prompts and draws the first token of each reply."""
  rows, copies = prompts.token_BT.shape[0], settings.copies
  prompt_B = (prompts.segment_BT > 0).sum(axis=1, dtype=jnp.int32)
  x_BTD, cache = model.apply({"params": params}, prompts, method="prefill")
  last_B11 = jnp.maximum(prompt_B - 1, 0)[:, None, None]
  x_BD = jnp.take_along_axis(x_BTD, last_B11, axis=1)[:, 0]

  # From here on B counts replies.
  prompt_B, x_BD = (jnp.repeat(x, copies, axis=0) for x in (prompt_B, x_BD))
  key_B = _keys(rng, stream_B, copies)
  shape = (rows * copies, settings.max_new_tokens)
  empty = functools.partial(empty_cache, model.size, rows * copies, dtype=model.dtype)
  state = State(
    step=jnp.zeros((), jnp.int32),
    cache=empty(-(-settings.max_new_tokens // BLOCK) * BLOCK),
    block=empty(BLOCK),
    alive_B=prompt_B > 0,
    token_BT=jnp.full(shape, settings.pad_id, jnp.int32),
    logprob_BT=jnp.zeros(shape, jnp.float32),
    mask_BT=jnp.zeros(shape, bool),
  )
  prompted = Prompted(cache, prompt_B, key_B, divisor)
  return prompted, _drawn(params, prompted, state, x_BD, model, settings)


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
  empty = empty_cache(model.size, rows, BLOCK, dtype=model.dtype)
  cache = appended(state.cache, state.block)
  return dataclasses.replace(state, cache=cache, block=empty)


def _drawn(
  params: Params,
  prompted: Prompted,
  state: State,
  x_BD: Array,
  model: StepAudio,
  settings: Settings,
) -> State:
  """`state` with the next token of the living rows, read from x_BD."""
  logits_BV = model.apply({"params": params}, x_BD, method="logits") / prompted.divisor
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  token_B, logprob_B = draw(logits_BV, fold(prompted.key_B, state.step), settings)
  stopped_B = (token_B[:, None] == jnp.asarray(settings.stop_ids)[None]).any(axis=1)
  column = functools.partial(_column, step=state.step, keep_B=state.alive_B)
  return dataclasses.replace(
    state,
    step=state.step + 1,
    alive_B=state.alive_B & ~stopped_B,
    token_BT=column(state.token_BT, token_B, settings.pad_id),
    logprob_BT=column(state.logprob_BT, logprob_B, 0.0),
    mask_BT=column(state.mask_BT, state.alive_B, False),
  )


def _unfinished(state: State, settings: Settings) -> Array:
  return (state.step < settings.max_new_tokens) & state.alive_B.any()


def _keys(rng: Array, stream_B: Array, copies: int) -> Array:
  """One key a reply, from its prompt's stream and its number among the copies."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, 0))
  rows = stream_B.shape[0]
  key_B = fold(jnp.broadcast_to(rng, (rows,)), stream_B)
  copy_B = jnp.tile(jnp.arange(copies, dtype=jnp.int32), rows)
  return fold(jnp.repeat(key_B, copies), copy_B)


def _column(x_BT: Array, value_B: Array, other: Any, *, step: Array, keep_B: Array):
  """x_BT with column `step` replaced by `value_B`, `other` in rows not kept."""
  value_B = jnp.where(keep_B, value_B, other).astype(x_BT.dtype)
  return lax.dynamic_update_slice_in_dim(x_BT, value_B[:, None], step, axis=1)


def draw(logits_BV: Array, key_B: Array, settings: Settings) -> tuple[Array, Array]:
  """One token a row from its own key, and its log-probability before truncation."""
  if settings.temperature > 0:
    logits_BV = logits_BV / settings.temperature
  token_B = _token(logits_BV, key_B, settings)
  chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=1)[:, 0]
  return token_B, chosen_B - jax.nn.logsumexp(logits_BV, axis=1)


def _token(logits_BV: Array, key_B: Array, settings: Settings) -> Array:
  if settings.temperature == 0:
    return jnp.argmax(logits_BV, axis=1).astype(jnp.int32)
  return _choice(truncated(logits_BV, settings), key_B)


def truncated(logits_BV: Array, settings: Settings) -> Array:
  """Logits with −inf at tokens that may not be drawn; ties stay or go together."""
  if settings.top_k is not None:
    ones_BV = jnp.ones_like(logits_BV)
    logits_BV = _likeliest(logits_BV, ones_BV, settings.top_k)
  if settings.top_p is not None:
    probability_BV = jax.nn.softmax(logits_BV, axis=1)
    logits_BV = _likeliest(logits_BV, probability_BV, settings.top_p)
  if settings.min_p:
    floor_B1 = logits_BV.max(axis=1, keepdims=True) + np.float32(np.log(settings.min_p))
    logits_BV = jnp.where(logits_BV >= floor_B1, logits_BV, -jnp.inf)
  return logits_BV


def _likeliest(logits_BV: Array, weight_BV: Array, enough: float) -> Array:
  """Keeps the fewest largest logits whose weights sum to `enough`, or all of them.

  Bisects the threshold over the 2³² ordered floats: 32 sums over the vocabulary,
  where sorting it would cost ten times as much (tiny, 64 rows on CPU).
  """
  bits_BV = lax.bitcast_convert_type(logits_BV, jnp.int32)
  order_BV = jnp.where(bits_BV < 0, bits_BV ^ np.int32(0x7FFFFFFF), bits_BV)
  least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max
  low_B = jnp.full(logits_BV.shape[:1], least, jnp.int32)  # always enough
  high_B = jnp.full(logits_BV.shape[:1], most, jnp.int32)  # never enough

  def halve(_, bounds):
    low_B, high_B = bounds
    middle_B = (low_B & high_B) + ((low_B ^ high_B) >> 1)  # cannot overflow
    kept_BV = order_BV >= middle_B[:, None]
    reached_B = jnp.where(kept_BV, weight_BV, 0.0).sum(axis=1) >= enough
    low_B = jnp.where(reached_B, middle_B, low_B)
    return low_B, jnp.where(reached_B, high_B, middle_B)

  low_B, _ = lax.fori_loop(0, 32, halve, (low_B, high_B))
  return jnp.where(order_BV >= low_B[:, None], logits_BV, -jnp.inf)


def _choice(logits_BV: Array, key_B: Array) -> Array:
  """One index a row, drawn by the Gumbel-max trick from the row's own key."""
  shape = logits_BV.shape[1:]
  noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(key_B)
  return jnp.argmax(logits_BV + noise_BV, axis=1).astype(jnp.int32)
