"""Prompts without a rubric: replies compared by a judge, by hand and in the loop."""

import dataclasses
import math

import numpy as np
import pytest
from absl import logging

from configs import rlhf, rlvr
from stepaudio_jax import logs, rubrics, train_rl
from stepaudio_jax.core import levels
from stepaudio_jax.evals.parts.speaker import Speaker
from stepaudio_jax.judges import worth
from stepaudio_jax.judges.comparing import Comparer
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout import keys, preference
from stepaudio_jax.rollout.preference import Reader, Settings, Terms
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scorer
from tests import small, tones
from tests.judges import servers
from tests.judges.test_comparing import replies_of

HEARD = [{"role": "human", "content": [{"type": "text", "text": "Pitch?"}]}]
NAN = np.nan


def row(name, reply="ref", **more):
  own = {"role": "assistant", "content": [{"type": "text", "text": reply}]}
  return {"id": name, "messages": HEARD, "reference": own, **more}


def said(answer):
  return Said(f"I hear.\n</think>\n{answer}", "I hear.", answer)


OPEN = Said("I hear", "I hear", None)


def text_of(messages):
  return messages["content"][0]["text"]


class ByQuality:
  """Names the level whose φ is nearest to the gap; words without one are mumbled."""

  def __init__(self, quality):
    self.quality, self.asked = quality, []

  def describe(self):
    return {"kind": "stub"}

  def answers(self, questions):
    self.asked += [replies_of(question) for question in questions]
    return [self._level(*replies_of(question)) for question in questions]

  def _level(self, first, second):
    if not {first, second} <= set(self.quality):
      return "Hm."
    gap = self.quality[first] - self.quality[second]
    return str(1 + np.argmin(np.abs(np.asarray(levels.LINEAR) - gap)))


def reader(judge, mode, without=(), **more):
  settings = Settings(mode=mode, weight=1.0, **more)

  def known(rows):
    return [None if one["id"] in without else text_of(one["reference"]) for one in rows]

  return Reader(Comparer(judge), settings, known)


def test_a_reply_is_compared_with_the_prompts_own_in_both_orders(monkeypatch):
  told = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: told.append(text % args))
  judge = ByQuality({"ref": 0.0, "good": 0.6, "bad": -0.2, "other": 0.4})
  read = reader(judge, "reference", without=("lonely",))
  rows = [row("a")] * 4 + [row("b", "other")] * 2 + [row("lonely")] * 2
  texts = [*map(said, ("good", "bad", "mumbled")), OPEN, *map(said, ("good", "ref"))]
  found = read(rows, [*texts, said("good"), OPEN], copies=2)
  # .6 and −.2 beside the reference; beside "other" (.4) they are .2 and −.4, of which
  # the judge says −.2 or −.6.
  np.testing.assert_allclose(found[:5], [0.6, -0.2, NAN, NAN, 0.2], atol=1e-7)
  assert found[5] in (np.float32(-0.2), np.float32(-0.6))
  assert np.isnan(found[6:]).all()
  assert ("good", "ref") in judge.asked
  assert ("ref", "good") in judge.asked
  assert found.dtype == np.float32
  assert "2 of 8 replies have nothing to be compared with" in told
  counts = read.counts()
  assert counts.pop("reward/preference/unread") == 2 / 10
  assert counts == {
    "reward/preference/calls": 10.0,
    "reward/preference/disagreement": 0.0,
    "reward/preference/without": 2.0,
  }
  again = read.counts()
  assert again["reward/preference/calls"] == again["reward/preference/without"] == 0
  assert math.isnan(again["reward/preference/unread"])


