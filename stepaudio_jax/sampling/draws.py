"""One token for each row: drawn, or one of those that close a thought."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stepaudio_jax.core.types import Array
from stepaudio_jax.text.thoughts import CLOSED


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a token is drawn and when a reply ends (hashable: part of the program).

  Attributes:
    temperature: 0 takes the likeliest token.
    top_k: draw among the k likeliest only (and any tied with the last of them).
    top_p: draw among the fewest likeliest tokens whose mass reaches p, counted
      within the top k (nucleus sampling, arXiv 1904.09751).
    min_p: draw among tokens of at least min_p times the likeliest one's probability.
    stop_ids: each of them ends a reply and belongs to it; without one all replies
      run to the limit.
    pad_id: written behind the end.
    copies: replies to each prompt, which is read (prefilled) once.
    max_think_tokens: a thought that is still open after so many tokens is closed by
      `closing_ids`, which are not drawn; None leaves it open.
    closing_ids: of text/thoughts.py; () where no thought is closed.
    slots: replies that are decoded at a time, see refilling.py; 0 is all of them.
    shares: of prompts and slots, each with a queue of its own.
  """

  max_new_tokens: int
  stop_ids: tuple[int, ...]
  pad_id: int
  temperature: float = 1.0
  top_k: int | None = None
  top_p: float | None = None
  min_p: float | None = None
  copies: int = 1
  max_think_tokens: int | None = None
  closing_ids: tuple[int, ...] = ()
  slots: int = 0
  shares: int = 1

  def __post_init__(self):
    checks = {
      "max_new_tokens": self.max_new_tokens >= 1,
      "copies": self.copies >= 1,
      "temperature": self.temperature >= 0,
      "top_k": self.top_k is None or self.top_k >= 1,
      "top_p": self.top_p is None or 0 < self.top_p <= 1,
      "min_p": self.min_p is None or 0 <= self.min_p <= 1,
      "slots": self.slots >= 0 and self.slots % max(self.shares, 1) == 0,
      "shares": self.shares >= 1,
      "max_think_tokens": self.max_think_tokens is None
      or 0 <= self.max_think_tokens < self.max_new_tokens - len(self.closing_ids),
      "closing_ids": bool(self.closing_ids) == (self.max_think_tokens is not None)
      and not set(self.closing_ids) & set(self.stop_ids),
    }
    wrong = [
      f"{key}={getattr(self, key)!r}" for key, fine in checks.items() if not fine
    ]
    if wrong:
      raise ValueError(
        f"cannot sample with {', '.join(wrong)}: max_new_tokens ≥ 1, copies ≥ 1,"
        " temperature ≥ 0, top_k ≥ 1, 0 < top_p ≤ 1, 0 ≤ min_p ≤ 1, slots ≥ 0, a"
        " multiple of shares ≥ 1; with max_think_tokens ≥ 0 come closing_ids, none of"
        " them a stop id, and the two leave one of max_new_tokens or more to the answer"
      )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Next:
  """The next token of every row.

  Attributes:
    logprob_B: 0 where the token was not drawn.
    drawn_B: False where it is one of those that close a thought.
    stopped_B: it ends the reply.
    thought_B: text.thoughts' state after it; None where no thought is watched.
  """

  token_B: Array
  logprob_B: Array
  drawn_B: Array
  stopped_B: Array
  thought_B: Array | None


def following(
  logits_BV: Array,
  key_B: Array,
  step_B: Array,
  thought_B: Array | None,
  after_SV: Array | None,
  settings: Settings,
) -> Next:
  """What follows tokens 0 … step − 1 of each reply.

  Args:
    key_B: of the reply's random stream; each token has a key of its own in it.
    thought_B, after_SV: text.thoughts' state of each row, and its table.
  """
  token_key_B = jax.vmap(jax.random.fold_in)(key_B, step_B)
  token_B, logprob_B = draw(logits_BV, token_key_B, settings)
  drawn_B = jnp.ones(token_B.shape, bool)
  if settings.max_think_tokens is not None:
    closing = jnp.asarray(settings.closing_ids, jnp.int32)
    place_B = step_B - settings.max_think_tokens
    # The state stays while the thought is being closed: it tells open from closed.
    drawn_B = (thought_B == CLOSED) | (place_B < 0) | (place_B >= len(closing))
    forced_B = closing[jnp.clip(place_B, 0, len(closing) - 1)]
    token_B = jnp.where(drawn_B, token_B, forced_B)
    logprob_B = jnp.where(drawn_B, logprob_B, 0.0)
    after_B = after_SV[thought_B, token_B].astype(jnp.int32)
    thought_B = jnp.where(drawn_B, after_B, thought_B)
  stop = jnp.asarray(settings.stop_ids, jnp.int32)[None]
  stopped_B = (token_B[:, None] == stop).any(axis=1)
  return Next(token_B, logprob_B, drawn_B, stopped_B, thought_B)


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
