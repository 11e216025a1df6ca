"""Rank correlations, their ceilings, and heads that measure what they should not."""

import itertools

import numpy as np
import pytest
from scipy import stats

from stepaudio_jax.data.world import raters
from stepaudio_jax.evals.rewards import correlation
from tests.evals.rewards.heads import head

NAMES = ("correctness", "naturalness", "coherence")


def test_the_untied_ceiling_is_the_mean_over_all_orders_of_the_tied():
  gold = [1.0, 1.0, 1.0, 2.0, 2.0, 5.0]
  found = []
  for first in itertools.permutations((0.0, 0.1, 0.2)):
    for second in itertools.permutations((0.0, 0.1)):
      untied = np.add(gold, [*first, *second, 0.0])
      found.append(stats.spearmanr(untied, gold)[0])
  assert correlation.untied(np.asarray(gold)) == pytest.approx(np.mean(found))
  assert correlation.untied(np.arange(5.0)) == 1.0
  assert correlation.untied(np.ones(5)) is None


def made(count=600, seed=0):
  """Gold marks [3, N, 2] of three dimensions that go together somewhat."""
  rng = np.random.default_rng(seed)
  common = rng.normal(size=(1, count, 2))
  return np.clip(np.round(3 + common + rng.normal(size=(3, count, 2))), 1, 5)


