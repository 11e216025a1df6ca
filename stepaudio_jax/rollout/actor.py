"""Prompts to scored and measured replies: all of a step before its update."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax import policy, sharding
from stepaudio_jax.core import processes
from stepaudio_jax.core.types import (
  Array,
  Batch,
  Experience,
  PackedReplies,
  Params,
  Replies,
  Rollout,
)
from stepaudio_jax.data import buckets, packing
from stepaudio_jax.models import step_audio
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rollout import drawn as drawn_lib
from stepaudio_jax.rollout import said as said_lib
from stepaudio_jax.rollout import settings
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.scorer import Scorer, Scores
from stepaudio_jax.rollout.settings import Sampling
from stepaudio_jax.rollout.talks import Talks
from stepaudio_jax.text.tokenizer import Tokenizer

_PARTS = ("adaptor", "decoder")
# Of later turns' random streams: no round of refilling has this number.
_LATER_TURNS = 1 << 30


@dataclasses.dataclass(frozen=True)
class Packing:
  """How replies are packed for measuring and training, see data/packing.py."""

  packs: int
  row_tokens: int
  shared: bool
  row_counts: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Played:
  """Replies to a batch of prompts, those to a prompt behind each other.

  What is on the host is of this process's prompts, what is on devices of all.

  Attributes:
    drawn: on the host.
    replies: the same on the devices, behind their prompts.
    experience: without advantages.
    entropy_BT: nats before each token; like `experience.old_BT` it is 0 where an update
      will tell (Actor.completed).
    version: steps that the measured policy has learnt from.
    seconds: of sampling, scoring and measuring.
  """

  drawn: Drawn
  replies: Replies | PackedReplies
  experience: Experience
  entropy_BT: Array
  version: int
  seconds: dict[str, float]


class Actor:
  """Plays prompts with one program for each part.

  Args:
    scorer: of the replies' texts.
    reference: {"adaptor", "decoder"} on the device.
    packing: None: replies are measured beside each other, behind one prompt.
    talks: where dialogues are played: prompts given are those of their first turns.
    measures: what the policy says of its replies is found by a pass of its own; False
      leaves it to the update (`completed`).
    drawing_mesh: of sampling; None is that of training. Decoding reads every weight for
      each token, so it wants them whole on few devices, and in the model's type.
  """

  def __init__(
    self,
    model: StepAudio,
    tokenizer: Tokenizer,
    scorer: Scorer,
    reference: Params,
    mesh: jax.sharding.Mesh,
    sampling_: Sampling,
    packing_: Packing | None = None,
    drawing_mesh: jax.sharding.Mesh | None = None,
    talks: Talks | None = None,
    measures: bool = True,
  ):
    self._talks, self.turns = talks, talks.turns if talks else 1
    self._packing, self._drawing_mesh = packing_, drawing_mesh or mesh
    devices = sharding.row_devices(self._drawing_mesh)
    self._draw = settings.sampler(model, tokenizer, sampling_, devices)
    self._model, self.tokenizer, self._scorer = model, tokenizer, scorer
    self._reference, self._mesh, self._sampling = reference, mesh, sampling_
    known = {"model": model, "temperature": sampling_.temperature}
    measured = jax.jit(functools.partial(policy.measured, **known))
    self._measured = measured if measures else None
    self._logprobs = jax.jit(from_host(reference, known))
    self._values = jax.jit(functools.partial(policy.values, model=model))

  def play(
    self,
    params: Params,
    prompts: Batch,
    rows: Sequence[Mapping[str, Any]],
    rng: Array,
    version: int = 0,
  ) -> Played:
    """Samples replies, scores them, and measures them under policy and reference.

    Args:
      params: the policy's, and "critic" where there is one.
      prompts: on the host, a prompt a row; this process's.
      rows: the dialogue rows behind them.
      version: steps that the policy has learnt from.

    Raises:
      FloatingPointError: log-probabilities that are not finite; the ids are named.
    """
    clocks = [time.perf_counter()]
    rollout = self.heard(params, rows, self.begun(params, prompts, rng), rng)
    clocks.append(time.perf_counter())
    drawn = self.scored(prompts, rows, rollout, version)
    clocks.append(time.perf_counter())
    played = self.measured(params, prompts, drawn, version)
    parts = ("sample_s", "score_s")
    seconds = dict(zip(parts, np.diff(clocks).tolist(), strict=True))
    return dataclasses.replace(played, seconds=seconds | played.seconds)

  def begun(
    self, params: Params, prompts: Batch, rng: Array, copies: int | None = None
  ) -> Rollout:
    """Replies that the devices are at work on; `heard` waits for them.

    Args:
      copies: to each prompt; None are the run's samples.
    """
    mesh = self._drawing_mesh
    given = self._moved(sharding.put(prompts, self._mesh), mesh)
    policy_ = self._drawn_from({part: params[part] for part in _PARTS})
    with sharding.over(mesh):
      everywhere = sharding.replicated(mesh)
      key, many = sharding.relaid(rng, everywhere), copies or self._sampling.samples
      rollout = self._draw(policy_, given, key, copies=many)
    return self._moved(rollout, self._mesh)

  def heard(
    self,
    params: Params,
    rows: Sequence[Mapping[str, Any]],
    rollout: Rollout,
    rng: Array,
  ) -> Rollout:
    """The replies to this process's prompts, on the host.

    Where dialogues are played these are of all turns: the later ones are asked here.

    Args:
      params, rng: what the rollout was begun with.
      rows: the dialogue rows behind the prompts.
    """
    first = sharding.own(rollout, self._mesh)
    if not self._talks:
      return first

    def ask(prompts: Batch, turn: int) -> Rollout:
      key = jax.random.fold_in(jax.random.fold_in(rng, _LATER_TURNS), turn)
      return sharding.own(self.begun(params, prompts, key, copies=1), self._mesh)

    return self._talks.play(rows, first, ask)

  def scored(
    self,
    prompts: Batch,
    rows: Sequence[Mapping[str, Any]],
    rollout: Rollout,
    version: int,
  ) -> Drawn:
    """Replies on the host with their texts and rewards.

    Raises:
      FloatingPointError: log-probabilities that are not finite; the ids are named.
    """
    if not np.isfinite(rollout.logprob_BT).all():
      names = [row["id"] for row in rows]
      raise FloatingPointError(f"the policy's logits are not finite on {names}")
    texts = said_lib.said(rollout, self.tokenizer)
    if self._talks:
      scores = self._talks.scores(self._scorer, rows, texts, rollout.count_B)
    else:
      scores = self._scorer(prompts, rows, texts, rollout.count_B)
    version_B = np.full(len(texts), version, np.int32)
    return Drawn(rows, rollout, texts, scores, version_B, self.turns)

  def measured(
    self, params: Params, prompts: Batch, drawn: Drawn, version: int
  ) -> Played:
    """Replies with what the policy, its critic and the reference say of each token.

    Args:
      version: steps that the policy has learnt from.
    """
    clock = time.perf_counter()
    drawn = drawn_lib.shortened(drawn, self._width(drawn.rollout))
    replies = self.laid_out(prompts, drawn)
    told = (drawn.rollout, drawn.scores)
    experience, entropy_BT = self._experience(params, replies, *told)
    seconds = {"measure_s": time.perf_counter() - clock}
    return Played(drawn, replies, experience, entropy_BT, version, seconds)

  def laid_out(self, prompts: Batch, drawn: Drawn) -> Replies | PackedReplies:
    """Replies on the devices, behind their prompts or what was said before a turn."""
    if self._talks:
      prompts = self._talks.prompts(drawn.asked, drawn.texts)
    return self.put(self._laid(prompts, drawn.rollout))

  def completed(self, played: Played, measured: policy.Measured) -> Played:
    """With what the update has found out about the policy before it."""
    old_BT, entropy_BT = _sampled(measured, played.experience.mask_BT)
    experience = dataclasses.replace(played.experience, old_BT=old_BT)
    return dataclasses.replace(played, experience=experience, entropy_BT=entropy_BT)

  def put(self, rows: Any) -> Any:
    """Host arrays of this process's rows, on the devices."""
    return sharding.put(rows, self._mesh)

  def whole(self, played: Played, asked: Sequence[Mapping[str, Any]]) -> Played:
    """The same with all processes' replies, on the host; each of them must ask.

    Args:
      asked: the dialogue rows behind all of their prompts.
    """
    if jax.process_count() == 1:
      return played
    return dataclasses.replace(
      played,
      drawn=drawn_lib.everyones(played.drawn, asked, self.tokenizer),
      experience=self.everyones(played.experience),
      entropy_BT=self.everyones(played.entropy_BT),
    )

  def everyones(self, rows: Any) -> Any:
    """The devices' rows as host arrays of all processes, each of which must ask."""
    if jax.process_count() == 1:
      return rows
    return processes.gathered(sharding.own(rows, self._mesh))

  def _width(self, rollout: Rollout) -> int:
    """Columns for the longest reply of all processes: one of the declared buckets."""
    known = self._sampling
    if not known.reply_buckets:
      return rollout.token_BT.shape[1]
    longest = processes.largest(int(rollout.count_B.max()))
    return buckets.smallest(known.reply_buckets, longest, known.max_new_tokens)

  def _moved(self, rows: Any, mesh: jax.sharding.Mesh) -> Any:
    """Rows shared out over the one mesh or the other."""
    if self._drawing_mesh == self._mesh:
      return rows
    return sharding.relaid(rows, sharding.by_rows(mesh))

  def _drawn_from(self, params: Params) -> Params:
    """The policy in the model's type, on the mesh of sampling."""
    dtype = self._model.dtype
    if self._drawing_mesh == self._mesh and dtype == jnp.float32:
      return params
    axes = step_audio.axis_names(self._model.size)
    lies = sharding.parameters(self._drawing_mesh, axes, params)
    return sharding.relaid(params, tuple(jax.tree.leaves(lies)), dtype=dtype)

  def _experience(
    self,
    params: Params,
    replies: Replies | PackedReplies,
    rollout: Rollout,
    scores: Scores,
  ) -> tuple[Experience, Array]:
    now = None
    if self._measured:
      now = self._measured({part: params[part] for part in _PARTS}, replies)
    reference_BQT = self._logprobs(self._reference, replies)
    critic = params.get("critic")
    value_BQT = self._values(critic, replies) if critic else None
    told = (rollout, scores.reward_BC, scores.weight_BC)
    told = sharding.put(told, self._mesh)
    return jax.block_until_ready(_assembled(now, reference_BQT, value_BQT, *told))

  def _laid(self, prompts: Batch, rollout: Rollout) -> Replies | PackedReplies:
    """The rollout behind its prompts, as the model reads it."""
    shape = (prompts.token_BT.shape[0], -1, rollout.token_BT.shape[1])
    replies = Replies(
      prompts, rollout.token_BT.reshape(shape), rollout.count_B.reshape(shape[:2])
    )
    if self._packing is None:
      return replies
    return packing.packed(
      replies,
      self._packing.packs,
      self._packing.row_tokens,
      self.tokenizer.special.pad,
      shared=self._packing.shared,
      row_counts=self._packing.row_counts,
      agreed=processes.largest,
    )


