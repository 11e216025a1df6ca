"""Long dialogues with noise for speech, and repliers in the model's place."""

import re

import numpy as np
import pytest

from stepaudio_jax import sampling
from stepaudio_jax.core.types import Rollout
from stepaudio_jax.data.world import gold, scripted, talks
from stepaudio_jax.data.world.deal import dealer
from stepaudio_jax.evals import interaction
from stepaudio_jax.evals.interaction import Options
from stepaudio_jax.evals.parts import hearing, prompts
from tests.evals import worlds

OPTIONS = Options(batch_size=4, max_new_tokens=64, temperature=0.0)
DIALOGUES, TURNS = 4, 4
IN_SILENCE = "\n</think>\nThe voice is low."


def write_talks(folder, lengthen=None, turns=TURNS):
  """A plan's dialogues with noise in the place of speech; returns their truth.

  Args:
    lengthen: (dialogue, turn) whose question is said to be far too long.
  """
  folder.mkdir()
  planned = talks.planned(DIALOGUES, turns, seed=0)
  truths = [talks.truth(talk) for talk in planned]
  paths = {turn.take.id: f"{turn.take.id}.wav" for t in planned for turn in t.turns}
  for seed, name in enumerate(paths.values()):
    worlds.write_noise(folder / name, 6_000, seed)
  rows = [
    talks.row(talk, truth["turns"], paths, 0)
    for talk, truth in zip(planned, truths, strict=True)
  ]
  if lengthen:
    dialogue, turn = lengthen
    rows[dialogue]["messages"][2 * turn]["content"][1]["text"] *= 200
  worlds.write_jsonl(folder / talks.DIALOGUES, rows)
  worlds.write_jsonl(folder / talks.TRUTH, truths)
  return {one["id"]: one for truth in truths for one in truth["turns"]}


class Replier:
  """In the place of sampling.sample: knows the turn by the frames of its last clip.

  Args:
    said: {(dialogue, turn from 0): reply as sampled}.
  """

  def __init__(self, model, folder, said):
    corpus = prompts.corpus(folder / talks.DIALOGUES)
    frames = hearing.store(model.params, folder / "cache")
    hearing.fill(frames, corpus.clips(), model.params, model.size)
    self.said = {}
    for key, audio in corpus.clips().items():
      name, turn = re.search(r"(talk-\d+)-(\d+).wav", audio.source).groups()
      place = f"{name}#{int(turn)}"
      self.said[frames.read(key)[0].rows.tobytes()] = place, said[place]
    self.tokenizer = model.tokenizer
    self.read = {}  # what the prompt of each turn holds

  def __call__(self, params, batch, rng, *, max_new_tokens, stop_ids, pad_id, **_):
    rows = len(batch.token_BT)
    token_BT = np.full((rows, max_new_tokens), pad_id, np.int32)
    mask_BT = np.zeros(token_BT.shape, bool)
    for row in range(rows):
      if batch.segment_BT[row].any():
        ids = [*self.tokenizer.encode(self.reply(batch, row)), stop_ids[0]]
        token_BT[row, : len(ids)], mask_BT[row, : len(ids)] = ids, True
    zero_BT = np.zeros(token_BT.shape)
    return Rollout(token_BT, zero_BT, mask_BT, mask_BT.sum(1), np.zeros(rows, bool))

  def reply(self, batch, row):
    clip = int((batch.frame_count_BR[row] > 0).sum()) - 1
    count = batch.frame_count_BR[row, clip]
    frames = np.ascontiguousarray(batch.frames_BRUE[row, clip, :count])
    place, said = self.said.get(frames.tobytes(), (None, IN_SILENCE))
    if place:
      kept = batch.segment_BT[row] > 0
      self.read[place] = self.tokenizer.decode(batch.token_BT[row][kept])
    return said


def perfect(truth, deal):
  return gold.reply(*talks.reply(truth, deal))


def forgetful(truth, deal):
  """Forgets facts that were told two or more turns ago, and nothing else."""
  if truth["task"] == "memory" and truth["distance"] >= 2:
    truth = {**truth, "answer": scripted.other(truth, deal)}
  return perfect(truth, deal)


def talked(folder, truths, replier, options=OPTIONS, judge=None):
  model, deal = worlds.model(), dealer(0)
  said = {place: replier(truth, deal) for place, truth in truths.items()}
  stand_in = Replier(model, folder, said)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sampling, "sample", stand_in)
    found = interaction.evaluate(
      model, folder, cache=folder / "cache", options=options, judge=judge
    )
  return *found, stand_in
