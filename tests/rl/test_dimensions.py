"""What several rewards make of one advantage, against arithmetic by hand and loops."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from stepaudio_jax import rl
from stepaudio_jax.rl import grpo
from stepaudio_jax.rl.parts import dimensions, veto
from stepaudio_jax.rl.parts.dimensions import Combining
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, experience_of

NAN = math.nan
HALF = 1 / math.sqrt(2)
GDPO, SUM = Combining(1e-4), Combining(1e-4, normalisation="sum")


def test_statistics_under_gdpo_by_hand():
  # Groups (0, 2) (1, 1) (3, 3) of dimension 0: A = ∓h and 0, h = 1/√2. Dimension 1:
  # (NaN, 5) is no group, so that neither of its two replies counts at all; (0, 4) and
  # (2, 0). Dimension 2 is never known and has no weight. Weights 3 and −1: parts are
  # masked; 0 and h twice; 0 and h twice. All of the advantage is dimension 1's.
  reward = [[0, NAN], [2, 5], [1, 0], [1, 4], [3, 2], [3, 0]]
  reward_BC = array([[*row, NAN] for row in reward])
  got = dimensions.statistics(reward_BC, array([[3, -1, 0]] * 6), 2, GDPO)
  close(got["raw"], [10 / 6, 11 / 5, NAN])
  close(got["std"], [2 * HALF / 3, (4 + 2) * HALF / 2, NAN])
  close(got["norm"], [HALF / 3, HALF, NAN])
  close(got["weighted"], [0, HALF, NAN])
  close(got["share"], [0, 1, NAN])
  close(got["no_spread"], [2 / 3, 1 / 3, NAN])
  close(got["missing"], [0, 1 / 6, 1])


def test_a_reward_of_few_prompts_is_not_dead_because_of_all_others():
  # Of 40 prompts two have a rubric: its replies differ (0, 5) or are unread.
  reward_BC, weight_BC = np.full((80, 1), NAN), np.zeros((80, 1))
  reward_BC[:2, 0], weight_BC[:4] = [0, 5], 1
  got = dimensions.statistics(array(reward_BC), array(weight_BC), 2, SUM)
  close(got["no_spread"], [1 / 2])
  close(got["missing"], [78 / 80])


def test_shares_are_of_the_advantage_that_is_trained_on():
  # One group, (0, 1) and (0, 3), weights 2 and 1. By dimension both are ∓h: 2h and h,
  # shares ⅔ and ⅓. By sum the totals are 0 and 5, A = ∓h, of which 2/5 and 3/5.
  reward_BC, weight_BC = array([[0, 0], [1, 3]]), array([[2, 1]] * 2)
  got = dimensions.statistics(reward_BC, weight_BC, 2, GDPO)
  close(got["share"], [2 / 3, 1 / 3])
  got = dimensions.statistics(reward_BC, weight_BC, 2, SUM)
  close(got["share"], [0.4, 0.6])
  close(got["weighted"], [0.4 * HALF, 0.6 * HALF])
  # Dimensions that cancel: totals 3, 2 and spread h; parts ±1 and ∓3/2 over it.
  got = dimensions.statistics(array([[0, 3], [2, 0]]), array([[1, 1]] * 2), 2, SUM)
  close(got["share"], [0.4, 0.6])
  close(got["weighted"], [1 / HALF, 1.5 / HALF])
  # Without a division by the spread the parts are distances: 1 and 3/2.
  plain = dataclasses.replace(SUM, scaled=False)
  got = dimensions.statistics(array([[0, 3], [2, 0]]), array([[1, 1]] * 2), 2, plain)
  close(got["weighted"], [1, 1.5])


def random_rewards(rows=24):
  rng = np.random.default_rng(1)
  reward_BC = rng.normal(size=(rows, 4)).astype(np.float32)
  reward_BC[:, 1] = (reward_BC[:, 1] > 0.8).astype(np.float32)  # groups without spread
  reward_BC[rng.random(reward_BC.shape) < 0.15] = NAN
  weight_BC = np.tile(np.float32([1.0, 0.5, 0.0, -2.0]), (rows, 1))
  weight_BC[rows // 2 :] = [0.0, 3.0, 1.0, 0.0]
  return reward_BC, weight_BC


@pytest.mark.parametrize("floor", [0.2, (0.1, 0.6, 0.3, 0.9)])
@pytest.mark.parametrize("how", ["sum", "gdpo"])
def test_statistics_against_loops(how, floor):
  reward_BC, weight_BC = random_rewards()
  told = Combining(floor, normalisation=how)
  function = jax.jit(dimensions.statistics, static_argnums=(2, 3))
  got = function(array(reward_BC), array(weight_BC), 4, told)
  wanted = twin.dimension_statistics(reward_BC, weight_BC, 4, floor, how)
  assert set(got) == set(wanted[0])
  for name, value_C in got.items():
    close(value_C, [one[name] for one in wanted])


@pytest.mark.parametrize("floor", [0.2, (0.1, 0.6, 0.3, 0.9)])
@pytest.mark.parametrize("how", ["sum", "gdpo"])
def test_the_parts_add_up_to_the_advantage(how, floor):
  """GRPO's own; "gdpo" whitens what they add up to."""
  reward_BC, weight_BC = random_rewards()
  one_BT = np.ones((24, 1))
  part_BC = dimensions.parts(
    array(reward_BC), array(weight_BC), 4, Combining(floor, normalisation=how)
  )
  advantage_B = np.asarray(part_BC).sum(1)
  assert 0 < np.isnan(advantage_B).sum() < 24
  got = grpo.advantages(
    experience_of(one_BT, reward_BC, weight_BC),
    group=4,
    normalisation=how,
    std_floor=floor,
  )
  assert got.mask_BT[:, 0].tolist() == np.isfinite(advantage_B).tolist()
  if how == "gdpo":
    advantage_B = np.array(twin.whitened(advantage_B))
  close(got.advantage_BT[:, 0], np.nan_to_num(advantage_B), atol=2e-5)


