"""Rules, a reward model, a judge, rubrics in one stream: by hand, and in the loop."""

import json
import math

import numpy as np
import pytest

from configs import rlhf, rlvr
from stepaudio_jax import learner, logs, rl, train_rl
from stepaudio_jax.core import noise
from stepaudio_jax.evals import reward_model
from stepaudio_jax.models import sizes
from stepaudio_jax.rl.parts import dimensions
from stepaudio_jax.rollout import combining, drawn, keys, preference
from stepaudio_jax.rollout.drawn import Drawn
from stepaudio_jax.rollout.rubric import RubricReader, Terms
from stepaudio_jax.rollout.said import Said
from stepaudio_jax.rollout.scorer import Scorer, Scores
from tests import test_rubric_rewards as rubrics
from tests import tones
from tests.rl.experiences import close, experience_of

NAN, INF = math.nan, math.inf


def bare():
  """No thought."""
  return Said("\n</think>\nLow.", "", "Low.")


def unclosed():
  return Said("A tone", "A tone", None)


TEXTS = [rubrics.said("Low."), bare(), rubrics.said("High.")]
TEXTS += [unclosed(), unclosed(), bare()]  # each an object of its own
ROWS = [rubrics.PLAIN, rubrics.PLAIN | {"id": "other"}, rubrics.RUBRIC]
WARMTH = np.float32([1, 3, 2, NAN, NAN, 5])
CHOICE = np.float32([0.6, -0.6, NAN, 0.2])  # of plain prompts; one is misread


def scorer():
  """½ by a rule, 1 · warmth; 4 by a rubric, or 2 · what a judge of pairs says."""

  def places(texts):
    return [next(k for k, t in enumerate(TEXTS) if t is text) for text in texts]

  def judge(batch, texts):
    return {"warmth": WARMTH[places(texts)]}

  def compare(rows, texts, copies):
    assert copies == 2
    return CHOICE[places(texts)]

  met = {word: rubrics.met(word == "names") for word in ("names", "asks", "is")}
  return Scorer(
    {"audio": {"think_format": 0.5}},
    {"warmth": 1.0},
    judge,
    rubric=Terms(RubricReader(rubrics.Judge(met)), weight=4.0, learned=0.5),
    preference=preference.Terms(compare, weight=2.0),
  )


def scored(rows, texts):
  counts_B = np.ones(len(texts), np.int32)
  return scorer()(rubrics.prompts(len(rows)), rows, texts, counts_B)


def test_a_batch_of_all_kinds_by_hand():
  """Plain: ½·rule + warmth + 2·choice; with a rubric: warmth halved, + 4·¾."""
  scores = scored(ROWS, TEXTS)
  assert scores.names == ("think_format", "warmth", "rubric", "preference")
  close(
    scores.reward_BC,
    [
      [1, 1, NAN, 0.6],
      [0, 3, NAN, -0.6],
      [1, 2, NAN, NAN],  # the judge was misread: no reply to compare with is left
      [0, NAN, NAN, 0.2],
      [0, NAN, NAN, NAN],
      [0, 5, 0.75, NAN],
    ],
  )
  close(scores.weight_BC[[0, 5]], [[0.5, 1, 0, 2], [0.5, 0.5, 4, 0]])
  close(scores.objective_B, [0.5 + 1 + 1.2, 0 + 3 - 1.2, NAN, NAN, NAN, 0 + 2.5 + 3])


@pytest.mark.parametrize("normalisation", ["sum", "gdpo"])
def test_what_is_learnt_from_it_by_hand(normalisation):
  # Prompts 2 and 3 have no two replies with all their rewards: nothing is compared.
  # Prompt 1, sum: 2.7 and 1.8, ±h. gdpo: ½h − h + 2h = 1½h and its opposite; two
  # replies of as many tokens, whitened: ±1.
  c = rlhf.get_config(f"smoke,normalisation={normalisation}")
  c.sampling.samples = 2
  scores = scored(ROWS, TEXTS)
  experience = experience_of(np.ones((6, 2)), scores.reward_BC, scores.weight_BC)
  how = combining.combining(c, scores.names)
  got = learner.advised(c, rl.load("grpo"), experience, 0.0, how)
  high = 1.0 if normalisation == "gdpo" else 1 / math.sqrt(2)
  close(got.advantage_BT[:, 0], [high, -high, 0, 0, 0, 0])
  assert got.mask_BT[:, 0].tolist() == [True, True] + [False] * 4
  parts = np.abs({"sum": [0.5, -2, 2.4], "gdpo": [0.5, -1, 2]}[normalisation])
  shares = [*parts[:2] / parts.sum(), NAN, parts[2] / parts.sum()]
  told = dimensions.statistics(scores.reward_BC, scores.weight_BC, 2, how)
  close(told["share"], shares)


