"""Played dialogues by the engine against full forwards, and in the loop."""

import dataclasses
import json
import signal
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import logs, meshes, policy, steps, train_rl, workdirs
from stepaudio_jax.core import tree
from stepaudio_jax.data import collate
from stepaudio_jax.data.collate import Example
from stepaudio_jax.models import sizes
from stepaudio_jax.rl import grpo
from stepaudio_jax.rollout import judge
from stepaudio_jax.rollout.actor import Actor, Packing
from stepaudio_jax.rollout.scorer import Scorer
from stepaudio_jax.rollout.settings import Sampling
from stepaudio_jax.text import chat, messages
from tests import dialogues, tones
from tests.dialogues import (
  LENGTH,
  MODEL,
  RULES,
  SAMPLES,
  TINY,
  TURNS,
  recipe,
  talks,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  return dialogues.world(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def params(world):
  return dialogues.params(world)


@pytest.fixture(scope="module")
def feed(world, params):
  return dialogues.feed(world, params)


# ─── The engine against a full forward ──────────────────────────────────────────────


@pytest.fixture(scope="module")
def acted(world, params, feed):
  """(actor, parameters, dialogue rows, what was played) of two dialogues."""
  mesh = meshes.mesh({"data": 1, "fsdp": 1, "tensor": 1, "context": 1})
  speaking = {part: params[part] for part in ("adaptor", "decoder")}
  how = Sampling(SAMPLES, LENGTH, 1.0, max_think_tokens=4, turns=TURNS)
  reader = judge.LearnedJudge(
    workdirs.load_reward_model(
      tones.reward_model(world / "rm", ("correctness", "naturalness"))
    ),
    encoder=params["encoder"],
    tokenizer=TINY,
    max_new_tokens=LENGTH,
    model=MODEL,
    mesh=mesh,
  )
  scorer = Scorer(RULES, {"correctness": 1.0, "naturalness": 0.0}, reader)
  known = (MODEL, TINY, scorer, speaking, mesh, how)
  actor = Actor(*known, talks=talks(feed))
  prompts = feed.batch([[(0, 0)], [(0, 1)]], 0)
  rows = [feed.row(f"train-{k}#3") for k in range(2)]
  return actor, speaking, rows, actor.play(speaking, prompts, rows, jax.random.key(1))


def whole_dialogue(feed, row, own, ids):
  """A row of its own: all that was said up to turn 3 rendered anew, and the reply."""
  spoken = messages.human_turns(row["messages"])
  said = [*row["messages"][:2], *spoken[1]]
  for answer, turn in zip(own, spoken[2:], strict=True):
    content = [{"type": "text", "text": answer or ""}]
    said += [{"role": "assistant", "content": content}, *turn]
  heard = [block["path"] for block in messages.audio_blocks(said)]
  example = feed.load(*feed.place(row["id"]))
  assert len(example.frames) == 1  # of the first played turn
  frames = tuple(feed._store.read(key)[0].rows for key in clip_keys(feed, row))
  assert len(heard) == len(frames) == 2
  counts = [[13]] * 2  # audio tokens of a second
  known = {"tokenizer": TINY, "clip_tokens": counts, "example_id": "x"}
  prompt = chat.prompt(said, **known)
  token_T = np.concatenate([prompt.token_T, ids])
  loss_T = np.arange(len(token_T)) >= len(prompt.token_T)
  return Example("x", 0, token_T, loss_T, prompt.spans, frames)


def clip_keys(feed, row):
  source, index = feed.place(row["id"])
  dialogue = feed._corpus.sample(source, feed.entry(source, index).place)
  return [feed._corpus.key(audio) for audio in dialogue.audio]


def third_turns(feed, rows, found):
  """(places of the replies to turn 3, a batch of whole dialogues with them)."""
  places = [d * TURNS * SAMPLES + 2 * SAMPLES + g for d in (0, 1) for g in (0, 1)]
  whole = []
  for place in places:
    dialogue, sample = divmod(place, TURNS * SAMPLES)
    first = dialogue * TURNS * SAMPLES + sample % SAMPLES
    own = [found.drawn.texts[first + turn * SAMPLES].answer for turn in range(2)]
    count = found.drawn.rollout.count_B[place]
    ids = found.drawn.rollout.token_BT[place][:count]
    whole.append([whole_dialogue(feed, rows[dialogue], own, ids)])
  limits = dataclasses.replace(feed.limits, max_tokens=256)
  width = tones.LITTLE.encoder_width
  known = {"pad_id": TINY.special.pad, "encoder_width": width}
  return places, collate.collate(whole, limits, **known)


def test_turn_three_has_the_log_probabilities_of_a_full_forward(feed, acted):
  """Audio in turns 1 and 3; sampler, trainer and reference against one forward."""
  _, speaking, rows, found = acted
  places, batch = third_turns(feed, rows, found)
  logits_BTV = MODEL.apply({"params": speaking}, batch)
  scores_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
  e, compared = found.experience, 0
  assert any(text.answer for text in found.drawn.texts)
  for row, place in enumerate(places):
    spots = np.flatnonzero(batch.loss_BT[row])
    full_T = np.asarray(scores_BTV[row, spots - 1, batch.token_BT[row, spots]])
    mask_T = np.asarray(e.mask_BT[place])
    kept_T = full_T[mask_T[: len(full_T)]]
    compared += len(kept_T)
    for name in ("sampler_BT", "old_BT", "reference_BT"):
      ours_T = np.asarray(getattr(e, name))[place][mask_T]
      np.testing.assert_allclose(ours_T, kept_T, atol=1e-5, err_msg=name)
  assert compared > 20


def test_packed_turns_have_the_same_numbers(acted):
  actor, speaking, _, found = acted
  mesh = actor._mesh
  how = actor._sampling
  packed = Actor(
    *(MODEL, TINY, actor._scorer, speaking, mesh, how, Packing(1, 224, shared=True)),
    talks=actor._talks,
  )
  ours = packed.measured(speaking, None, found.drawn, 0).experience
  for name in ("old_BT", "reference_BT", "mask_BT"):
    theirs_BT = getattr(found.experience, name)
    np.testing.assert_allclose(getattr(ours, name), theirs_BT, atol=1e-5, err_msg=name)


def test_a_judge_reads_a_turn_as_it_reads_a_prompt(feed, acted):
  """Turn 3 with own replies before it, and the same rendered by hand."""
  actor, _, rows, found = acted
  places, batch = third_turns(feed, rows, found)
  texts = [found.drawn.texts[place] for place in places]
  cut_BT = batch.loss_BT

  def without(x_BT, value):
    return np.where(cut_BT, value, x_BT)

  prompts = dataclasses.replace(
    batch,
    token_BT=without(batch.token_BT, TINY.special.pad),
    segment_BT=without(batch.segment_BT, 0),
    position_BT=without(batch.position_BT, 0),
    example_BT=without(batch.example_BT, -1),
    source_BT=without(batch.source_BT, -1),
    loss_BT=np.zeros_like(cut_BT),
  )
  wanted = actor._scorer._judge(prompts, texts)
  column = found.drawn.scores.names.index("correctness")
  ours_B = found.drawn.scores.reward_BC[places, column]
  np.testing.assert_allclose(ours_B, wanted["correctness"], atol=1e-5)
  assert np.isfinite(ours_B).any()


def gradient(found, speaking):
  """advantage_BT → gradient of GRPO's loss at ratio 1."""
  hyper = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0}
  known = {"estimator": "k3", "aggregation": "token_mean", "temperature": 1.0}
  loss_fn = policy.policy_loss(MODEL, grpo, hyper, **known)

  def total(p, advantage_BT):
    e = dataclasses.replace(found.experience, advantage_BT=advantage_BT)
    update = policy.grouped(found.replies, e, 0.0)
    return loss_fn(p, update, jax.random.key(0))[0]

  made = jax.jit(jax.grad(total))
  return lambda x_BT: made(speaking, jnp.asarray(x_BT, jnp.float32))


def test_only_sampled_tokens_of_replies_teach(feed, acted):
  """The gradient is that of Σ A · log p over sampled tokens in a full forward, where
  human turns, audio and forced tokens have no part; without them there is none.
  """
  _, speaking, rows, found = acted
  e = found.experience
  forced_BT = np.arange(LENGTH) < found.drawn.rollout.count_B[:, None]
  forced_BT = forced_BT & ~np.asarray(e.mask_BT)
  assert forced_BT.any()
  gradient_of = gradient(found, speaking)
  silent = gradient_of(np.where(e.mask_BT, 0.0, 7.0))
  assert all(not leaf.any() for leaf in jax.tree.leaves(silent))

  places, batch = third_turns(feed, rows, found)
  advantage_B = np.linspace(-1, 1, len(e.mask_BT))
  third_B = np.isin(np.arange(len(advantage_B)), places)
  advantage_B = np.where(third_B, advantage_B, 0.0)
  weight_BT = np.zeros(batch.token_BT.shape)
  for row, place in enumerate(places):
    spots = np.flatnonzero(batch.loss_BT[row])
    mask_T = np.asarray(e.mask_BT[place])[: len(spots)]
    weight_BT[row, spots] = mask_T * advantage_B[place]

  def full(p):
    scores_BTV = jax.nn.log_softmax(MODEL.apply({"params": p}, batch), axis=-1)
    index_BT1 = jnp.asarray(batch.token_BT)[:, 1:, None]
    said_BT = jnp.take_along_axis(scores_BTV[:, :-1], index_BT1, axis=2)[..., 0]
    return -(said_BT * jnp.asarray(weight_BT[:, 1:], jnp.float32)).sum()

  wanted = jax.jit(jax.grad(full))(speaking)
  ours = dict(tree.named_leaves(gradient_of(advantage_B[:, None] * np.ones(LENGTH))))
  for name, leaf in tree.named_leaves(wanted):
    mine = ours[name]
    np.testing.assert_allclose(mine, leaf, atol=1e-5 * np.abs(leaf).max() + 1e-7)


# ─── The loop ───────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


def rows_of(workdir, name):
  found = logs.read_metrics(workdir / f"{name}.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


@pytest.fixture
def by_chance(monkeypatch):
  """Rules that give one dialogue no spread, and the others some."""
  from stepaudio_jax.rewards import accuracy, think_format

  def score(row, text):
    decided = row["id"] == "train-0#3"
    return 1.0 if decided else float(zlib.crc32(text.encode()) % 2)

  for rule in (accuracy, think_format):
    monkeypatch.setattr(rule, "score", score)


@pytest.mark.slow
def test_a_run_says_what_every_turn_was_worth(world, tmp_path, by_chance):
  folder = train_rl.run(recipe(world, total_steps=1), tmp_path / "run")
  (row,) = rows_of(folder, "metrics")
  assert row["train/agreement_max_abs"] < 1e-4
  assert row["data/skipped"] == 1
  samples = rows_of(folder, "samples")
  assert [row["turn"] for row in samples] == [2, 2, 3, 3, 4, 4] * 2
  assert [row["sample"] for row in samples] == [0, 1] * 6
  for turn in range(2, 5):
    values = [r["objective"] for r in samples if r["turn"] == turn]
    assert row[f"reward/turn_{turn - 1}"] == pytest.approx(np.mean(values), abs=1e-5)
  for each in samples:  # accuracy is of the last turn
    assert (each["reward"]["accuracy"] is None) == (each["turn"] < 4)
  exam = rows_of(folder, "heldout")
  assert len(exam) == 2 * 4 * TURNS * SAMPLES
  assert json.loads((folder / "heldout.json").read_text())["prompts"] == 4


@pytest.mark.slow
def test_stopped_in_the_middle_it_ends_as_if_never_stopped(
  world, tmp_path, monkeypatch, by_chance
):
  """With dialogues that wait, and the next step's first turns begun."""
  rollout_ = {"rollout.refill_rounds": 1, "rollout.overlap": True, "rollout.max_age": 2}
  c = recipe(world, **rollout_)
  whole = train_rl.run(c, tmp_path / "whole")
  metrics = rows_of(whole, "metrics")
  assert sum(row["data/groups_waiting"] for row in metrics) > 0
  assert [row["data/age"] > 0 for row in metrics] == [False, True, True]
  finite = steps.finite

  def announced(scalars, step, ids):
    signal.raise_signal(signal.SIGTERM) if step == 1 else None
    return finite(scalars, step, ids)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(steps, "finite", announced)
    with pytest.raises(SystemExit):
      train_rl.run(c, tmp_path / "run")
  signal.signal(signal.SIGTERM, before)
  train_rl.run(c, tmp_path / "run")
  for name in ("metrics", "samples", "heldout"):
    assert rows_of(tmp_path / "run", name) == rows_of(whole, name), name
  ours, theirs = (workdirs.load_params(d) for d in (tmp_path / "run", whole))
  assert tree.content_hash(ours) == tree.content_hash(theirs)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"rewards.turns": "all"}, r"'all'.*\['each', 'last'\]"),
    ({"sampling.turns": 0}, "sampling.turns=0"),
    ({"sampling.turns": 1, "rewards.turns": "last"}, "would do nothing"),
    ({"sampling.turns": 5}, "4 human turns, 5 are played"),
  ],
)
def test_turns_that_cannot_be_are_refused(world, tmp_path, changed, message):
  with pytest.raises(ValueError, match=message):
    train_rl.run(recipe(world, **changed), tmp_path / "run")