def test_a_group_of_one_has_raw_rewards_alone():
  got = dimensions.statistics(array([[1.0], [NAN]]), array([[1.0]] * 2), 1, SUM)
  assert {name: float(x[0]) for name, x in got.items()} == {"raw": 1.0, "missing": 0.5}


def test_floors_of_noise_by_hand():
  # Both dimensions differ by 2 in their group, spread √2. gdpo with floors 10 and 1:
  # A = ∓1/10 and ∓1/√2, weights 3 and 4. By sum: floor √(30² + 4²), distance 7.
  reward_BC, weight_BC = array([[0, 0], [2, 2]]), array([[3, 4]] * 2)
  floor = (10.0, 1.0)
  norm_BC = dimensions.normalised(reward_BC, 2, floor)
  close(norm_BC, [[-0.1, -HALF], [0.1, HALF]])
  close(dimensions.sum_floor(floor, weight_BC), [[math.sqrt(916)]] * 2)
  got = grpo.advantages(
    experience_of(np.ones((2, 1)), reward_BC, weight_BC), group=2, std_floor=floor
  )
  close(got.advantage_BT[:, 0], [-7 / math.sqrt(916), 7 / math.sqrt(916)])
  with pytest.raises(ValueError, match="3 floors of the spread for 2 dimensions"):
    dimensions.normalised(reward_BC, 2, (1.0, 1.0, 1.0))
  with pytest.raises(ValueError, match=r"std_floor=0.0; it must lie in \(0.0, ∞\)"):
    grpo.advantages(
      experience_of(np.ones((2, 1)), reward_BC), group=2, std_floor=(1.0, 0.0)
    )


def test_equal_floors_are_one_floor_of_each_dimension():
  reward_BC, _ = random_rewards()
  one = dimensions.normalised(array(reward_BC), 4, 0.3)
  close(dimensions.normalised(array(reward_BC), 4, (0.3,) * 4), one, atol=0)


def test_the_clip_by_hand():
  # (0, 0, 0, 4): mean 1, std 2: A = −½ three times and 3/2, cut to 1.
  close(
    dimensions.normalised(array([[0], [0], [0], [4]]), 4, 1e-4, 1.0)[:, 0],
    [-0.5, -0.5, -0.5, 1.0],
  )


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo"])
def test_a_clip_that_cannot_act_is_refused(name):
  algorithm = rl.load(name)
  experience = experience_of(np.ones((4, 1)), [[0.0], [0.0], [0.0], [1.0]])
  advantages = functools.partial(algorithm.advantages, experience, group=4)
  how = {"aggregation": algorithm.AGGREGATIONS[0]}
  with pytest.raises(ValueError, match=r"reward_clip=1.0 with normalisation 'sum'"):
    advantages(**how, reward_clip=1.0)
  with pytest.raises(ValueError, match=r"in groups of 4 .* is beyond ±1.50"):
    advantages(**how, reward_clip=1.5, normalisation="gdpo")
  advantages(**how, reward_clip=1.49, normalisation="gdpo")


