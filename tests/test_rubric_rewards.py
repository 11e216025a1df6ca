"""Prompts with a rubric beside plain ones in one batch: by hand, and in the loop."""

import dataclasses
import json

import numpy as np
import pytest

from configs import rlhf
from stepaudio_jax import logs, rubrics, train_rl
from stepaudio_jax.judges import rubric
from stepaudio_jax.models import sizes
from stepaudio_jax.rollout import said as said_lib
from stepaudio_jax.rollout.rubric import RubricReader, Terms
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scorer
from tests import small, tones
from tests.judges import servers

ASKS = [
  {"text": "names the pitch", "weight": 3.0},
  {"text": "asks back", "weight": 1.0},
  {"text": "is rude", "weight": -2.0},
]
HEARD = [
  {
    "role": "human",
    "content": [{"type": "audio", "path": "a"}, {"type": "text", "text": "Pitch?"}],
  }
]
COUNTS = np.ones(4, np.int32)  # tokens of replies: nobody asks here
PLAIN = {"id": "plain", "messages": HEARD}
RUBRIC = {"id": "asked", "messages": HEARD, "rubric": ASKS}


def said(answer):
  return Said(f"A tone.\n</think>\n{answer}", "A tone.", answer)


class Judge:
  """Meets what the reply spells out as words of the criterion; else as told."""

  def __init__(self, verdicts):
    self.verdicts, self.asked = verdicts, []

  def describe(self):
    return {"kind": "stub"}

  def answers(self, questions):
    self.asked += questions
    return [
      next(raw for word, raw in self.verdicts.items() if f"Criterion: {word}" in q.text)
      for q in questions
    ]


def met(value):
  return json.dumps({"explanation": "so", "criteria_met": value})


def prompts(rows):
  batch = small.dialogue_batch(rows=rows)
  return dataclasses.replace(batch, frame_count_BR=np.full((rows, 1), 7, np.int32))


def test_points_are_weights_met_over_those_above_0():
  # (3 − 2) / (3 + 1); an item below 0 is no part of what can be earned.
  assert rubric.points(RUBRIC, [met(True), met(False), met(True)]) == 0.25
  assert rubric.points(RUBRIC, [met(True), met(True), met(False)]) == 1.0
  assert rubric.points(RUBRIC, [met(True), "perhaps", met(False)]) is None
  with pytest.raises(ValueError, match="rubric of 'asked' has no weight above 0"):
    rubric.points(RUBRIC | {"rubric": ASKS[2:]}, [met(True)])


def test_a_question_shows_the_talk_the_reply_and_one_criterion():
  one, two, three = rubric.questions(RUBRIC, "It is low.")
  assert "human: [audio] Pitch?" in one.text
  assert "It is low." in one.text
  assert "Criterion: names the pitch\n" in one.text
  assert "asks back" not in one.text
  assert "Criterion: is rude\n" in three.text
  assert one.template == two.template == rubric.TEMPLATE.hash
  assert rubric.questions(PLAIN, "It is low.") == []


def test_the_objective_of_a_mixed_batch_by_hand():
  """Two replies to a plain prompt, three to a rubric: one open, one misread."""
  judge = Judge({"names": met(True), "asks": met(False), "is": met(False)})

  def learned(batch, texts):
    return {"warmth": np.asarray([1.0, 2.0, 3.0, 4.0], np.float32)}

  open_ = Said("A tone", "A tone", None)
  terms = Terms(RubricReader(judge), weight=2.0, learned=0.5)
  scorer = Scorer({}, {"warmth": 0.1}, learned, rubric=terms)
  texts = [said("Low."), said("High."), said("Low."), open_]
  scores = scorer(prompts(2), [PLAIN, RUBRIC], texts, COUNTS)
  assert scores.names == ("warmth", "rubric")
  nan = np.nan
  np.testing.assert_array_equal(scores.reward_BC[:, 1], [nan, nan, 0.75, nan])
  np.testing.assert_allclose(
    scores.weight_BC, [[0.1, 0], [0.1, 0], [0.05, 2], [0.05, 2]]
  )
  # Plain: 0.1·1 and 0.1·2; rubric: 0.5·0.1·3 + 2·3/4; the thought that never closed is
  # masked, not 0.
  np.testing.assert_allclose(scores.objective_B, [0.1, 0.2, 1.65, nan], rtol=1e-6)
  assert len(judge.asked) == 3


