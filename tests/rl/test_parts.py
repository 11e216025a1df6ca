"""Statistics of rewards against arithmetic by hand and plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.rl.parts import aggregate, agreement, dimensions, groups, whiten
from stepaudio_jax.rl.parts.hyper import settled
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, ragged_mask

NAN = math.nan


def test_groups_by_hand():
  # Rewards 1 0 0 3: mean 1, squares 0+1+1+4 = 6, std √(6/3) = √2.
  # Then 2 NaN 4: of two known, mean 3, std √2; the last group knows one alone.
  x_BC = array([[1.0, 0, 0, 3], [2, NAN, 4, NAN], [NAN, 7, NAN, NAN]]).reshape(-1, 1)
  deviation_BC, std_BC = groups.deviations(x_BC, 4)
  close(deviation_BC[:, 0], [0, -1, -1, 2, -1, NAN, 1, NAN] + [NAN] * 4)
  close(std_BC[:, 0], [math.sqrt(2)] * 8 + [NAN] * 4)


def test_groups_against_loops():
  rng = np.random.default_rng(0)
  x_BC = rng.normal(size=(30, 3)).astype(np.float32)
  x_BC[rng.random(x_BC.shape) < 0.3] = NAN
  x_BC[4, 1] = np.inf  # not finite is missing, too
  got_BC = jax.jit(groups.standardised, static_argnums=(1, 2))(array(x_BC), 5, 0.3)
  for c in range(3):
    close(got_BC[:, c], twin.group_advantages(x_BC[:, c], 5, 0.3))


@pytest.mark.parametrize("reward", [0.1, 0.3, 1e4 / 3, -7.77])
def test_equal_rewards_have_exactly_no_advantage(reward):
  # In float32 the sum of eleven of these / 11 is another number: over a floor it shows.
  got_BC = groups.standardised(jnp.full((22, 1), reward, jnp.float32), 11, 1e-4)
  assert np.array_equal(got_BC, np.zeros((22, 1)))


def test_near_ties_stay_small():
  # training.md: near-ties of 1e-6 must not become |A| ≈ 0.8. Spread 1e-6 over 1e-4.
  got_BC = groups.standardised(array([[0.0], [1e-6]]), 2, 1e-4)
  close(got_BC[:, 0], [-0.005, 0.005], atol=1e-7)


def test_impossible_groups_raise():
  with pytest.raises(ValueError, match=r"group=1 \(sampling.samples\); .* 2 replies"):
    groups.check_several(1)
  with pytest.raises(ValueError, match=r"5 replies .* groups of 2"):
    groups.deviations(jnp.zeros((5, 1)), 2)


def test_replies_without_others_are_logged_without_a_comparison():
  # PPO and REINFORCE++ learn from one reply to a prompt, and an exam may ask for one.
  reward_BC = array([[1.0], [3.0]])
  how = dimensions.Combining(std_floor=1e-4)
  seen = dimensions.statistics(reward_BC, jnp.ones_like(reward_BC), 1, how)
  assert np.isnan(dimensions.normalised(reward_BC, 1, 1e-4)).all()
  assert seen.keys() == {"raw", "missing"}
  close(seen["raw"], [2.0])


def test_weighted_sum_by_hand():
  # 2·1 + (−1)·3 = −1; a missing reward counts only where it has a weight.
  # The last row belongs to another stream: 4·9.
  weight_BC = array([[2, -1, 0]] * 4 + [[0, 0, 4]])
  reward_BC = array(
    [[1, 3, 9], [1, 3, NAN], [1, NAN, 9], [np.inf, 3, 9], [NAN, NAN, 9]]
  )
  close(dimensions.weighted_sum(reward_BC, weight_BC), [-1, -1, NAN, NAN, 36])
  with pytest.raises(ValueError, match=r"\(5, 2\)"):
    dimensions.weighted_sum(reward_BC, weight_BC[:, :2])


def test_whiten_by_hand_and_against_loops():
  # 1 3 5: mean 3, squares 4+0+4, std √(8/3).
  x_BT, mask_BT = array([[1, NAN, 3], [NAN, 5, 9]]), [[1, 0, 1], [0, 1, 0]]
  got_BT = whiten.whitened(x_BT, jnp.array(mask_BT, bool), "token_mean")
  step = 2 / math.sqrt(8 / 3)
  close(got_BT, [[-step, 0, 0], [0, step, 0]])
  rng = np.random.default_rng(2)
  mask_BT = ragged_mask(rng, 9, 8)
  x_BT = rng.normal(3, 5, size=(9, 8)).astype(np.float32)
  for how in aggregate.CHOICES:
    got_BT = whiten.whitened(array(x_BT), jnp.array(mask_BT), how)
    close(got_BT, twin.whitened_tokens(x_BT, mask_BT, how))


@pytest.mark.parametrize("mask", [[True] * 11, [True] + [False] * 10, [False] * 11])
def test_whiten_without_spread_is_zero(mask):
  x_BT = jnp.full((3, 11), 1e4 / 3, jnp.float32)
  mask_BT = jnp.array([mask, mask[::-1], [False] * 11])
  for how in aggregate.CHOICES:
    got_BT = whiten.whitened(x_BT, mask_BT, how)
    assert np.array_equal(got_BT, np.zeros((3, 11)))


def test_agreement_against_loops():
  rng = np.random.default_rng(7)
  mask_BT = ragged_mask(rng, 6, 7)
  sampler_BT = rng.normal(-2, 1, size=(6, 7)).astype(np.float32)
  old_BT = (sampler_BT + rng.normal(0, 0.4, size=(6, 7))).astype(np.float32)
  wanted = twin.agreement(sampler_BT, old_BT, mask_BT)
  sampler_BT[~mask_BT], old_BT[~mask_BT] = NAN, 1e6
  got = jax.jit(agreement.agreement)(
    array(sampler_BT), array(old_BT), jnp.array(mask_BT)
  )
  assert set(got) == set(wanted)
  for name, value in wanted.items():
    assert float(got[name]) == pytest.approx(value, rel=1e-4), name
  # Sampler ½ ½, trainer ¾ ¼, one of each: ½(1.5 + .5) − 1 − ½ ln(1.5 · .5) = .1438;
  # the other way round it would be ½(2/3 + 2) − 1 + ½ ln(…) = .1895.
  got = agreement.agreement(
    jnp.log(array([[0.5, 0.5]])), jnp.log(array([[0.75, 0.25]])), jnp.ones((1, 2), bool)
  )
  assert float(got["mean_kl"]) == pytest.approx(-math.log(0.75) / 2, rel=1e-5)
  assert float(got["max_abs"]) == pytest.approx(math.log(2), rel=1e-5)
  assert math.isnan(float(got["pearson"]))  # one side is constant


def test_agreement_of_nothing_is_nan():
  got = agreement.agreement(
    jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool)
  )
  assert all(math.isnan(float(value)) for value in got.values())


def test_settled_takes_what_is_given_and_checks_it():
  defaults = {"clip_low": 0.2, "dual_clip": 3.0, "normalisation": "sum"}
  defaults |= {"gamma": 1.0, "whiten": True}
  assert vars(settled(defaults, {"dual_clip": 0})) == {**defaults, "dual_clip": 0}
  with pytest.raises(TypeError, match=r"clip_hgih.*the hyper-parameters are"):
    settled(defaults, {"clip_hgih": 0.2})
  for name, value in (
    ("clip_low", 0),
    ("clip_low", 1.5),
    ("clip_low", NAN),
    ("clip_low", "0.2"),
    ("clip_low", True),
    ("dual_clip", 0.9),
    ("dual_clip", NAN),
    ("dual_clip", math.inf),
    ("normalisation", "mean"),
    ("gamma", 1.1),
    ("gamma", -0.1),
    ("whiten", 1),
  ):
    with pytest.raises(ValueError, match=name):
      settled(defaults, {name: value})