def test_the_largest_standardised_reward_is_as_said():
  """So nothing is clipped at ±5 below 28 replies: 26/√27 = 5.004."""
  for group, beyond in ((26, False), (27, True)):
    reward_B1 = np.zeros((group, 1))
    reward_B1[0] = 1.0
    (most,) = dimensions.normalised(array(reward_B1), group, 1e-4, 99.0).max(0)
    assert float(most) == pytest.approx((group - 1) / math.sqrt(group), rel=1e-5)
    assert (float(most) > dimensions.CLIP) == beyond


VETO = veto.thresholds({"correctness": 0.5}, ("warmth", "correctness", "length"))


def vetoed_by_hand():
  """Group 1: replies 1 and 2 fail; their warmth falls to 1, their length's weight is
  below 0, so that the worst is the greatest, 7. Group 2: nobody fails.
  """
  reward = [[2, 1, 5], [9, 0, 3], [NAN, 0.4, 6], [1, 0.5, 7]]
  reward += [[2, 1, 5], [9, 1, 3], [4, NAN, 6], [1, 2, 7]]
  wanted = [[2, 1, 5], [1, 0, 7], [NAN, 0.4, 7], [1, 0.5, 7], *reward[4:]]
  return array(reward), array([[2, 1, -0.5]] * 8), wanted


def test_vetoed_replies_have_the_worst_of_their_group():
  assert list(VETO) == [-math.inf, 0.5, -math.inf]
  reward_BC, weight_BC, wanted = vetoed_by_hand()
  assert veto.vetoed(reward_BC, VETO).tolist() == [False, True, True] + [False] * 5
  close(veto.lowered(reward_BC, weight_BC, 4, VETO), wanted)


def test_a_veto_in_both_normalisations_by_hand():
  # Warmth 0, 4 (vetoed), 2, 6 falls to 0, 0, 2, 6: mean 2, std √(24/3). Correctness
  # 1, 0, 1, 1: mean ¾, std ½. Weights 1 and 2.
  # Sum: totals 2, 0, 4, 8: mean 3½, squares 2¼ + 12¼ + ¼ + 20¼ = 35.
  reward_BC = array([[0, 1], [4, 0], [2, 1], [6, 1]])
  weight_BC = array([[1, 2]] * 4)
  told = (reward_BC, weight_BC, 4)
  gate = (-math.inf, 0.5)
  how = dataclasses.replace(SUM, veto=gate)
  counted_BC = dimensions.counted(*told, how)
  close(counted_BC, [[0, 1], [0, 0], [2, 1], [6, 1]])
  part_BC = dimensions.parts(counted_BC, weight_BC, 4, how)
  std = math.sqrt(35 / 3)
  close(part_BC.sum(1), np.array([-1.5, -3.5, 0.5, 4.5]) / std)
  how = dataclasses.replace(GDPO, veto=gate)
  part_BC = dimensions.parts(dimensions.counted(*told, how), weight_BC, 4, how)
  warm, right = np.array([-2, -2, 0, 4]) / math.sqrt(8), np.array([1, -3, 1, 1]) / 2
  close(part_BC, np.stack([warm, 2 * right], axis=1))
  # Without it the reply that is wrong and warm is above the one that is right and cold.
  assert float(dimensions.parts(*told, SUM)[1].sum()) > float(
    dimensions.parts(*told, SUM)[0].sum()
  )
  got = dimensions.statistics(*told, how)
  close(got["raw"], [3, 0.75])  # as they were given
  parts = np.abs(np.stack([warm, 2 * right], axis=1)).sum(0)
  close(got["share"], parts / parts.sum())


def test_where_all_are_vetoed_only_the_veto_is_learnt():
  reward_BC = array([[3, 0.1], [1, 0.3]])
  how = dataclasses.replace(SUM, veto=(-math.inf, 0.5))
  counted_BC = dimensions.counted(reward_BC, array([[1, 1]] * 2), 2, how)
  close(counted_BC, [[1, 0.1], [1, 0.3]])


def test_impossible_vetoes_are_refused():
  assert veto.thresholds({}, ("x",)) == ()
  with pytest.raises(ValueError, match=r"veto of \['y'\]; the rewards are \['x'\]"):
    veto.thresholds({"y": 1.0}, ("x",))
  with pytest.raises(ValueError, match="thresholds are finite numbers"):
    veto.thresholds({"x": NAN}, ("x",))