def test_processes_with_other_kinds_of_prompts_have_the_same_columns():
  """One has plain prompts alone, one a rubric: their rows stack to those of all."""
  whole = scored(ROWS, TEXTS)
  plain, asked = scored(ROWS[:2], TEXTS[:4]), scored(ROWS[2:], TEXTS[4:])
  assert plain.names == asked.names == whole.names
  for name in ("reward_BC", "weight_BC"):
    both = [getattr(one, name) for one in (plain, asked)]
    assert both[0].dtype == both[1].dtype
    np.testing.assert_array_equal(np.concatenate(both), getattr(whole, name))


def test_who_is_looked_at_for_length():
  assert scorer().judged == ("warmth", "rubric", "preference")


def measured(folder, step=1, **stds):
  entries = {name: {"pairs": 40, "std": std} for name, std in stds.items()}
  noise.write(folder, step, "pairs.jsonl", entries)
  return folder / "checkpoints" / str(step)


def test_the_noise_of_a_reward_model_becomes_floors(tmp_path):
  names = ("accuracy", "correctness", "coherence", "overlong")
  c = rlhf.get_config("noise=measured")
  c.rewards.learned = {"coherence": 1.0, "correctness": 2.0}
  step = measured(tmp_path, correctness=0.3, coherence=0.1, other=9.0)
  assert keys.checked(c) is c
  how = combining.combining(c, names, step)
  assert how.std_floor == (1e-4, 0.3, 0.1, 1e-4)
  fixed = combining.combining(rlhf.get_config(""), names, step)
  assert fixed == dimensions.Combining(0.05, normalisation="sum")
  with pytest.raises(ValueError, match=r"no noise of {'coherence': 'absent'"):
    combining.combining(c, names, measured(tmp_path, correctness=0.3))
  with pytest.raises(ValueError, match="no step of a run"):
    combining.combining(c, names, tmp_path / "directory")


def test_floors_and_a_veto_reach_the_advantages():
  # Both replies differ by 1 in warmth, floor 10: ∓½/10; with a veto of correctness
  # the second has the first one's warmth.
  c = rlhf.get_config("smoke")
  c.sampling.samples = 2
  experience = experience_of(np.ones((2, 1)), [[0, 1], [1, 0]], [1, 0])
  advised = lambda **how: learner.advised(  # noqa: E731
    c, rl.load("grpo"), experience, 0.0, dimensions.Combining(**how)
  )
  found = advised(std_floor=(10.0, 1.0))
  close(found.advantage_BT[:, 0], [-0.05, 0.05])
  found = advised(std_floor=(10.0, 1.0), veto=(-INF, 0.5))
  close(found.advantage_BT[:, 0], [0, 0])
  close(found.reward_BC, experience.reward_BC)  # what is logged is what was given


def test_a_group_that_a_veto_levels_is_refilled():
  reward_BC = np.float32([[0, 1], [1, 0], [0, 1], [1, 1]])
  scores = Scores(("warmth", "correctness"), reward_BC, np.float32([[1, 0]] * 4))
  group = Drawn([{"id": "a"}, {"id": "b"}], None, ["x"] * 4, scores, None)
  assert drawn.with_spread(group) == [0, 1]
  how = dimensions.Combining(1e-4, veto=(-INF, 0.5))
  assert drawn.with_spread(group, how) == [1]


