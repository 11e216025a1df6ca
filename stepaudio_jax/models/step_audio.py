"""The whole model: clips become audio tokens, spliced into a decoder's text.

Use it as `model.apply({"params": params}, …, method="hidden")`; only the parts that
a method reads need to be in `params` (no "encoder" where frames are cached).
"""

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepaudio_jax.core import packs, recipe, tree
from stepaudio_jax.core.types import Array, Batch, PackedReplies, Params, Replies
from stepaudio_jax.models import layers
from stepaudio_jax.models.adaptor import Adaptor
from stepaudio_jax.models.attention import KERNELS
from stepaudio_jax.models.audio_encoder import AudioEncoder
from stepaudio_jax.models.decoder import Cache, Decoder
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.vocabulary import TokenScores

PARTS = ("encoder", "adaptor", "decoder")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class StepAudio(nn.Module):
  """Encoder, adaptor and decoder of one size.

  Attributes:
    dtype: of activations and matrix products; parameters stay float32.
    remat: what the backward pass keeps, see `layers.REMAT_POLICIES`.
    head_chunks: parts in which `judged` makes the logits.
    kernel: the decoder's attention, one of `attention.KERNELS`.
    apart: the decoder's layers one by one, see decoder.Decoder.
  """

  size: Size
  dtype: Any = jnp.float32
  remat: str = "none"
  head_chunks: int = 1
  kernel: str = "plain"
  apart: bool = False
  turned: ClassVar[bool] = False  # as turned.Turned is

  def setup(self):
    self.encoder = AudioEncoder(self.size, self.dtype, self.remat)
    self.adaptor = Adaptor(self.size, self.dtype)
    self.decoder = Decoder(
      self.size, self.dtype, self.remat, self.head_chunks, self.kernel, self.apart
    )

  def __call__(self, batch: Batch) -> Array:
    """float32 logits_BTV; those at t predict the token at t + 1."""
    return self.logits(self.hidden(batch))

  def encode(self, mel_BLM: Array, sample_count_B: Array) -> tuple[Array, Array]:
    """(frames_BUE, frame_count_B), see `AudioEncoder`."""
    return self.encoder(mel_BLM, sample_count_B)

  def adapt(self, frames_BUE: Array, frame_count_B: Array) -> Array:
    """audio_BAD, zero beyond each clip's tokens."""
    return self.adaptor(frames_BUE, frame_count_B)

  def embedded(self, batch: Batch) -> Array:
    """x_BTD that enters the decoder: text embeddings, clips spliced in."""
    text_BTD = self.decoder.embed(batch.token_BT)
    rows, clips, frames, width = batch.frames_BRUE.shape
    if clips * frames == 0:  # a text-only batch
      return text_BTD
    audio = self.adapt(
      batch.frames_BRUE.reshape(rows * clips, frames, width),
      batch.frame_count_BR.reshape(rows * clips),
    )
    return splice(text_BTD, audio.reshape(rows, -1, audio.shape[-1]), batch.audio_BT)

  def hidden(self, batch: Batch) -> Array:
    """x_BTD after the final norm."""
    x_BTD = self.embedded(batch)
    return self.decoder(x_BTD, batch.segment_BT, batch.position_BT)

  def packed(self, replies: PackedReplies) -> Array:
    """`hidden` of all packs' rows, whose replies may share a prompt."""
    batch, prefix_BT = packs.merged((replies.batch, replies.prefix_PBT))
    x_BTD = self.embedded(batch)
    return self.decoder(x_BTD, batch.segment_BT, batch.position_BT, prefix_BT)

  def logits(self, x: Array) -> Array:
    """float32 logits [..., V] of x [..., D]."""
    return self.decoder.logits(x)

  def judged(
    self, x_BTD: Array, token_BT: Array, temperature: Any = 1.0
  ) -> TokenScores:
    """What `logits(x_BTD)` say of a token at each position; they never exist whole."""
    return self.decoder.judged(x_BTD, token_BT, temperature)

  def prefill(self, batch: Batch) -> tuple[Array, Cache]:
    """x_BTD of prompts, and a full cache of them."""
    return self.decoder.prefill(
      self.embedded(batch), batch.segment_BT, batch.position_BT
    )

  def extend(
    self,
    token_BT: Array,
    position_BT: Array,
    segment_BT: Array,
    cache: Cache,
    before: Sequence[Cache] = (),
  ) -> tuple[Array, Cache]:
    """x_BTD of the next T text tokens, which see the caches and each other."""
    x_BTD = self.decoder.embed(token_BT)
    return self.decoder.extend(x_BTD, segment_BT, position_BT, cache, before)

  def branches(self, replies: Replies) -> tuple[Array, Array]:
    """Hidden states of replies, whose prompts are computed once for all of them.

    Returns:
      x_BD of each prompt's last token, which predicts a reply's first, and x_BQTD of
      the reply tokens, meaningless beyond `count_BQ`.
    """
    prompts, (rows, copies, length) = replies.prompts, replies.token_BQT.shape
    prompt_B = (prompts.segment_BT > 0).sum(axis=1, dtype=jnp.int32)
    step_T = jnp.arange(length, dtype=jnp.int32)
    inside_BQT = step_T[None, None] < replies.count_BQ[..., None]
    position_BQT = (prompt_B[:, None] + step_T[None])[:, None]
    position_BQT = jnp.broadcast_to(position_BQT, (rows, copies, length))
    token_BT, segment_BT, position_BT = (
      x.reshape(rows * copies, length)
      for x in (replies.token_BQT, inside_BQT.astype(jnp.int32), position_BQT)
    )
    x_prompt_BTD, x_BTD = self.decoder.branches(
      (self.embedded(prompts), prompts.segment_BT, prompts.position_BT),
      (self.decoder.embed(token_BT), segment_BT, position_BT),
    )
    last_B11 = jnp.maximum(prompt_B - 1, 0)[:, None, None]
    x_BD = jnp.take_along_axis(x_prompt_BTD, last_B11, axis=1)[:, 0]
    return x_BD, x_BTD.reshape(rows, copies, length, -1)

  def everything(self, mel_BLM: Array, sample_count_B: Array, token_BT: Array):
    """Touches every parameter; for `init` alone."""
    self.adapt(*self.encode(mel_BLM, sample_count_B))
    x_BTD = self.decoder.embed(token_BT)
    return self.logits(self.decoder(x_BTD, jnp.ones_like(token_BT), token_BT))


