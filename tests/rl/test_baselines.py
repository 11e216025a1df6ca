"""Advantages of Dr. GRPO, RLOO, REINFORCE++ and their kin; a KL in the reward."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import rl
from stepaudio_jax.rl import cispo, dapo, drgrpo, grpo, gspo, reinforce_pp, rloo
from stepaudio_jax.rl.parts import whiten
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, experience_of, ragged_mask

NAN = math.nan


def test_drgrpo_by_hand():
  # Rewards 1 0 0 3, mean 1: no std, so 0 −1 −1 2; then one known reply alone: masked.
  reward = [[1.0], [0.0], [0.0], [3.0], [NAN], [7.0], [NAN], [NAN]]
  got = drgrpo.advantages(experience_of(np.ones((8, 2)), reward), group=4)
  close(got.advantage_BT[:, 0], [0, -1, -1, 2, 0, 0, 0, 0])
  assert got.mask_BT[:, 0].tolist() == [True] * 4 + [False] * 4
  close(
    got.advantage_BT[:4],
    grpo.advantages(
      experience_of(np.ones((4, 2)), reward[:4]), group=4, scale_by_std=False
    ).advantage_BT,
  )


def test_rloo_by_hand():
  # 1 0 0 3: others' means 1, 4/3, 4/3, 1/3. Then 2 NaN 4: −2 and 2, the missing masked.
  reward = [[1.0], [0.0], [0.0], [3.0], [2.0], [NAN], [4.0], [NAN]]
  got = rloo.advantages(experience_of(np.ones((8, 2)), reward), group=4)
  close(got.advantage_BT[:, 1], [0, -4 / 3, -4 / 3, 8 / 3, -2, 0, 2, 0])
  assert got.mask_BT[:, 0].tolist() == [True] * 5 + [False, True, False]


def test_reinforce_pp_by_hand():
  # Replies of 1, 2 and 1 tokens, R = 3, 0, 3 → tokens 3, 0, 0, 3: mean 1.5, std 1.5.
  mask = [[1, 0], [1, 1], [0, 1]]
  experience = experience_of(mask, [[3.0], [0.0], [3.0]])
  got = reinforce_pp.advantages(experience, group=1)
  close(got.advantage_BT, [[1, 0], [-1, -1], [0, 1]])
  # By replies (3, 0, 3: mean 2, std √2): 1/√2, −√2.
  got = reinforce_pp.advantages(
    experience, group=1, aggregation="sequence_mean_token_mean"
  )
  up, down = 1 / math.sqrt(2), -math.sqrt(2)
  close(got.advantage_BT, [[up, 0], [down, down], [0, up]])
  # −β k1 = −1 and −3 in the second reply: 0 − 4 and 0 − 3. Tokens 3 −4 −3 3: mean −¼.
  kl_reward_BT = array([[0, NAN], [-1, -3], [NAN, 0]])
  got = reinforce_pp.advantages(experience, group=1, kl_reward_BT=kl_reward_BT)
  std = math.sqrt((3.25**2 * 2 + 3.75**2 + 2.75**2) / 4)
  close(got.advantage_BT * std, [[3.25, 0], [-3.75, -2.75], [0, 3.25]])


def test_the_baseline_of_reinforce_pp_is_the_mean_of_the_group():
  # Groups (1, 3) and (11, 13): without a baseline the first is below the second; with
  # one each has −1 and 1.
  experience = experience_of(np.ones((4, 1)), [[1.0], [3.0], [11.0], [13.0]])
  plain = reinforce_pp.advantages(experience, group=2).advantage_BT[:, 0]
  assert (plain[:2] < 0).all()
  assert (plain[2:] > 0).all()
  with_baseline = reinforce_pp.advantages(experience, group=2, baseline=True)
  close(with_baseline.advantage_BT[:, 0], [-1, 1, -1, 1])
  with pytest.raises(ValueError, match="group=1"):
    reinforce_pp.advantages(experience, group=1, baseline=True)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_mean"])
@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_pp_against_loops(aggregation, baseline):
  rng = np.random.default_rng(0)
  mask_BT = ragged_mask(rng, 12, 6)
  reward_BC = rng.normal(size=(12, 2))
  reward_BC[3, 0] = reward_BC[8:11, 1] = NAN
  kl_reward_BT = rng.normal(size=(12, 6)).astype(np.float32)
  advantages = jax.jit(
    reinforce_pp.advantages, static_argnames=("group", "aggregation", "baseline")
  )
  got = advantages(
    experience_of(mask_BT, reward_BC, [1.0, 2.0]),
    group=4,
    aggregation=aggregation,
    kl_reward_BT=array(kl_reward_BT),
    baseline=baseline,
  )
  total_B = twin.weighted_sums(reward_BC, [[1.0, 2.0]] * 12)
  if baseline:
    total_B = twin.group_advantages(total_B, 4, 0.0, scale=False)
  mask_BT = mask_BT & np.isfinite(total_B)[:, None]
  raw_BT = twin.reward_to_go(total_B, kl_reward_BT, mask_BT)
  assert np.array_equal(got.mask_BT, mask_BT)
  close(got.advantage_BT, twin.whitened_tokens(raw_BT, mask_BT, aggregation))


@pytest.mark.parametrize("algorithm", [drgrpo, rloo])
def test_what_is_not_scaled_against_loops(algorithm):
  rng = np.random.default_rng(1)
  mask_BT = ragged_mask(rng, 24, 5)
  reward_BC = rng.normal(size=(24, 2))
  reward_BC[rng.random(24) < 0.4, 1] = NAN
  kl_reward_BT = rng.normal(size=(24, 5)).astype(np.float32)
  got = jax.jit(algorithm.advantages, static_argnames="group")(
    experience_of(mask_BT, reward_BC, [1.0, -2.0]),
    group=4,
    kl_reward_BT=array(np.where(mask_BT, kl_reward_BT, NAN)),
  )
  total_B = twin.weighted_sums(reward_BC, [[1.0, -2.0]] * 24)
  total_B = total_B + np.where(mask_BT, kl_reward_BT, 0.0).sum(1)
  if algorithm is rloo:
    wanted_B = twin.leave_one_out(total_B, 4)
  else:
    wanted_B = twin.group_advantages(total_B, 4, 0.0, scale=False)
  wanted_mask_BT = mask_BT & np.isfinite(wanted_B)[:, None]
  assert np.array_equal(got.mask_BT, wanted_mask_BT)
  close(got.advantage_BT, np.where(wanted_mask_BT, np.array(wanted_B)[:, None], 0.0))


@pytest.mark.parametrize("algorithm", [grpo, dapo, gspo, cispo])
def test_a_kl_in_the_reward_of_a_reply_is_summed_over_its_tokens(algorithm):
  # Rewards 1 and 1; of the first reply's three tokens two were sampled, −1 and −2:
  # totals −2 and 1, so A = ∓1/√2; without the KL there is no difference at all.
  experience = experience_of([[1, 0, 1], [1, 1, 1]], [[1.0], [1.0]])
  kl_reward_BT = array([[-1, NAN, -2], [0, 0, 0]])
  got = algorithm.advantages(experience, group=2, kl_reward_BT=kl_reward_BT)
  half = 1 / math.sqrt(2)
  close(got.advantage_BT, [[-half, 0, -half], [half] * 3])
  assert not algorithm.advantages(experience, group=2).advantage_BT.any()
  with pytest.raises(ValueError, match="'gdpo' with a KL in the reward"):
    algorithm.advantages(
      experience, group=2, kl_reward_BT=kl_reward_BT, normalisation="gdpo"
    )


@pytest.mark.parametrize("name", rl.names())
def test_a_kl_in_the_reward_acts_on_every_algorithm(name):
  algorithm = rl.load(name)
  rng = np.random.default_rng(2)
  experience = experience_of(np.ones((8, 3)), rng.normal(size=(8, 1)))
  without = algorithm.advantages(experience, group=4).advantage_BT
  pulled = jnp.zeros((8, 3)).at[0].set(-5.0)  # the first reply has strayed
  got = algorithm.advantages(experience, group=4, kl_reward_BT=pulled).advantage_BT
  assert got[0, 0] < without[0, 0] - 0.1


def test_whitening_follows_the_aggregation():
  # Replies 1 1 1 and 5: by tokens mean 2, std √3; by replies mean 3, std 2.
  x_BT, mask_BT = array([[1, 1, 1], [5, NAN, 9]]), jnp.array([[1] * 3, [1, 0, 0]], bool)
  for how in ("token_mean", "constant"):
    got_BT = whiten.whitened(x_BT, mask_BT, how)
    close(got_BT, [[-1 / math.sqrt(3)] * 3, [math.sqrt(3), 0, 0]])
  got_BT = whiten.whitened(x_BT, mask_BT, "sequence_mean_token_mean")
  close(got_BT, [[-1] * 3, [1, 0, 0]])
  with pytest.raises(ValueError, match=r"'mean'.*token_mean"):
    whiten.whitened(x_BT, mask_BT, "mean")