@pytest.mark.parametrize(
  ("arg", "place", "values", "message"),
  [
    ("", "rewards", {"noise": "much"}, r"rewards.noise='much'; the choices are \('fix"),
    ("algorithm=rloo,noise=measured", "", {}, "'rloo', which divides by no spread"),
    (
      "noise=measured",
      "algorithm",
      {"scale_by_std": False},
      "'grpo', which divides by no spread",
    ),
    ("algorithm=ppo,veto=0.5", "sampling", {"samples": 1}, "sampling.samples=1"),
    ("normalisation=gdpo", "algorithm", {"reward_clip": 2.5}, r"in groups of 8 .*2.47"),
    ("", "algorithm", {"reward_clip": 2.0}, r"reward_clip=2.0 with normalisation 'sum"),
    ("algorithm=rloo", "algorithm", {"reward_clip": 2.0}, "unknown key 'algorithm.rew"),
    ("", "log", {"warn": {"window": 3}}, "missing key 'log.warn.entropy'"),
  ],
)
def test_what_cannot_act_is_refused(arg, place, values, message):
  c = rlhf.get_config(arg)
  node = c[place] if place else c
  with node.unlocked():
    for key, value in values.items():
      node[key] = value
  with pytest.raises(ValueError, match=message):
    keys.checked(c)


def test_noise_of_no_learned_reward_is_refused():
  c = rlvr.get_config("algorithm=grpo")
  c.rewards.noise = "measured"
  with pytest.raises(ValueError, match=r"rewards.noise='measured' is of learned rew"):
    keys.checked(c)
  keys.checked(rlhf.get_config("veto=0.5"))
  assert rlhf.get_config("veto=0.5").rewards.veto.to_dict() == {"correctness": 0.5}
  assert "correctness" not in rlhf.get_config("").rewards.veto


def test_the_evaluation_leaves_the_noise_beside_the_model(tmp_path):
  """Gaps of ±1 where raters disagree evenly, 9 where they do not."""
  items = []
  for k in range(40):
    tied = {"reward": [0.0, (-1.0) ** k], "labels": [1, None, -1]}
    told = {"reward": [0.0, 9.0], "labels": [3, 2, None]}
    items.append({"task_id": f"t{k}", "dimensions": {"a": tied, "b": told}})
  step = tmp_path / "rm" / "checkpoints" / "7"
  reward_model.keep(step, tmp_path, items)
  row = json.loads((tmp_path / "rm" / noise.FILE).read_text())
  assert row["step"] == 7
  assert row["data"].endswith("preferences-heldout.jsonl")
  assert row["dimensions"]["b"] == dict.fromkeys(("std", "low", "high", "rms")) | {
    "pairs": 0
  }
  known = noise.read(tmp_path / "rm", 7, ["a"])
  assert known["a"] == pytest.approx(1 / 0.67449 / math.sqrt(2), rel=1e-4)


@pytest.mark.slow
def test_a_run_with_all_of_it(tmp_path, monkeypatch):
  """Two steps of gdpo with measured floors, a veto and a window of one step."""
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
  world = tones.world(tmp_path)
  tones.policy(world / "sft")
  tones.reward_model(world / "rm", ("correctness", "naturalness"))
  measured(world / "rm", correctness=1e-3, naturalness=1e3)
  c = rlhf.get_config("smoke,normalisation=gdpo,noise=measured,veto=100.0")
  c.init, c.reward_model = str(world / "sft"), str(world / "rm")
  c.rewards.learned = {"correctness": 2.0, "naturalness": 1.0}
  c.rewards.overlong.buffer_tokens = 4
  c.algorithm.reward_clip = 1.4
  c.data.options.prompts.path = str(world / "prompts-{split}.jsonl")
  c.data.cache, c.data.max_tokens = str(world / "cache"), 64
  c.sampling.max_new_tokens, c.prompts_per_step, c.total_steps = 12, 2, 2
  c.sampling.max_think_tokens = 3
  c.heldout.samples, c.heldout.batch_size = c.sampling.samples, c.prompts_per_step
  c.log.warn.window = 1
  folder = train_rl.run(c, tmp_path / "run")
  first, last = logs.read_metrics(folder / "metrics.jsonl")
  for row in (first, last):
    missing = row["reward/correctness/missing"]
    assert row["reward/vetoed_share"] == pytest.approx(
      1 - missing
    )  # nobody reaches 100
    # All are vetoed, so that naturalness is level, and the floor is 1,000 anyway.
    assert row["reward/naturalness/no_spread"] == 1.0
    assert row["reward/naturalness/share"] in (0.0, None)
    assert row["reward/naturalness/std"] > 0
  (warned,) = [
    row
    for row in logs.read_metrics(folder / "warnings.jsonl")
    if row["name"] == "naturalness"
  ]
  assert (warned["kind"], warned["step"]) == ("dead", 1)
  assert last["reward/warnings"] == len(logs.read_metrics(folder / "warnings.jsonl"))
  assert "reward/naturalness/length_rho" in last
