"""Rewards of the comparisons in a file, as they are heard and with other sound."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from stepaudio_jax import scoring
from stepaudio_jax.core import progress
from stepaudio_jax.data.comparisons import PairLimits, Pairs
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.data.store import Store
from stepaudio_jax.evals.parts import controls as controls_lib
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.evals.rewards.candidates import Candidates
from stepaudio_jax.evals.rewards.other_sound import OtherSound
from stepaudio_jax.models.heads import RewardHeads
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.workdirs import RewardModel

SILENCE = "silence"


def corpus(path: epath.Path) -> Corpus:
  literal = str(path).replace("{", "{{").replace("}", "}}")
  options = {"preference": {"path": literal}}
  return Corpus({"preference": 1.0}, options, "heldout", Preference)


def heard(
  model: RewardModel,
  corpus: Corpus,
  frames: Store,
  folder: epath.Path,
  *,
  batch_size: int,
  controls: Sequence[str] | None,
  limit: int | None,
) -> tuple[Pairs, dict[str, np.ndarray]]:
  """The comparisons, and reward_N2C of them by "reward" and every control.

  Args:
    folder: of the clips that controls make.
    controls: beside silence; None is all that the data allow, which is told.

  Raises:
    ValueError: a control that was named is not possible.
  """
  clips = corpus.clips()
  hearing.fill(frames, clips, model.params, model.size)
  asked = _pairs(corpus, frames, model, PairLimits())
  silence = hearing.silenced(frames, clips, model.params, model.size)
  feeds = {"reward": asked, SILENCE: _pairs(corpus, silence, model, asked.limits)}
  known = controls_lib.names()[1:] if controls is None else controls
  for name in (one for one in known if one != SILENCE):
    try:
      other = OtherSound(corpus, name, folder)
    except ValueError as error:
      if controls is not None:
        raise
      logging.warning("the control %r is left out: %s", name, error)
      continue
    hearing.fill(frames, other.clips(), model.params, model.size)
    # Its clips may be longer ones.
    feeds[name] = _pairs(other, frames, model, PairLimits())
  program = _program(model)
  places = [(0, index) for index in range(asked.counts[0])][:limit]
  return asked, {
    name: _rewards(program, feed, places, batch_size, name)
    for name, feed in feeds.items()
  }


def candidates(
  model: RewardModel, asked: Candidates, frames: Store, batch_size: int
) -> dict[str, dict[int, np.ndarray]]:
  """{prompt: {place: reward_C}} of sampled replies."""
  hearing.fill(frames, asked.clips(), model.params, model.size)
  feed = _pairs(asked, frames, model, PairLimits())
  places = [(0, index) for index in range(len(asked))]
  reward_N2C = _rewards(_program(model), feed, places, batch_size, "candidates")
  out: dict[str, dict[int, np.ndarray]] = {}
  for both, reward_2C in zip(asked.members, reward_N2C, strict=True):
    for (prompt, place), reward_C in zip(both, reward_2C, strict=True):
      out.setdefault(prompt, {})[place] = reward_C
  return out


def _pairs(corpus: Corpus, frames: Any, model: RewardModel, limits: PairLimits):
  return Pairs(
    corpus,
    frames,
    model.tokenizer,
    limits,
    dimensions=model.dimensions,
    encoder_width=model.size.encoder_width,
  )


def _program(model: RewardModel) -> Callable:
  """replies → reward_B2C of this model, of an ensemble the mean; a comparison a row."""
  first = {part: leaves for part, leaves in model.params.items() if part != "encoder"}
  members = jax.device_put([first, *model.others])
  score = _compiled(StepAudio(model.size), model.on_thought)
  if not model.others:
    return functools.partial(score, members[0])
  return lambda replies: np.mean(
    [np.asarray(score(params, replies)) for params in members], axis=0
  )


@functools.lru_cache(maxsize=4)
def _compiled(model: StepAudio, on_thought: tuple[bool, ...]) -> Callable:
  heads = RewardHeads(len(on_thought))
  return jax.jit(
    functools.partial(scoring.rewards, model, heads, on_thought=on_thought)
  )


def _rewards(
  program: Callable,
  feed: Pairs,
  places: Sequence[tuple[int, int]],
  batch_size: int,
  what: str,
) -> np.ndarray:
  """reward_N2C of the comparisons at these places."""
  out = []
  for start in progress.bar(range(0, len(places), batch_size), what, "batch"):
    asked = places[start : start + batch_size]
    rows = [[place] for place in asked] + [[]] * (batch_size - len(asked))
    reward_B2C = np.asarray(program(feed.batch(rows, start).replies))
    if not np.isfinite(reward_B2C[: len(asked)]).all():
      names = [feed.entry(*place).id for place in asked]
      raise FloatingPointError(f"the model's rewards are not finite on {names}")
    out.append(reward_B2C[: len(asked)])
  return np.concatenate(out)
