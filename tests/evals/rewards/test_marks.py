"""Scores read on the raters' grid, by what raters said in other dialogues."""

import numpy as np
import pytest
from scipy import stats

from stepaudio_jax.evals.rewards import correlation, marks
from tests.evals.rewards.heads import head


def dialogues(rows, each=2):
  return [str(k // each) for k in range(rows)]


def test_any_monotone_scale_is_read_as_the_labels_behind_it():
  label_M = np.tile([1.0, 3.0, 5.0, 5.0], 50)
  head_M = np.exp(label_M) + np.random.default_rng(0).uniform(0, 1, 200)
  np.testing.assert_array_equal(marks.read(head_M, label_M, dialogues(200)), label_M)


def test_a_head_that_knows_nothing_is_worth_the_mean():
  label_M = np.tile([1.0, 5.0, 5.0, 5.0], 50)
  head_M = np.random.default_rng(0).normal(size=200)
  assert np.median(marks.read(head_M, label_M, dialogues(200))) == 4.0
  # The other way round is not the raters' way: never a falling line.
  read_M = marks.read(-label_M, label_M, dialogues(200))
  assert set(read_M) == {4.0}


def test_a_reply_is_read_by_other_dialogues_only():
  """One dialogue with labels against all others' keeps none of its own."""
  head_M = np.arange(40.0)
  label_M = np.where(head_M < 20, 1.0, 5.0)
  turned_M = label_M.copy()
  turned_M[:2] = 5.0
  read_M = marks.read(head_M, turned_M, dialogues(40))
  np.testing.assert_array_equal(read_M[:2], [1.0, 1.0])


def test_replies_without_labels_are_read_too():
  label_M = np.repeat([1.0, 5.0], 20)
  head_M = 10 * label_M
  known_M = label_M.copy()
  known_M[::2] = np.nan
  np.testing.assert_array_equal(marks.read(head_M, known_M, dialogues(40)), label_M)
  assert marks.read(head_M, np.full(40, np.nan), dialogues(40)) is None
  assert marks.read(head_M, label_M, ["one"] * 40) is None


def test_a_faultless_head_reaches_the_ceiling_of_the_grid_alone():
  """Two values of gold, most alike: as it is, a head cannot come near 1."""
  rng = np.random.default_rng(1)
  mark_N2 = np.where(rng.random((400, 2)) < 0.9, 5.0, 3.0)
  reward_N2 = mark_N2 + rng.uniform(-0.9, 0.9, (400, 2))
  one = head(
    reward_N2=reward_N2,
    mark_N2=mark_N2,
    score_N2J=mark_N2[..., None],
    label_NJ=np.zeros((400, 1)),
    dialogues=[str(k // 2) for k in range(400)],
  )
  told = correlation.entry(one)["gold"]
  assert told["on_grid"]["value"] == told["share_grid"] == pytest.approx(1.0)
  wanted = stats.spearmanr(reward_N2.ravel(), mark_N2.ravel())[0]
  assert told["value"] == pytest.approx(wanted)
  assert wanted < 0.6