def test_replies_that_say_the_same_are_asked_about_once():
  judge = Judge({"names": met(True), "asks": met(False), "is": met(False)})
  texts = [said("Low."), said("High."), said("Low.")]
  reward_B = RubricReader(judge)([RUBRIC] * 3, texts)
  np.testing.assert_array_equal(reward_B, [0.75] * 3)
  assert len(judge.asked) == 6


def test_an_answer_that_cannot_be_read_masks_its_reply_alone():
  replies = iter([met(True), met(True), met(False), met(True), "hm", met(False)])

  class InTurn(Judge):
    def answers(self, questions):
      return [next(replies) for _ in questions]

  reader = RubricReader(InTurn({}))
  found = reader([RUBRIC, RUBRIC], [said("Low."), said("High.")])
  np.testing.assert_array_equal(found, [1.0, np.nan])


def test_without_a_judge_rubrics_change_nothing_but_the_factor():
  def learned(batch, texts):
    return {"warmth": np.ones(2, np.float32)}

  rows, texts = [PLAIN, RUBRIC], [said("Low."), said("Low.")]
  plain = Scorer({}, {"warmth": 1.0}, learned)(prompts(2), rows, texts, COUNTS)
  assert plain.names == ("warmth",)
  np.testing.assert_array_equal(plain.weight_BC, [[1.0], [1.0]])
  half = Scorer({}, {"warmth": 1.0}, learned, rubric=Terms(learned=0.5))
  np.testing.assert_array_equal(
    half(prompts(2), rows, texts, COUNTS).weight_BC, [[1], [0.5]]
  )
  with pytest.raises(ValueError, match=r"rewards.rubric.weight=1.0 needs a judge"):
    Terms(weight=1.0)


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Plain prompts, and the same with a rubric."""
  folder = tones.world(tmp_path_factory.mktemp("tones"))
  tones.policy(folder / "sft")
  for split in ("train", "heldout"):
    lines = (folder / f"prompts-{split}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row | {"id": f"rubric-{row['id']}", "rubric": ASKS} for row in rows]
    tones.write(folder / f"rubric-{split}.jsonl", rows)
  return folder


def joint(world, url):
  """The shipped recipe, its streams mixed half and half."""
  c = rlhf.get_config("smoke,rubric=0.5")
  c.init, c.reward_model, c.judge = str(world / "sft"), str(world / "rm"), url
  c.rewards.learned = {"correctness": 1.0}
  c.rewards.rubric = {"weight": 2.0, "learned": 0.5}
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.options.rubric.path = str(world / "rubric-{split}.jsonl")
  c.data.cache, c.data.max_tokens = str(world / "cache"), 64
  c.sampling.max_new_tokens, c.prompts_per_step, c.total_steps = 8, 4, 1
  return c


def scripted(rollout, tokenizer):
  """In turn: a reply, one that the judge mumbles about, a thought that never closes."""
  kinds = (said("Low."), said("Odd."), Said("A tone", "A tone", None))
  return [kinds[k % 3] for k in range(len(rollout.token_BT))]


@pytest.mark.slow
def test_plain_and_rubric_prompts_are_one_stream_of_the_smoke_recipe(
  world, tmp_path, monkeypatch
):
  monkeypatch.setattr(said_lib, "said", scripted)
  tones.reward_model(world / "rm", ("correctness",))
  servers.without_proxies(monkeypatch)

  def judged(number, body):
    odd = "Odd." in body["messages"][-1]["content"]
    return servers.completion("hm" if odd else met(True))

  with servers.serving(judged) as server:
    train_rl.run(joint(world, f"{server.url}/v1#stub"), tmp_path)
  (row,) = logs.read_metrics(tmp_path / "metrics.jsonl")
  assert row["train/loss"] is not None
  seen = set()
  for row in logs.read_metrics(tmp_path / "samples.jsonl"):
    kind = (row["dialogue_id"].startswith("rubric"), row["answer"])
    learned = row["reward"]["correctness"]
    # All three met: (3 + 1 − 2) / 4.
    assert row["reward"]["rubric"] == (0.5 if kind == (True, "Low.") else None)
    wanted = {
      (False, "Low."): learned,
      (False, "Odd."): learned,
      (True, "Low."): kind == (True, "Low.") and 2.0 * 0.5 + 0.5 * learned,
    }.get(kind)
    assert row["objective"] == (wanted if wanted is None else pytest.approx(wanted))
    seen.add(kind)
  assert len(seen) == 6


def test_a_checkpoint_judges_and_is_pinned(world, tmp_path):
  c = joint(world, str(world / "sft"))
  assert rubrics.sources(c) == {"judge": str(world / "sft")}
  folder = world / "sft" / "checkpoints" / "1"
  who = rubrics.judge(c, {"judge": folder}, tmp_path)
  assert rubrics.terms(c, who).weight == 2.0
  described = who.describe()
  assert described["kind"] == "local"
  assert described["model"] == str(folder)
  assert rubrics.counts(who) == {}
  c.asking.max_tokens = 7
  assert rubrics.judge(c, {"judge": folder}, tmp_path).describe()["max_new_tokens"] == 7
  c.asking.hears = True
  with pytest.raises(
    ValueError, match=r"asking: hears=True would do nothing with a ch"
  ):
    rubrics.judge(c, {"judge": folder}, tmp_path)
  c.asking.hears = False
  c.judge = "rule"
  with pytest.raises(ValueError, match="asking: max_tokens=7 would do nothing with no"):
    rubrics.judge(c, {}, tmp_path)
  c.asking.max_tokens = 4096
  with pytest.raises(ValueError, match="judge 'rule': a checkpoint or an endpoint"):
    rubrics.judge(c, {}, tmp_path)
  c.judge = ""
  with pytest.raises(ValueError, match=r"weight=2.0 needs a judge"):
    rubrics.terms(c, rubrics.judge(c, {}, tmp_path))
  assert rubrics.sources(c) == {}
  c.rewards.rubric.weight, c.judge_key = 0.0, "KEY"
  with pytest.raises(ValueError, match=r"judge_key='KEY' is an endpoint's; judge=''"):
    rubrics.judge(c, {}, tmp_path)


def test_an_endpoint_is_asked_as_the_recipe_says_and_counted(world, tmp_path):
  c = joint(world, "http://127.0.0.1:9/v1#m")
  c.asking = {
    "max_tokens": 9,
    "concurrency": 2,
    "timeout_s": 3.0,
    "hears": True,
    "weighs": True,
    "prompt_price": 2.0,
    "completion_price": 4.0,
  }
  who = rubrics.judge(c, {}, tmp_path)
  for name, value in c.asking.items():
    assert getattr(who.settings, name) == value
  who.tally = who.tally._replace(asked=3, prompt_tokens=500, completion_tokens=250)
  found = rubrics.counts(who)
  assert found["judge/asked"] == 3
  assert found["judge/cost"] == pytest.approx(2e-3)


def test_the_recipe_says_where_rubrics_come_from():
  c = rlhf.get_config("rubric=0.25")
  assert dict(c.data.mix) == {"prompts": 0.75, "rubric": 0.25}
  assert c.judge == "" and c.rewards.rubric.weight == 0.0  # noqa: PT018
  assert "rubric" not in rlhf.get_config("").data.mix