def splice(text_BTD: Array, audio_BAD: Array, audio_BT: Array) -> Array:
  """Puts audio token `audio_BT` of the row where that is ≥ 0, text elsewhere."""
  index_BT1 = jnp.maximum(audio_BT, 0)[..., None]
  gathered_BTD = jnp.take_along_axis(audio_BAD, index_BT1, axis=1)
  return jnp.where(audio_BT[..., None] >= 0, gathered_BTD, text_BTD)


def named(
  size: Size, *, dtype: str, remat: str, head_chunks: int, attention: str, platform: str
) -> StepAudio:
  """The model that a recipe names; an unknown name raises and lists the choices.

  Args:
    attention: one of `attention.KERNELS`, or "auto": the platform's own.
    platform: of the devices: "cpu", "gpu" or "tpu".
  """
  recipe.choose("remat", remat, {"none": None, **layers.REMAT_POLICIES})
  known = {name: name for name in KERNELS}
  own = {"tpu": "splash", "gpu": "cudnn" if dtype == "bfloat16" else "plain"}
  kernel = recipe.choose(
    "attention", attention, {**known, "auto": own.get(platform, "plain")}
  )
  if head_chunks < 1:
    raise ValueError(f"head_chunks={head_chunks} must be at least 1")
  return StepAudio(
    size,
    dtype=recipe.choose("dtype", dtype, DTYPES),
    remat=remat,
    head_chunks=head_chunks,
    kernel=kernel,
  )


@functools.partial(jax.jit, static_argnames="size")
def boxed_params(rng: Array, size: Size) -> Params:
  """Fresh parameters, each in a box with its logical axis names."""
  mel_BLM = jnp.zeros((1, 8, size.mel_bins))
  samples_B = jnp.full((1,), 960, jnp.int32)
  token_BT = jnp.zeros((1, 1), jnp.int32)
  model = StepAudio(size)
  return model.init(rng, mel_BLM, samples_B, token_BT, method="everything")["params"]


def init_params(rng: Array, size: Size) -> Params:
  """Fresh float32 parameters of all `PARTS`, plain nested dicts."""
  return nn.meta.unbox(boxed_params(rng, size))


def abstract_params(size: Size, *, boxed: bool = False) -> Params:
  """Shapes and dtypes of `init_params`, or of `boxed_params` with axis names."""
  make = boxed_params if boxed else init_params
  return jax.eval_shape(lambda: make(jax.random.key(0), size))


def axis_names(size: Size) -> dict[str, tuple[str | None, ...]]:
  """Path of every parameter → logical names of its axes."""
  boxed = abstract_params(size, boxed=True)
  flat = jax.tree_util.tree_flatten_with_path(
    boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )[0]
  return {tree.path_text(path): box.names for path, box in flat}