@pytest.mark.parametrize("fit", preference.FITS)
def test_replies_of_a_group_are_worth_what_their_comparisons_say(fit):
  """Gaps between neighbours of the circle are −.2, −.2, .6 and −.2: exact levels."""
  quality = {"a": 0.0, "b": 0.2, "c": 0.4, "d": -0.2}
  judge = ByQuality(quality)
  read = reader(judge, "group", offsets=1, fit=fit)
  rows = [row("x")] * 4 + [row("y")] * 4 + [row("z")] * 4
  texts = [*map(said, "abcd"), said("a"), OPEN, said("c"), said("?"), OPEN, OPEN, OPEN]
  found = read(rows, [*texts, said("a")], copies=4)
  assert judge.asked[:4] == [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
  if fit == "least_squares":
    np.testing.assert_allclose(found[:4], [-0.1, 0.1, 0.3, -0.3], atol=1e-6)
  else:
    assert np.argsort(found[:4]).tolist() == [3, 0, 1, 2]
    assert found[:4].sum() == pytest.approx(0, abs=1e-5)
  # Of the second group one never closed, and one was never understood: two are left,
  # connected by one answer (.4 is said as .2 or .6).
  assert np.isnan(found[[5, 7]]).all()
  assert found[6] == -found[4] > 0
  # A reply that is alone has nothing to be compared with.
  assert np.isnan(found[8:]).all()
  assert read.counts()["reward/preference/calls"] == 4 + 3


def test_a_mixed_batch_by_hand():
  """Half plain, half with a rubric; a rule beside both."""
  judge = ByQuality({"ref": 0.0, "Low.": 0.6, "High.": -1.0})
  terms = Terms(reader(judge, "reference"), weight=0.5)
  choices = {"answer": "low", "choices": ["low", "high"]}
  asks = [{"text": "x", "weight": 1.0}]
  rows = [row("plain", **choices), row("asked", rubric=asks, **choices)]
  batch = small.dialogue_batch(rows=2)
  scorer = Scorer({"audio": {"accuracy": 2.0}}, {}, None, preference=terms)
  texts = [said("Low."), said("High."), said("Low."), said("High.")]
  found = scorer(batch, rows, texts, np.ones(4, np.int32))
  assert found.names == ("accuracy", "preference")
  np.testing.assert_allclose(found.reward_BC[:, 0], [1, 0, 1, 0])
  np.testing.assert_allclose(found.reward_BC[:, 1], [0.6, -1.0, NAN, NAN], atol=1e-6)
  np.testing.assert_allclose(found.weight_BC, [[2, 0.5]] * 2 + [[2, 0]] * 2)
  np.testing.assert_allclose(found.objective_B, [2.3, -0.5, 2.0, 0.0], atol=1e-6)
  assert scorer.counts()["reward/preference/calls"] == 4
  terms = dataclasses.replace(terms, everywhere=True)
  scorer = Scorer({"audio": {"accuracy": 2.0}}, {}, None, preference=terms)
  found = scorer(batch, rows, texts, np.ones(4, np.int32))
  np.testing.assert_allclose(found.reward_BC[:, 1], [0.6, -1.0] * 2, atol=1e-6)
  # The same replies with and without a rubric are different questions.
  assert scorer.counts()["reward/preference/calls"] == 8
  assert Scorer({"audio": {"accuracy": 1.0}}, {}, None).counts() == {}


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"mode": "pairs"}, r"mode='pairs'; the choices are \('none', 'reference', 'gr"),
    ({"phi": "log"}, r"phi='log'; the choices are \('linear', 'expected', 'cali"),
    ({"fit": "elo"}, r"fit='elo'; the choices are \('least_squares', 'bradley"),
    ({"weight": 1.0}, "weight=1.0 would do nothing with mode='none'"),
    ({"prompts": "rubric"}, r"prompts='rubric'; the choices are \('plain', 'all'\)"),
    ({"prompts": "all"}, "prompts='all' would do nothing with mode='none'"),
    ({"phi": "expected"}, "phi='expected' would do nothing with mode='none'"),
    ({"mode": "reference", "offsets": 2}, "offsets=2 would do nothing with mode='ref"),
    ({"mode": "reference", "fit": "bradley_terry"}, "fit='bradley_terry' would do not"),
    ({"mode": "reference", "calibration": "x"}, "calibration='x' with phi='linear'"),
    ({"mode": "reference", "phi": "calibrated"}, "calibration='' with phi='calib"),
    ({"mode": "group", "offsets": 0}, "offsets=0: at least 1"),
  ],
)
def test_settings_that_do_nothing_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    Settings(**given)


@pytest.mark.parametrize(
  ("given", "more", "message"),
  [
    ({"mode": "reference"}, {"judge": ""}, "mode='reference' needs a judge"),
    ({"mode": "group"}, {"sampling.turns": 2}, "'group' with sampling.turns=2"),
    ({"mode": "group"}, {"heldout.samples": 1}, "'group' with heldout.samples=1"),
    ({"mode": "group"}, {"sampling.samples": 6}, "offsets=4 with sampling.samples=6"),
  ],
)
def test_runs_that_cannot_compare_are_refused(given, more, message):
  c = rlvr.get_config("algorithm=grpo")
  c.judge = "runs/judge"
  c.rewards.preference.update(given)
  keys.checked(c)
  c.update_from_flattened_dict(more)
  with pytest.raises(ValueError, match=message):
    keys.checked(c)


def test_the_recipe_has_the_defaults_of_what_reads_it():
  c = rlvr.get_config("")
  assert dict(c.rewards.preference) == dataclasses.asdict(Settings())
  assert dict(c.asking) == dataclasses.asdict(rubrics.judging.Asking())
  assert sorted(c.asking) == sorted(keys.ASKING)


def test_phi_and_its_file_reach_the_comparer(tmp_path):
  c = rlhf.get_config("")
  phi_6 = np.asarray([2.0, 1.0, 0.5, -0.5, -1.0, -2.0])
  worth.save(tmp_path / "phi.json", phi_6, {}, 3)
  c.rewards.preference.update(
    mode="reference", phi="calibrated", calibration=str(tmp_path / "phi.json")
  )
  c.rewards.preference.prompts = "all"
  judge = ByQuality({"ref": 0.0, "good": 0.6})
  terms = rubrics.preference(c, judge, {"reference": tmp_path}, tmp_path)
  assert terms.everywhere
  np.testing.assert_allclose(terms.read([row("a")], [said("good")], 1), [1.0])
  c.rewards.preference.update(phi="expected", calibration="")
  with pytest.raises(ValueError, match="'expected' needs a judge that tells"):
    rubrics.preference(c, judge, {"reference": tmp_path}, tmp_path)
  c.rewards.preference.update(mode="none", phi="linear", prompts="plain")
  assert rubrics.preference(c, None, {}, tmp_path) == Terms()


