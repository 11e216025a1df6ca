"""Saved replies under another reward, against arithmetic by hand."""

import numpy as np
import pytest

from stepaudio_jax.ablate import questions, ranking, saved
from tests import ablation

NAN = float("nan")
WEIGHTS = {"correctness": 2.0, "naturalness": 1.0}
# Rewards (correctness, naturalness) of two groups of three replies.
REWARDS = [
  [(1, 3), (2, 1), (3, 2)],  # whole: 5, 5, 8
  [(0, 0), (1, 0.5), (NAN, 4)],  # whole: 0, 2.5, masked
]


def asked(name, weights=WEIGHTS):
  return questions.question(name, weights, ("sum", "gdpo"))


@pytest.fixture
def run(tmp_path):
  found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
  return saved.load(ablation.folder(tmp_path / "run", found, WEIGHTS))


def test_advantages_by_hand(run):
  """(x − mean)/s: of 5, 5, 8 s = √3; of 0, 2.5 s = 2.5/√2; the third is masked."""
  whole_PG = ranking.advantages([run], asked("all"))
  third, half = 1 / np.sqrt(3), 1 / np.sqrt(2)
  np.testing.assert_allclose(whole_PG[0], [-third, -third, 2 * third], rtol=1e-5)
  np.testing.assert_allclose(whole_PG[1], [-half, half, NAN], rtol=1e-5)


def test_without_a_dimension_its_missing_reply_counts(run):
  """Naturalness alone: 3, 1, 2 with s = 1; 0, .5, 4 with mean 1.5, s = √4.75."""
  other_PG = ranking.advantages([run], asked("without_correctness"))
  np.testing.assert_allclose(other_PG[0], [1, -1, 0], atol=1e-6)
  np.testing.assert_allclose(
    other_PG[1], np.asarray([-1.5, -1, 2.5]) / np.sqrt(4.75), rtol=1e-5
  )


def test_rankings_by_hand(run):
  """Group a: ranks 1.5, 1.5, 3 and 3, 1, 2, so ρ = τ = 0, and another is the best;
  group b: two replies in the same order."""
  found = ranking.compared([run], [asked("all"), asked("without_correctness")], 200)
  one = found["without_correctness"]
  for name in ("spearman", "kendall", "best_changes"):
    assert one[name]["mean"] == pytest.approx(0.5, abs=1e-6), name
  assert (one["groups"], one["flat"]) == (2, 0)
  third, half = 1 / np.sqrt(3), 1 / np.sqrt(2)
  x = [-third, -third, 2 * third, -half, half]
  y = [1, -1, 0, -1.5 / np.sqrt(4.75), -1 / np.sqrt(4.75)]
  wanted = np.corrcoef(x, y)[0, 1]
  assert one["correlation"]["mean"] == pytest.approx(wanted, abs=1e-5)
  for name, value in {"spearman": 1, "best_changes": 0, "correlation": 1}.items():
    assert found["all"][name]["mean"] == pytest.approx(value)


def test_intervals_are_over_prompts(tmp_path):
  """Both groups of one prompt are drawn together: nothing varies."""
  found = ablation.rows(["a", "a"], REWARDS, WEIGHTS)
  run = saved.load(ablation.folder(tmp_path / "run", found, WEIGHTS))
  one = ranking.compared([run], [asked("all"), asked("without_correctness")], 200)
  part = one["without_correctness"]["spearman"]
  assert part["low"] == part["high"] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
  ("name", "column"), [("only_correctness", 0), ("correctness_x0", 1)]
)
def test_one_dimension_ranks_as_it_does_alone(run, name, column):
  other_PG = ranking.advantages([run], asked(name))
  reward_G = np.asarray(REWARDS[0])[:, column]
  assert (np.argsort(other_PG[0]) == np.argsort(reward_G)).all()


def test_gdpo_standardises_each_dimension_first(run):
  """Group a: z = −1, 0, 1 and 1, −1, 0 give −1, −1, 2; b, (−1, 1)/√2 and −1.5, −1 over
  √4.75; then whitened over the five replies, which have a token each."""
  other_PG = ranking.advantages([run], asked("normalisation_gdpo"))
  half, spread = 1 / np.sqrt(2), np.sqrt(4.75)
  raw = np.asarray([-1, -1, 2, -2 * half - 1.5 / spread, 2 * half - 1 / spread])
  wanted = (raw - raw.mean()) / raw.std()
  np.testing.assert_allclose(other_PG.ravel()[:5], wanted, rtol=1e-4)
  assert np.isnan(other_PG[1, 2])


