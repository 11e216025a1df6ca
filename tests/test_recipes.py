"""Recipes against the reports they follow: values, streams, and how turns are read."""

import json

import numpy as np
import pytest

from configs import midtrain, rlhf, rlvr, sft
from stepaudio_jax.data import loader, pipeline
from stepaudio_jax.data.world import text_only
from stepaudio_jax.rl import ppo
from stepaudio_jax.rollout import keys
from stepaudio_jax.text import tokenizer as tokenizers
from tests.data import rows
from tests.rl import experiences


def test_rlvr_at_the_size_of_r1_is_the_reports():
  """Step-Audio-R1, §4.1 and §4.2, value by value."""
  c = keys.checked(rlvr.get_config("size=step_audio_r1"))
  assert c.sampling.samples == 16
  assert c.sampling.max_new_tokens == 10240
  assert c.sampling.temperature == 1.0
  algorithm = c.algorithm.to_dict()
  wanted = {"name": "ppo", "gamma": 1.0, "lambda_": 1.0, "dual_clip": 0.0}
  wanted |= {"clip_low": 0.2, "clip_high": 0.2, "normalisation": "sum"}
  assert algorithm | wanted == algorithm
  assert c.kl.beta == 0.0
  assert (c.epochs, c.minibatches) == (1, 1)  # each update of replies of its own
  assert c.rewards.rules.to_dict() == {
    "audio": {"accuracy": 0.8, "think_format": 0.2},
    "text": {"accuracy": 1.0},
  }
  assert not c.rewards.learned
  assert not c.judge


def test_its_reward_stands_on_the_last_token_alone():
  """R = 0.8 on three tokens: γ²·0.8 is left before the first, all before the last."""
  c = rlvr.get_config("size=step_audio_r1")
  mask = [[True, True, True, False], [True, False, False, False]]
  experience = experiences.experience_of(
    mask, reward=[[1.0, 0.0], [1.0, 1.0]], weight=[0.8, 0.2]
  )
  hyper = {name: value for name, value in c.algorithm.items() if name != "name"}
  found = ppo.advantages(experience, group=2, **hyper)
  np.testing.assert_allclose(
    found.return_BT, [[0.8, 0.8, 0.8, 0], [1, 0, 0, 0]], atol=1e-6
  )
  found = ppo.advantages(experience, group=2, **hyper | {"gamma": 0.5})
  np.testing.assert_allclose(found.return_BT[0], [0.2, 0.4, 0.8, 0], atol=1e-6)
  # Whitened over the sampled tokens, as the loss averages over them.
  white = found.advantage_BT[np.asarray(mask)]
  assert float(white.mean()) == pytest.approx(0.0, abs=1e-6)


def test_text_prompts_are_a_stream_of_rlvr_where_it_is_asked_for():
  c = keys.checked(rlvr.get_config("text=0.25"))
  assert c.data.mix.to_dict() == {"prompts": 0.75, "written": 0.25}
  assert set(c.data.options) == {"prompts", "written"}
  for module in (rlvr, rlhf):
    assert module.get_config("").data.mix.to_dict() == {"prompts": 1.0}


def fed(c, folder, names):
  """The recipe's own loader on files of the folder; nothing hears."""
  for name, file in names.items():
    c.data.options[name].path = str(folder / file)
  c.data.max_clip_s = 1.0
  return loader.dialogues(
    c.data,
    cache=folder / "cache",
    seed=c.seed,
    batch_size=c.batch_size,
    tokenizer=tokenizers.load("tiny"),
    encode=rows.Encoder(),
    frames_kind="frames",
    encoder_width=rows.WIDTH,
  )


def test_midtraining_mixes_what_is_heard_with_what_is_only_read(tmp_path):
  """The shipped recipe, on the text that the world's build writes."""
  c = midtrain.get_config("smoke")
  files = {name: options.path for name, options in c.data.options.items()}
  assert files == {
    "spoken": "runs/world/dialogues-train.jsonl",
    "written": "runs/world/text-train.jsonl",
  }
  rows.write_tone(tmp_path / "a.wav", 9_600)
  heard = [rows.audio_row(f"a{k}", "a.wav", "How high?", "Low.") for k in range(5)]
  rows.write_rows(tmp_path / "heard.jsonl", heard)
  rows.write_rows(tmp_path / "text.jsonl", text_only.rows(40, seed=0))
  names = {"spoken": "heard.jsonl", "written": "text.jsonl"}
  batches, feed = fed(c, tmp_path, names)
  assert feed.names == ("spoken", "written")
  stream = pipeline.mixture(feed, c.seed)
  assert np.mean([stream[k][0] == 0 for k in range(100)]) == pytest.approx(
    0.6, abs=0.02
  )
  batch, _ = next(batches)
  batches.close()
  spoken_BT, written_BT = batch.source_BT == 0, batch.source_BT == 1
  assert (batch.audio_BT[spoken_BT] >= 0).any()
  assert (batch.audio_BT[written_BT] < 0).all()
  for inside_BT in (spoken_BT, written_BT):
    assert (batch.loss_BT & inside_BT).any()
  # The text has reasoning r before its answers y.
  tokenizer = tokenizers.load("tiny")
  said = tokenizer.decode(batch.token_BT[batch.loss_BT & written_BT].tolist())
  assert "</think>" in said


def test_cold_start_sft_reads_every_turn_and_opens_an_empty_thought(tmp_path):
  """Three turns are three examples; earlier thoughts are gone, the mask is the turn."""
  turns = [
    {"role": "human", "content": "Hi."},
    {"role": "assistant", "content": "Hello.", "think": "A greeting."},
    {"role": "human", "content": "Are you sure?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "human", "content": "Why?"},
    {"role": "assistant", "content": "I heard it.", "think": "He asks why."},
  ]
  row = {"id": "d", "messages": turns}
  (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
  c = sft.get_config("smoke")
  c.data.pack, c.batch_size = False, 3
  batches, feed = fed(c, tmp_path, {"dialogue": "d.jsonl"})
  batches.close()
  tokenizer = tokenizers.load("tiny")
  found = {}
  for index in range(feed.counts[0]):
    one = feed.load(0, index)
    said = tokenizer.decode(one.token_T[one.loss_T].tolist())
    found[one.id] = said.replace("<|EOT|>", ""), tokenizer.decode(one.token_T.tolist())
  assert {name: said for name, (said, _) in found.items()} == {
    "d#0": "A greeting.\n</think>\nHello.",
    "d#1": "Yes.",
    "d#2": "He asks why.\n</think>\nI heard it.",
  }
  assert "<think>\n\n</think>\nYes." in found["d#1"][1]
  assert "A greeting." not in found["d#1"][1] + found["d#2"][1]
