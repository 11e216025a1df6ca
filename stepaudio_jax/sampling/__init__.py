"""Prompts to replies: prefill and decoding as one compiled program.

draws.py chooses tokens; program.py decodes all replies side by side, refilling.py
some at a time.

A row's text depends on its own key alone, so it does not change with the rows beside
it (up to float noise). Log-probabilities are those of the tempered distribution
before truncation, the ones a policy gradient needs.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax.core.types import Array, Batch, Params, Rollout
from stepaudio_jax.models import decoder, layers, turned
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.sampling import program, refilling
from stepaudio_jax.sampling.draws import Settings
from stepaudio_jax.sampling.program import Asked
from stepaudio_jax.text.thoughts import Thoughts

_MOST_APART = 16  # layers; more would take long to compile
_TURNED_WIDTH = 512  # of a decoder with weights beyond a processor's cache


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
  max_think_tokens: int | None = None,
  thoughts: Thoughts | None = None,
  slots: int = 0,
  shares: int = 1,
) -> Rollout:
  """Replies to prompts; see `draws.Settings` for the options.

  Args:
    params: of `model`; the encoder's are not needed.
    prompts: one segment a row, right-padded; a row without any (segment 0
      throughout) gets an empty reply.
    stream_B: int32, names each prompt's random stream, by default its row number.
      Give the prompt's own number for text that is the same in whichever batch it
      lands. Copies of a prompt have streams of their own within it.
    thoughts: of the model's tokenizer; needed with max_think_tokens, for prompts that
      have opened a thought.
    slots: as many as there are replies, or more, are all of them.
    shares: devices, or groups of them, that have rows of their own.

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
    max_think_tokens=max_think_tokens,
    closing_ids=()
    if max_think_tokens is None or not thoughts
    else thoughts.closing_ids,
    slots=int(slots),
    shares=int(shares),
  )
  _check(prompts, model, settings)
  rows = prompts.token_BT.shape[0]
  if rows % settings.shares:
    raise ValueError(f"{rows} prompts are not shared out evenly, shares={shares}")
  if not settings.slots or settings.slots >= rows * settings.copies:
    settings = dataclasses.replace(settings, slots=0, shares=1)
  if stream_B is None:
    stream_B = np.arange(rows, dtype=np.int32)
  if stream_B.shape != (rows,):
    raise ValueError(f"stream_B has shape {stream_B.shape}; there are {rows} prompts")
  needed = {key: params[key] for key in ("adaptor", "decoder") if key in params}
  # Logits are divided before they are drawn from: one program for all temperatures.
  divisor = np.float32(settings.temperature or 1.0)
  settings = dataclasses.replace(settings, temperature=float(temperature > 0))
  after_SV = None if max_think_tokens is None else _table(thoughts, model)
  asked = Asked(rng, stream_B, divisor, after_SV)
  return _sample(needed, prompts, asked, model=model, settings=settings)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _sample(params, prompts, asked, *, model, settings) -> Rollout:
  sampled = refilling.sampled if settings.slots else program.sampled
  if _apart(model):
    stacked, turns = params["decoder"], _turned(model)
    params = params | {"decoder": decoder.apart(stacked)}
    model = model.clone(apart=True)
    if turns:
      positions = prompts.token_BT.shape[1] + settings.max_new_tokens
      weights = turned.weights(stacked, model.size, positions)
      params, model = {"plain": params, "turned": weights}, turned.Turned(model)
  return sampled(params, prompts, asked, model=model, settings=settings)


def _apart(model: StepAudio) -> bool:
  """Whether layers are decoded from weights of their own.

  XLA's CPU backend copies a layer's weights out of the stack for every token.
  """
  here = jax.default_backend() == "cpu" and not layers.is_split()
  return here and model.size.layers <= _MOST_APART


def _turned(model: StepAudio) -> bool:
  """Whether weights are turned for decoding: those that a cache does not hold."""
  wide = model.size.width >= _TURNED_WIDTH and model.dtype == jnp.float32
  return wide and _apart(model)


def _table(thoughts: Thoughts, model: StepAudio) -> np.ndarray:
  """text.thoughts' table, if it is of the model's vocabulary."""
  ids = thoughts.after_SV.shape[1]
  if ids != model.size.vocabulary:
    raise ValueError(f"thoughts of {ids} ids, a vocabulary of {model.size.vocabulary}")
  return thoughts.after_SV


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
