"""Dialogues of four turns about tones, of which the last three are played."""

import pathlib

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import rlvr
from stepaudio_jax import workdirs
from stepaudio_jax.core.types import Params
from stepaudio_jax.data import loader
from stepaudio_jax.data.examples import Examples
from stepaudio_jax.evals.parts import hearing
from stepaudio_jax.models.step_audio import StepAudio
from stepaudio_jax.rollout.talks import Talks
from stepaudio_jax.text import tokenizer as tokenizers
from tests import tones

TINY = tokenizers.load("tiny")
MODEL = StepAudio(tones.LITTLE)
TURNS, SAMPLES, LENGTH = 3, 2, 24
RULES = {"audio": {"accuracy": 0.8, "think_format": 0.2}}


def human(text, clip=None):
  blocks = [{"type": "audio", "path": f"{clip}.wav"}] if clip is not None else []
  return {"role": "human", "content": [*blocks, {"type": "text", "text": text}]}


def assistant(text, think="I think."):
  return {"role": "assistant", "think": think, "content": text}


def talk(name, first, last):
  """Four human turns, of which the last three are played; sound in two of these."""
  asked = [human("Hi."), assistant("Yes?"), human("Pitch?", first), assistant("Low.")]
  asked += [human("Sure?"), assistant("Yes."), human("And now?", last)]
  asked += [assistant(f"It is {tones.CHOICES[last % 2]}.")]
  row = {"id": name, "messages": asked, "answer": tones.CHOICES[last % 2]}
  return {**row, "choices": tones.CHOICES}


def world(folder: pathlib.Path) -> pathlib.Path:
  """Tones, a policy, and talks-{train,heldout}.jsonl."""
  tones.world(folder)
  tones.policy(folder / "sft")
  return with_talks(folder)


def with_talks(folder: pathlib.Path) -> pathlib.Path:
  """Writes four dialogues of each split, and one that is too short."""
  short = talk("short", 0, 1)
  short["messages"] = short["messages"][-4:]
  for split, first in {"train": 0, "heldout": 4}.items():
    rows = [talk(f"{split}-{k}", first + k, 3 - k) for k in range(4)]
    tones.write(folder / f"talks-{split}.jsonl", [*rows, short])
  return folder


def recipe(world: pathlib.Path, **changed) -> ConfigDict:
  """Thoughts are closed by force, or a random policy would never answer."""
  c = rlvr.get_config("algorithm=grpo,smoke")
  c.init = str(world / "sft")
  c.data.options.prompts.path = str(world / "talks-{split}.jsonl")
  c.data.cache = str(world / "cache")
  c.data.max_tokens, c.data.max_clips = 192, 2
  c.sampling.update({"turns": TURNS, "samples": SAMPLES, "max_new_tokens": LENGTH})
  c.sampling.max_think_tokens = 4
  c.prompts_per_step, c.total_steps = 2, 3
  c.checkpoint.every_steps = 10
  c.optim.lr = 3e-3
  c.heldout.samples, c.heldout.batch_size = SAMPLES, c.prompts_per_step
  c.update_from_flattened_dict(changed)
  return c


def params(world: pathlib.Path) -> Params:
  return jax.tree.map(jnp.asarray, workdirs.load_params(world / "sft"))


def feed(world: pathlib.Path, params: Params, **changed) -> Examples:
  c = recipe(world, **changed)
  ear = hearing.frozen_encoder(params, MODEL)
  cache = loader.epath.Path(c.data.cache)
  return loader.prompts(
    c.data, "train", played=TURNS, cache=cache, tokenizer=TINY, **ear
  )


def talks(feed: Examples, rewarded: str = "each", samples: int = SAMPLES) -> Talks:
  return Talks(feed, TINY, turns=TURNS, samples=samples, rewarded=rewarded)
