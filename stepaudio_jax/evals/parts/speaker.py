"""A checkpoint that answers windows of dialogues, batch by batch.

Windows and their batches follow from the list of dialogues alone, not from what has
been answered before or by how many processes, so a resumed run gives the same bits.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from stepaudio_jax.audio.decoder import AudioError
from stepaudio_jax.core.types import Params
from stepaudio_jax.data import features
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.data.store import Store
from stepaudio_jax.evals.parts import budgets, hearing, items, weighing
from stepaudio_jax.evals.parts import prompts as prompts_lib
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.items import not_asked
from stepaudio_jax.evals.parts.prompts import Prompts
from stepaudio_jax.evals.parts.replies import Options, Reply
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.workdirs import Model

WINDOW = 8  # batches that are sorted by length together
_FRAMES_MULTIPLE = 128  # of encoder frames a chunk: about 5 s

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Speaker:
  """A model and where it keeps the encoder frames of what it hears."""

  model: Model
  cache: epath.Path

  @functools.cached_property
  def _frames(self) -> Store:
    return hearing.store(self.model.params, self.cache)

  @functools.cached_property
  def _encode(self) -> features.Encode:
    encoder = self.model.params["encoder"]
    return hearing.replicas(encoder, StepAudio(self.model.size))

  @functools.cached_property
  def _params(self) -> Params:
    needed = {part: self.model.params[part] for part in ("adaptor", "decoder")}
    return jax.device_put(needed)

  @functools.cached_property
  def _logprobs(self) -> weighing.Logprobs:
    return weighing.program(self.model)

  def window(self, options: Options) -> int:
    """Dialogues that `answers` is to be given at a time."""
    return WINDOW * options.batch_size

  def answers(
    self,
    talks: Sequence[Dialogue],
    options: Options,
    wanted: set[str],
    budget: int | None = None,
  ) -> Iterator[list[Row]]:
    """Rows of the replies to the last turn, a batch at a time; all samples of one.

    Args:
      talks: a window; the batches are those of all of it.
      wanted: ids that are asked for; a batch without any is left out.
      budget: tokens after which a thought is closed for it, see budgets.replies.

    Yields:
      {"id", "sample", "raw", "think", "reply", "think_tokens", "truncated", "failed"};
      what cannot be asked has its reason in "failed" and None for the reply.
    """
    talks, failed = self._heard(talks)
    prompts = self._prompts(talks, options, budget)
    failed |= {prompt.dialogue_id: why for prompt, why in prompts.failed}
    lost = [(name, why) for name, why in failed.items() if name in wanted]
    if lost:
      yield [not_asked(*one, n) for one in lost for n in range(options.samples)]
    for said in self._batches(prompts, options, wanted, budget):
      yield [self._row(reply) for reply in said if reply.prompt.dialogue_id in wanted]

  def say(
    self, conversations: Sequence[list[Row]], options: Options
  ) -> list[str | None]:
    """Answers to messages, thoughts left out; None where none came.

    Their audio blocks are heard; paths are absolute, or relative to where we are.
    """
    found: dict[str, str | None] = {}
    for window in self._windows(conversations, options):
      for rows in self.answers(window, options, {talk.id for talk in window}):
        found |= {row["id"]: row["reply"] for row in rows}
    return [found[str(n)] for n in range(len(conversations))]

  def weigh(
    self, conversations: Sequence[list[Row]], options: Options
  ) -> list[tuple[str | None, np.ndarray | None]]:
    """As `say`, with the probabilities of the levels where an answer names one.

    Returns:
      (answer, float64 [6]) of each; see weighing.py.
    """
    found: dict[str, tuple[str | None, np.ndarray | None]] = {}
    for window in self._windows(conversations, options):
      talks, failed = self._heard(window)
      prompts = self._prompts(talks, options, budget=None)
      failed |= {prompt.dialogue_id: why for prompt, why in prompts.failed}
      found |= dict.fromkeys(failed, (None, None))
      wanted = {talk.id for talk in window}
      for said in self._batches(prompts, options, wanted, budget=None):
        weights = weighing.probabilities(
          self._logprobs, self._params, self.model, said, prompts, options.batch_size
        )
        for reply, weight_6 in zip(said, weights, strict=True):
          found[reply.prompt.dialogue_id] = (reply.answer, weight_6)
    return [found[str(n)] for n in range(len(conversations))]

  def _windows(
    self, conversations: Sequence[list[Row]], options: Options
  ) -> Iterator[list[Dialogue]]:
    """Conversations as dialogues named by their numbers."""
    talks = [
      items.talk(str(n), [*messages], f"conversation {n}", "")
      for n, messages in enumerate(conversations)
    ]
    for start in range(0, len(talks), self.window(options)):
      yield talks[start : start + self.window(options)]

  def _batches(
    self, prompts: Prompts, options: Options, wanted: set[str], budget: int | None
  ) -> Iterator[list[Reply]]:
    """All replies of a batch at a time; batches that nobody wants are left out."""
    for places in replies_lib.by_length(prompts.fitting, options.batch_size):
      asked = [prompts.fitting[place] for place in places]
      if wanted.isdisjoint(prompt.dialogue_id for prompt in asked):
        continue
      given = (self._params, self.model, asked, prompts, options)
      if budget is None:
        yield replies_lib.batch(*given)
      else:
        yield budgets.replies(*given, budget=budget)

  def _prompts(
    self, talks: Sequence[Dialogue], options: Options, budget: int | None
  ) -> Prompts:
    room = options.room(self.model.size.max_positions)
    return prompts_lib.of_frames(
      self.model.tokenizer,
      talks,
      hearing.content_key,
      self._frames,
      max_tokens=room - budgets.tokens(self.model.tokenizer, budget),
      frames_multiple=_FRAMES_MULTIPLE,
    )

  def _heard(
    self, talks: Sequence[Dialogue]
  ) -> tuple[Sequence[Dialogue], dict[str, str]]:
    """The dialogues whose recordings can be decoded, and what ails the others."""
    try:
      self._fill(talks)
    except AudioError:
      found = {talk.id: _problem(talk) for talk in talks}
      problems = {name: problem for name, problem in found.items() if problem}
    else:
      return talks, {}
    for name, problem in problems.items():
      logging.warning("item %r cannot be heard: %s", name, problem)
    talks = [talk for talk in talks if talk.id not in problems]
    self._fill(talks)
    return talks, problems

  def _fill(self, talks: Sequence[Dialogue]) -> None:
    clips = {
      hearing.content_key(audio): audio for talk in talks for audio in talk.audio
    }
    features.fill_frames(
      self._frames, clips, self._encode, batch_size=hearing.BATCH_SIZE
    )

  def _row(self, reply: Reply) -> Row:
    """What is kept of a reply."""
    return {
      "id": reply.prompt.dialogue_id,
      "sample": reply.sample,
      "raw": reply.text,
      "think": reply.think,
      "reply": reply.answer,
      "think_tokens": len(self.model.tokenizer.encode(reply.think)),
      "truncated": reply.truncated,
      "failed": None,
    }


def _problem(talk: Dialogue) -> str | None:
  """Why a recording of it cannot be used."""
  try:
    for audio in talk.audio:
      features.mels(audio)
  except AudioError as error:
    return str(error)
  return None