def test_kept_advantages_are_checked_against_ours(tmp_path):
  right = [-0.57735, -0.57735, 1.154701, -0.707107, 0.707107, 0.0]
  for shift, far in ((0.0, 0.0), (0.25, 0.25)):
    found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
    for one, value in zip(found, right, strict=True):
      one["advantage"] = value + shift
    run = saved.load(ablation.folder(tmp_path / str(shift), found, WEIGHTS))
    assert ranking.agreement([run]) == pytest.approx(far, abs=1e-5)


def test_weights_of_rubric_prompts_and_other_rewards_stay(tmp_path):
  """A row on a rubric's prompt has half of the config's weight, and would have had of
  one that was 0; "rubric" has its own."""
  weights = {"correctness": 2.0, "naturalness": 0.0}
  found = ablation.rows(["a"], [[(1, 3, 1), (2, 1, 0)]], {**weights, "rubric": 4.0})
  for one in found:
    one["weight"] = {"correctness": 1.0, "naturalness": 0.0, "rubric": 4.0}
  run = saved.load(ablation.folder(tmp_path / "run", found, weights))
  wanted = {"correctness": 6.0, "naturalness": 0.5}
  weight_BC = saved.weighed(run, run.steps[0], wanted)
  np.testing.assert_allclose(weight_BC, [[3.0, 0.25, 4.0]] * 2)
  assert saved.unnamed(run, {"naturalness": 1.0}) == {"correctness": 2.0}
  assert saved.unnamed(run, {"correctness": 1.0}) == {}  # the other one weighs nothing


def test_tokens_that_closed_a_thought_are_masked(tmp_path):
  found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
  found[1] |= {"token_ids": [5, 6, 7], "logprobs": [-1, 0, -1], "forced": [0, 1]}
  run = saved.load(ablation.folder(tmp_path / "run", found, WEIGHTS))
  assert run.steps[0].mask_BT[1].tolist()[:4] == [False, False, True, False]
  advantage_PG = ranking.advantages([run], asked("all"))
  assert advantage_PG[0, 1] == pytest.approx(-1 / np.sqrt(3), rel=1e-5)


def test_rows_of_an_earlier_version_take_the_configs_weights(tmp_path):
  found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
  for one in found:
    del one["weight"]
  run = saved.load(ablation.folder(tmp_path / "run", found, WEIGHTS))
  np.testing.assert_allclose(run.steps[0].weight_BC, [[2, 1]] * 6)
  with pytest.raises(ValueError, match=r"no 'weight'.*\['naturalness'\]"):
    saved.load(ablation.folder(tmp_path / "rule", found, {"correctness": 1.0}))


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    ({"algorithm__name": "ppo"}, "'ppo' need its critic's values"),
    ({"kl__where": "reward"}, "kl.where='reward'"),
    ({"rewards__noise": "measured"}, r"combined by \['noise'\]"),
    ({"rewards__veto__correctness": 0.5}, r"combined by \['veto'\]"),
  ],
)
def test_runs_whose_rows_lack_something_are_refused(tmp_path, keys, message):
  found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
  folder = ablation.folder(tmp_path / "run", found, WEIGHTS, **keys)
  with pytest.raises(ValueError, match=message):
    saved.load(folder)


def test_a_reply_that_lacks_is_an_error(tmp_path):
  found = ablation.rows(["a", "b"], REWARDS, WEIGHTS)
  folder = ablation.folder(tmp_path / "run", found[:2] + found[3:], WEIGHTS)
  with pytest.raises(ValueError, match="3 replies side by side"):
    saved.load(folder)
  with pytest.raises(ValueError, match="no run of train_rl"):
    saved.load(tmp_path)


def test_an_unknown_dimension_lists_the_runs_own(run):
  with pytest.raises(ValueError, match=r"\['charm'\].*'correctness', 'naturalness'"):
    ranking.check([run], [asked("all", {"charm": 1.0})])