@pytest.mark.parametrize(
  ("idle", "mode"), [("hears", "none"), ("weighs", "none"), ("weighs", "group")]
)
def test_asking_for_what_nobody_reads_is_refused(tmp_path, idle, mode):
  c = rlhf.get_config("")
  c.asking[idle], c.rewards.preference.mode = True, mode
  judge, sources = ByQuality({}), {"reference": tmp_path}
  with pytest.raises(ValueError, match=f"asking.{idle}=True would .*mode='{mode}'"):
    rubrics.preference(c, judge, sources, tmp_path)
  c.asking[idle] = False
  rubrics.preference(c, judge, sources, tmp_path)


@pytest.fixture
def world(tmp_path, monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  tones.policy(tones.world(tmp_path) / "sft")
  return tmp_path


def wired(world, **compared):
  c = rlvr.get_config("smoke,algorithm=grpo")
  c.init, c.data.cache = str(world / "sft"), str(world / "cache")
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.max_tokens, c.sampling.max_new_tokens, c.total_steps = 64, 8, 1
  c.rewards.preference.update(**compared)
  return c


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["reference", "group"])
def test_compared_prompts_in_the_loop_of_the_smoke_recipe(world, monkeypatch, mode):
  """A judge over HTTP; run again, it is asked nothing."""
  tmp_path = world / mode
  servers.without_proxies(monkeypatch)
  c = wired(world, mode=mode, weight=1.0)
  if mode == "group":
    c.rewards.preference.offsets = 2
  c.asking.prompt_price = 1.0

  def scripted(rollout, tokenizer):
    return [
      said(f"It is {k % 3}.") if k % 4 else OPEN for k in range(len(rollout.token_BT))
    ]

  monkeypatch.setattr("stepaudio_jax.rollout.said.said", scripted)
  usage = {"prompt_tokens": 1000, "completion_tokens": 1}

  def judged(number, body):
    text = body["messages"][-1]["content"]
    assert "human: [audio] Pitch?" in text
    better = "Reply A:\nIt is 0." in text
    return servers.completion(
      "Reasons.\nLevel: " + ("2" if better else "5"), usage=usage
    )

  with servers.serving(judged) as server:
    c.judge = f"{server.url}#m"
    train_rl.run(c, tmp_path / "one")
    calls = len(server.requests)
    train_rl.run(c, tmp_path / "two")
    assert len(server.requests) == calls > 0
  first, second = (
    logs.read_metrics(tmp_path / name / "metrics.jsonl")[0] for name in ("one", "two")
  )
  assert first["reward/preference/raw"] == second["reward/preference/raw"]
  assert first["reward/preference/missing"] == 0.25
  assert first["reward/preference/unread"] == 0.0
  assert first["judge/cost"] > 0 == second["judge/cost"]
  assert second["judge/cached"] == second["judge/asked"] > 0
  rows = logs.read_metrics(tmp_path / "one" / "samples.jsonl")
  assert {one["reward"]["preference"] is None for one in rows} == {True, False}


@pytest.mark.slow
def test_a_checkpoint_judges_in_the_loop_beside_a_sample_of_the_reference(
  world, monkeypatch
):
  """Random weights name no level: all is masked, and logged alone costs no update."""
  talk = {"messages": tones.heard(0), "answer": "low", "choices": tones.CHOICES}
  for split in ("train", "heldout"):
    rows = [{"id": f"{split}-{k}", **talk} for k in range(4)]
    tones.write(world / f"prompts-{split}.jsonl", rows)
  asked = []

  def say(speaker, conversations, options):
    asked.append(conversations)
    return ["Low."] * len(conversations)

  monkeypatch.setattr(
    "stepaudio_jax.rollout.said.said",
    lambda rollout, _: [said("High.")] * len(rollout.token_BT),
  )
  c = wired(world, mode="reference", phi="expected")
  c.judge, c.asking.max_tokens = str(world / "sft"), 8
  with monkeypatch.context() as patch:
    patch.setattr(Speaker, "say", say)
    train_rl.run(c, world / "run")
  (row,) = logs.read_metrics(world / "run" / "metrics.jsonl")
  # All four prompts are one; so are all replies: two orders of one pair a step.
  assert [len(each) for each in asked] == [1]
  assert row["reward/preference/missing"] == 1.0
  assert row["reward/preference/unread"] == 1.0
  assert row["reward/preference/without"] == 0.0
  assert row["reward/masked_share"] == 0.0