def test_against_labels_and_gold_by_the_library():
  mark_N2 = made()[0]
  rng = np.random.default_rng(2)
  score_N2J = np.clip(np.rint(mark_N2[..., None] + rng.normal(0, 1, (600, 2, 3))), 1, 5)
  score_N2J[:, :, 2][rng.random((600, 2)) < 0.5] = np.nan
  reward_N2 = mark_N2 + rng.normal(0, 0.5, (600, 2))
  one = head(
    reward_N2=reward_N2,
    mark_N2=mark_N2,
    score_N2J=score_N2J,
    label_NJ=np.zeros((600, 3)),
    dialogues=[str(k // 2) for k in range(600)],
  )
  told = correlation.entry(one)
  assert told["unit"] == "replies"
  mean = np.nanmean(score_N2J, axis=2).ravel()
  x, gold = reward_N2.ravel(), mark_N2.ravel()
  assert told["labels"]["value"] == pytest.approx(stats.spearmanr(x, mean)[0])
  assert told["labels"]["ceiling"] == pytest.approx(stats.spearmanr(gold, mean)[0])
  assert told["gold"]["value"] == pytest.approx(stats.spearmanr(x, gold)[0])
  assert told["gold"]["ceiling_grid"] == pytest.approx(1.0)  # marks are whole numbers
  share = told["gold"]["value"] / correlation.untied(gold)
  assert told["gold"]["share_untied"] == pytest.approx(share)
  assert told["gold"]["low"] < told["gold"]["value"] < told["gold"]["high"]
  # One label beside the mean of the others of the same reply, by hand.
  labels, others, heads = [], [], []
  for row, reward in zip(score_N2J.reshape(-1, 3), x, strict=True):
    known = row[~np.isnan(row)]
    for j, label in enumerate(known):
      labels.append(label)
      others.append(np.delete(known, j).mean())
      heads.append(reward)
  assert told["human"]["n"] == len(labels)
  assert told["human"]["raters"] == pytest.approx(stats.spearmanr(labels, others)[0])
  assert told["human"]["head"] == pytest.approx(stats.spearmanr(labels, heads)[0])


def test_choices_alone_are_compared_by_gaps():
  rng = np.random.default_rng(3)
  mark_N2 = rng.uniform(1, 5, (300, 2))
  gold_N = mark_N2[:, 1] - mark_N2[:, 0]
  label_N = np.asarray([raters.level(gap) for gap in gold_N], float)
  one = head(gold_N**3, label_N[:, None], mark_N2=mark_N2)  # another monotone scale
  told = correlation.entry(one)
  assert told["unit"] == "pairs"
  assert told["gold"]["value"] == pytest.approx(1.0)
  wanted = stats.spearmanr(gold_N, label_N)[0]
  assert told["labels"]["value"] == pytest.approx(wanted)
  assert told["gold"]["ceiling_grid"] == pytest.approx(wanted)
  assert told["gold"]["share_untied"] == pytest.approx(1.0)
  assert told["human"] is None  # one rater


def test_people_have_no_gold():
  told = correlation.entry(head([1.0, 2.0, 3.0], [[1.0], [2.0], [3.0]]))
  assert told["gold"] is None
  assert (told["labels"]["value"], told["labels"]["ceiling"]) == (
    pytest.approx(1),
    None,
  )


def heads(mark_3N2, reward_3N2):
  rows = zip(NAMES, reward_3N2, mark_3N2, strict=True)
  return [head(name=n, reward_N2=r, mark_N2=m) for n, r, m in rows]


def test_partial_correlations_are_those_of_residuals():
  mark_3N2 = made()
  reward_3N2 = mark_3N2 + np.random.default_rng(1).normal(0, 1, mark_3N2.shape)
  told = correlation.own(heads(mark_3N2, reward_3N2))
  rank_GM = np.asarray([stats.rankdata(m) for m in mark_3N2])
  rank_CM = np.asarray([stats.rankdata(r) for r in reward_3N2])
  others_MV = np.stack([np.ones(1200), rank_GM[1], rank_GM[2]], axis=1)

  def left(value_M):
    return value_M - others_MV @ np.linalg.lstsq(others_MV, value_M)[0]

  wanted = np.corrcoef(left(rank_CM[1]), left(rank_GM[0]))[0, 1]
  found = told["heads"]["naturalness"]["partial"]["correctness"]
  assert found == pytest.approx(wanted, abs=1e-10)


def test_a_head_that_measures_another_dimension_is_found():
  mark_3N2 = made()
  noise = np.random.default_rng(1).normal(0, 1, mark_3N2.shape)
  good = correlation.own(heads(mark_3N2, mark_3N2 + noise))["heads"]
  assert all(one["lead"]["low"] > 0 for one in good.values())
  assert good["coherence"]["own"]["value"] == good["coherence"]["partial"]["coherence"]
  reward_3N2 = mark_3N2 + noise
  reward_3N2[2] = mark_3N2[0] + noise[2]
  bad = correlation.own(heads(mark_3N2, reward_3N2))["heads"]
  assert bad["coherence"]["lead"]["high"] < 0
  assert bad["coherence"]["rival"] == "correctness"
  assert bad["naturalness"]["lead"]["low"] > 0
  # A dimension that it follows backwards is followed too.
  reward_3N2[2] = -mark_3N2[0] + noise[2]
  bad = correlation.own(heads(mark_3N2, reward_3N2))["heads"]
  assert bad["coherence"]["lead"]["high"] < 0


def test_dimensions_that_gold_does_not_mark_take_no_part():
  mark_3N2 = made(50)
  noise = np.random.default_rng(1).normal(0, 1, mark_3N2.shape)
  some = heads(mark_3N2, mark_3N2 + noise)
  mean = {"reward_N2": noise[0], "mark_N2": mark_3N2.mean(axis=0)}
  some[0] = head(name="overall", **mean)
  some.append(head(name="mixture", **mean))
  assert [*correlation.own(some)["heads"]] == ["naturalness", "coherence"]
  assert correlation.own([some[0], some[1], some[3]]) is None
  # Nor do those that it marks all alike, which nothing can be ranked by.
  mark_3N2[2] = 3.0
  told = correlation.own(heads(mark_3N2, mark_3N2 + noise))
  assert [*told["heads"]] == ["correctness", "naturalness"]


def test_correlations_between_dimensions():
  rng = np.random.default_rng(0)
  gap_N = rng.normal(size=80)
  a = head(gap_N, np.sign(gap_N)[:, None])
  b = head(-gap_N, np.full((80, 1), np.nan), name="coherence")
  told = correlation.between([a, b])
  assert told["heads"]["rho"][0][1] == pytest.approx(-1.0)
  assert told["heads"]["n"] == 80
  assert told["labels"] is None  # no pair is labelled in both
  assert told["gold"] is None
