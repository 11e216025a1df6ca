"""A learned reward model beside the policy: it reads the same prompts and frames."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax import scoring, sharding
from stepaudio_jax.core import processes, tree
from stepaudio_jax.core.types import Batch, Params, Replies
from stepaudio_jax.data import buckets, packing
from stepaudio_jax.data import replies as replies_lib
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.heads import RewardHeads
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.text import chat
from stepaudio_jax.text.tokenizer import Tokenizer

_SLACK = 8  # a reply's text may be spelt by more tokens than were sampled
_WHOLE = 4096  # attention's kernels want rows that many devices can share


class LearnedJudge:
  """Rewards of a reward model's checkpoint.

  A reply whose thought never closed has no reward (NaN), nor has one that is too long.

  Args:
    loaded: workdirs.load_reward_model's.
    encoder: of the policy; the reward model must hear through the same.
    tokenizer: of the policy.
    max_new_tokens: of a sampled reply.
    reply_buckets: fewer, where no process has a longer reply.
    model: of the reward model's size.
    mesh: over which its parameters are split as a policy's are.
    packed: replies go into rows without padding between them, each behind a copy of
      its prompt.
    parts: in which the replies are read one after another, where their prompts can be
      shared out so.
    like: a judge of the same size, dimensions and layout, whose compiled program serves
      this one too.

  Raises:
    ValueError: another encoder or tokenizer than the policy's.
  """

  def __init__(
    self,
    loaded: Any,
    *,
    encoder: Params,
    tokenizer: Tokenizer,
    max_new_tokens: int,
    reply_buckets: Sequence[int] = (),
    model: StepAudio,
    mesh: jax.sharding.Mesh,
    packed: bool = False,
    parts: int = 1,
    like: "LearnedJudge | None" = None,
  ):
    _check(loaded, encoder, tokenizer)
    self.dimensions = tuple(loaded.dimensions)
    self._tokenizer, self._mesh = tokenizer, mesh
    self._packed, self._parts = packed, parts
    self._opening = opening_tokens(tokenizer)
    room = (*reply_buckets, max_new_tokens)
    self._rooms = [reply_room(tokens, self._opening) for tokens in room]
    axes = step_audio.axis_names(loaded.size)
    place = sharding.placer(mesh, axes, held(model))
    params = {n: loaded.params[n] for n in held(model) if n in loaded.params}
    self._params = jax.tree_util.tree_map_with_path(
      lambda path, x: place(tree.path_text(path), x), params
    )
    self._model = (model, tuple(loaded.on_thought))
    alike = like is not None and like._model == self._model
    self._rewards = like._rewards if alike else program(*self._model)

  def __call__(self, prompts: Batch, texts: Sequence[Said]) -> dict[str, np.ndarray]:
    """{dimension: float32 [B]} of replies, those to a prompt behind each other."""
    rows = prompts.token_BT.shape[0]
    copies = len(texts) // rows
    views = [self._views(text) for text in texts]
    replies = replies_lib.laid(
      without_opening(prompts, self._opening, self._tokenizer.special.pad),
      [views[row * copies : (row + 1) * copies] for row in range(rows)],
      replies=copies,
      max_reply_tokens=self._room(views),
      pad_id=self._tokenizer.special.pad,
    )
    reward_BC = self._read(replies).reshape(len(texts), -1)
    return dict(zip(self.dimensions, reward_BC.T, strict=True))

  def _read(self, replies: Replies) -> np.ndarray:
    """reward_BIC of this process's prompts."""
    rows, devices = len(replies.count_BQ), sharding.packs(self._mesh, 1)
    # Prompts that devices cannot share evenly are refused by what puts them there.
    parts = math.gcd(self._parts, max(rows // devices, 1))
    laid = replies
    if self._packed:
      row_tokens = packed_row(replies.prompts.token_BT.shape[1], self._rooms[-1])
      laid = packing.packed(
        replies,
        devices * parts,
        row_tokens,
        self._tokenizer.special.pad,
        agreed=processes.largest,
      )
    found = []
    for first in range(parts):
      some = jax.tree.map(lambda x, a=first: x[a::parts], laid)
      reward_BIC = self._rewards(self._params, sharding.put(some, self._mesh))
      found.append(sharding.own(reward_BIC, self._mesh))
    # Parts take turns with packs, or with prompts.
    each = rows // (devices * parts) if self._packed else 1
    cut = [x.reshape(-1, each, *x.shape[1:]) for x in found]
    return np.stack(cut, axis=1).reshape(rows, *found[0].shape[1:])

  def _views(self, text: Said) -> replies_lib.Views | None:
    if text.answer is None:
      return None
    views = replies_lib.views(text.answer, text.think, self._tokenizer, "a reply")
    return views if views.tokens <= self._rooms[-1] else None

  def _room(self, views: Sequence[replies_lib.Views | None]) -> int:
    if len(self._rooms) == 1:
      return self._rooms[0]
    longest = max((each.tokens for each in views if each), default=0)
    return buckets.smallest(self._rooms, processes.largest(longest), self._rooms[-1])


def program(model: StepAudio, on_thought: Sequence[bool]) -> Callable:
  """(parameters, replies) → reward_BIC: scoring.rewards of a model with its heads."""
  heads = RewardHeads(len(on_thought))
  return jax.jit(
    functools.partial(scoring.rewards, model, heads, on_thought=on_thought)
  )


def held(model: StepAudio) -> dict[str, Any]:
  """Types of a reward model's parts: its heads read in float32 whatever the model."""
  heads = {"rewards": jnp.float32, "mixture": jnp.float32}
  return {"adaptor": model.dtype, "decoder": model.dtype, **heads}


def reply_room(tokens: int, opening: int) -> int:
  """Tokens that a sampled reply of so many may have as a turn."""
  return tokens + opening + _SLACK


def packed_row(prompt_tokens: int, room: int) -> int:
  """Tokens of a packed row; it holds the longest prompt with one reply."""
  row = prompt_tokens + room
  return row + -row % (_WHOLE if row > _WHOLE else 1)


def opening_tokens(tokenizer: Tokenizer) -> int:
  """Tokens of the turn that a prompt opens for its reply."""
  asked = [{"role": "human", "content": [{"type": "text", "text": "?"}]}]
  known = {"tokenizer": tokenizer, "clip_tokens": (), "example_id": "opening"}
  opened = chat.prompt(asked, thinking=True, **known)
  closed = chat.render(asked, target=None, **known)
  return len(opened.token_T) - len(closed.token_T)


def without_opening(prompts: Batch, opening: int, pad_id: int) -> Batch:
  """Prompts on the host up to the human's last turn: the context of a comparison."""
  length_B1 = (prompts.segment_BT > 0).sum(axis=1, keepdims=True) - opening
  kept_BT = np.arange(prompts.token_BT.shape[1])[None] < length_B1

  def cut(x_BT, value):
    return np.where(kept_BT, x_BT, value).astype(x_BT.dtype)

  return dataclasses.replace(
    prompts,
    token_BT=cut(prompts.token_BT, pad_id),
    segment_BT=cut(prompts.segment_BT, 0),
    position_BT=cut(prompts.position_BT, 0),
    example_BT=cut(prompts.example_BT, -1),
    source_BT=cut(prompts.source_BT, -1),
  )


def _check(loaded: Any, encoder: Params, tokenizer: Tokenizer) -> None:
  cast = jax.tree.map(lambda x, y: x.astype(y.dtype), loaded.params["encoder"], encoder)
  theirs = tree.content_hash({"encoder": cast})
  ours = tree.content_hash({"encoder": encoder})
  if theirs != ours:
    raise ValueError(
      f"the reward model's encoder {theirs} is not the policy's {ours}: both must "
      "start from one pre-alignment, since they share the encoder's frames"
      + _rounded(loaded.params["encoder"], encoder)
    )
  if loaded.tokenizer.vocabulary_size != tokenizer.vocabulary_size:
    raise ValueError(
      f"the reward model's tokenizer has {loaded.tokenizer.vocabulary_size} ids, the "
      f"policy's {tokenizer.vocabulary_size}"
    )


def _rounded(theirs: Params, ours: Params) -> str:
  """What to do where two encoders are one but for rounding; "" where they are not."""
  half = [
    jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), each)
    for each in (theirs, ours)
  ]
  if len({tree.content_hash(each) for each in half}) > 1:
    return ""
  whole = jax.tree.map(lambda x: np.asarray(x).astype(np.float32), theirs)
  again = jax.tree.map(lambda x: x.astype(np.float32), half[0])
  which = (
    "reward model"
    if tree.content_hash(whole) == tree.content_hash(again)
    else ("policy")
  )
  return (
    f". They are equal after rounding to bfloat16: the {which}'s was rounded, as by an "
    "export or import with its default --dtype bfloat16. Export and import it again "
    "with --dtype float32, or name the run itself"
  )
