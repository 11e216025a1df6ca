"""Mixed lengths and modalities: few programs an epoch, and little padding."""

import itertools

import jax
import numpy as np
import pytest
import soundfile

from configs import rlvr, sft
from stepaudio_jax import logs, train, train_rl
from stepaudio_jax.core import packs
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout.actor import Actor
from stepaudio_jax.text.tokenizer import Special
from tests import tones

COMPILED = "/jax/core/compile/backend_compile_duration"


def mixed_talk(k: int, rng: np.random.Generator) -> dict:
  """One to three turns, with and without sound, of very different lengths."""
  messages = []
  for _ in range(1 + k % 3):
    asked = [{"type": "text", "text": "low " * int(rng.integers(1, 12)) + "?"}]
    if k % 4:
      asked.insert(0, {"type": "audio", "path": f"{k % 4}.wav"})
    reply = "It is low. " * int(rng.integers(1, 10))
    messages += [{"role": "human", "content": asked}]
    messages += [{"role": "assistant", "think": "I hear it.", "content": reply}]
  return {"id": f"talk-{k}", "messages": messages}


@pytest.fixture
def compiled():
  """Times at which XLA compiled something."""
  found = []

  def heard(event, duration, **_):
    if event == COMPILED:
      found.append(duration)

  jax.monitoring.register_event_duration_secs_listener(heard)
  yield found
  jax.monitoring.unregister_event_duration_listener(heard)


def test_an_epoch_of_all_lengths_compiles_nothing_after_its_first_step(
  tmp_path, monkeypatch, compiled
):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  rng = np.random.default_rng(0)
  for k in range(1, 4):
    length = int(16_000 * rng.uniform(0.2, 1.0))
    soundfile.write(tmp_path / f"{k}.wav", rng.normal(size=length) * 0.1, 16_000)
  tones.write(tmp_path / "talks.jsonl", [mixed_talk(k, rng) for k in range(48)])
  tones.policy(tmp_path / "start")
  c = sft.get_config("smoke")
  c.init, c.batch_size = str(tmp_path / "start"), 4
  c.data.options.dialogue.path = str(tmp_path / "talks.jsonl")
  c.data.max_tokens, c.data.max_clips, c.data.max_clip_s = 384, 6, 1.0
  c.total_steps, c.checkpoint.every_steps = 12, 100
  after = []
  write = logs.Metrics.write

  def noted(self, step, values):
    after.append(len(compiled))
    return write(self, step, values)

  monkeypatch.setattr(logs.Metrics, "write", noted)
  folder = train.run(c, tmp_path / "run")
  rows = logs.read_metrics(folder / "metrics.jsonl")
  padding = float(np.mean([row["data/padding"] for row in rows]))
  print(f"programs after step 1: {after[-1] - after[0]}; padding {padding:.1%}")
  assert after[0] > 0
  assert after[-1] == after[0]
  assert 0 < padding <= 0.3


def mixed_prompt(k: int, rng: np.random.Generator) -> dict:
  """One turn, with sound or without, of very different lengths."""
  asked = [{"type": "text", "text": "low " * int(rng.integers(1, 60)) + "?"}]
  if k % 2:
    asked.insert(0, {"type": "audio", "path": f"{1 + k % 3}.wav"})
  message = {"role": "human", "content": asked}
  return {"id": f"p-{k}", "messages": [message], "answer": "low", "choices": ["low"]}


def shapes(tree) -> tuple:
  return tuple(np.shape(leaf) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("pack", [False, True])
def test_rl_over_prompts_of_all_lengths_compiles_once_a_shape(
  tmp_path, monkeypatch, compiled, pack
):
  """Sample, measure and update: two epochs, of which the second is all old shapes."""
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  # A random model seldom draws the three that there are: replies should end.
  many = property(lambda self: (self.eot, self.eos, self.im_end, *range(0, 1000, 12)))
  monkeypatch.setattr(Special, "stop", many)
  rng = np.random.default_rng(0)
  for k in range(1, 4):
    length = int(16_000 * rng.uniform(0.2, 1.0))
    soundfile.write(tmp_path / f"{k}.wav", rng.normal(size=length) * 0.1, 16_000)
  rows = [mixed_prompt(k, rng) for k in range(32)]
  tones.write(tmp_path / "prompts-train.jsonl", rows)
  tones.write(tmp_path / "prompts-heldout.jsonl", rows[:4])
  tones.policy(tmp_path / "start")
  c = rlvr.get_config("algorithm=grpo,smoke")
  c.init, c.prompts_per_step, c.data.pack = str(tmp_path / "start"), 4, pack
  c.data.options.prompts.path = str(tmp_path / "prompts-{split}.jsonl")
  c.data.max_tokens, c.data.max_clip_s = 96, 1.0
  c.data.buckets, c.data.clip_buckets_s = (32, 56, 76), (0.0,)
  c.sampling.max_new_tokens, c.sampling.reply_buckets = 48, (24,)
  if pack:
    c.data.pack_rows = (2, 3, 4, 5)
  c.total_steps, c.checkpoint.every_steps = 16, 100
  seen, steps, asked = [], [], []
  begun, padding, write = Actor.begun, packs.padding, logs.Metrics.write

  def noted_prompts(self, params, prompts, key):
    seen.append(shapes(prompts))
    asked.append(padding(prompts)["data/padding"] * prompts.token_BT.size)
    asked.append(prompts.token_BT.size)
    return begun(self, params, prompts, key)

  def noted_replies(replies):
    seen.append(shapes(replies))
    return padding(replies)

  def noted(self, step, values):
    steps.append((tuple(seen[-2:]), len(compiled), values["data/padding"]))
    return write(self, step, values)

  monkeypatch.setattr(Actor, "begun", noted_prompts)
  monkeypatch.setattr(packs, "padding", noted_replies)
  monkeypatch.setattr(logs.Metrics, "write", noted)
  train_rl.run(c, tmp_path / "run")
  known = {steps[0][0]}
  for (_, before, _), (shape, after, _) in itertools.pairwise(steps):
    assert (after == before) or shape not in known
    known.add(shape)
  kinds = {shape[0] for shape, _, _ in steps}
  prompts = sum(asked[2:-2:2]) / sum(asked[3:-2:2])  # without those held out
  whole = float(np.mean([share for *_, share in steps]))
  print(
    f"{len(known)} shapes, {len(kinds)} of prompts; padding {prompts:.1%} of prompts, "
    f"{whole:.1%} of all"
  )
  assert 3 <= len(kinds) <= 4 * 2
  assert len(known) < len(steps)
  assert 0 < prompts <= 0.3
  if pack:
    assert whole <= 0.3
    assert len({shape[1] for shape, _, _ in steps}) <= 4 * 2 * 2  # clips, reply buckets