def from_host(reference: Params, known: Mapping[str, Any]) -> Callable:
  """policy.logprobs of a reference that may wait in the host's memory.

  Args:
    reference: lies as the program's argument will; abstract arrays will do.
  """
  lies = sharding.places(reference)

  def logprobs(params: Params, replies: Replies | PackedReplies) -> Array:
    if lies != sharding.on_device(lies):
      params = jax.device_put(params, sharding.on_device(lies))
    return policy.logprobs(params, replies, **known)

  return logprobs


@jax.jit
def _assembled(
  now: policy.Measured | None,
  reference_BQT: Array,
  value_BQT: Array | None,
  rollout: Rollout,
  reward_BC: Array,
  weight_BC: Array,
) -> tuple[Experience, Array]:
  mask_BT = rollout.mask_BT
  zero_BT = jnp.zeros(mask_BT.shape, jnp.float32)

  def kept(x_BQT):
    return zero_BT if x_BQT is None else _on_sampled(x_BQT, mask_BT)

  old_BT, entropy_BT = _sampled(now, mask_BT) if now else (zero_BT, zero_BT)
  experience = Experience(
    mask_BT=mask_BT,
    sampler_BT=rollout.logprob_BT,
    old_BT=old_BT,
    reference_BT=kept(reference_BQT),
    reward_BC=reward_BC,
    weight_BC=weight_BC,
    value_BT=kept(value_BQT),
    advantage_BT=zero_BT,
    return_BT=zero_BT,
  )
  return experience, entropy_BT


@jax.jit
def _sampled(measured: policy.Measured, mask_BT: Array) -> tuple[Array, Array]:
  """Log-probabilities and entropies, 0 outside the mask."""
  return (
    _on_sampled(measured.logprob_BQT, mask_BT),
    _on_sampled(measured.entropy_BQT, mask_BT),
  )


def _on_sampled(x_BQT: Array, mask_BT: Array) -> Array:
  return jnp.where(mask_BT, x_BQT.reshape(mask_BT.shape), 0.0)
