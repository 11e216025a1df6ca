"""Algorithms: advantages and losses against loops, and what is masked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import rl
from stepaudio_jax.rl import grpo, ppo
from stepaudio_jax.rl.parts import aggregate
from tests.rl import numpy_twin as twin
from tests.rl.experiences import close, experience_of, ragged_mask

NAN = math.nan


def test_files_are_the_algorithms():
  known = {"ppo", "grpo", "drgrpo", "rloo", "reinforce_pp", "dapo", "gspo", "cispo"}
  assert known <= set(rl.names())
  assert "parts" not in rl.names()
  for name in rl.names():
    module = rl.load(name)
    assert hasattr(module, "value_loss") == module.CRITIC
    assert set(module.AGGREGATIONS) <= set(aggregate.CHOICES)
  with pytest.raises(ValueError, match=r"'parts'.*grpo.*ppo"):
    rl.load("parts")


@pytest.mark.parametrize("algorithm", [grpo, ppo])
def test_unknown_and_impossible_hyper_parameters_raise(algorithm):
  experience = experience_of(np.ones((2, 2)), [[0.0], [1.0]])
  now_BT = jnp.zeros((2, 2))
  for call in (
    lambda **hyper: algorithm.advantages(experience, group=2, **hyper),
    lambda **hyper: algorithm.token_loss(now_BT, experience, **hyper),
  ):
    with pytest.raises(TypeError, match="beta"):
      call(beta=0.1)
    with pytest.raises(ValueError, match="clip_high"):
      call(clip_high=-0.1)
    with pytest.raises(ValueError, match=r"normalisation.*sum"):
      call(normalisation="mean")
  with pytest.raises(ValueError, match="groups of 3"):
    algorithm.advantages(experience, group=3)


def test_grpo_by_hand():
  # Weights 2 and 1 and 0. Totals: 2·1+0 = 2, 0, 0, 2·1+4 = 6 → mean 2, squares
  # 0+4+4+16 = 24, std √8. The missing reward of weight 0 does not matter.
  reward = [[1, 0, NAN], [0, 0, 5], [0, 0, 5], [1, 4, 5]]
  mask = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]]
  got = grpo.advantages(experience_of(mask, reward, [2, 1, 0]), group=4)
  a = 2 / math.sqrt(8)
  close(got.advantage_BT, [[0, 0, 0], [-a, 0, 0], [0, 0, 0], [2 * a, 0, 2 * a]])
  assert np.array_equal(got.mask_BT, np.array(mask, bool))
  got = grpo.advantages(
    experience_of(mask, reward, [2, 1, 0]), group=4, scale_by_std=False
  )
  close(got.advantage_BT, [[0, 0, 0], [-2, 0, 0], [0, 0, 0], [4, 0, 4]])


def test_grpo_masks_replies_without_a_total():
  # Group one: 1, NaN, 3 → ∓1/√2 around 2, and no reward 0 anywhere. Group two knows
  # one reply, which has nothing to be compared with. Group three has no spread.
  reward = np.array([[1.0], [NAN], [3], [NAN], [5], [NAN], [0.3], [0.3], [0.3]])
  got = grpo.advantages(experience_of(np.ones((9, 2)), reward), group=3)
  a = 1 / math.sqrt(2)
  close(got.advantage_BT[:, 0], [-a, 0, a, 0, 0, 0, 0, 0, 0])
  assert got.mask_BT[:, 0].tolist() == [True, False, True] + [False] * 3 + [True] * 3
  assert np.array_equal(got.advantage_BT[6:], np.zeros((3, 2)))
  assert np.array_equal(got.return_BT, np.zeros((9, 2)))


@pytest.mark.parametrize("group", [0, 1])
def test_grpo_of_one_raises(group):
  with pytest.raises(ValueError, match=f"group={group}"):
    grpo.advantages(experience_of(np.ones((4, 2))), group=group)


def test_gdpo_always_scales():
  experience = experience_of(np.ones((4, 2)))
  with pytest.raises(ValueError, match="scale_by_std"):
    grpo.advantages(experience, group=2, normalisation="gdpo", scale_by_std=False)


@pytest.mark.parametrize(
  ("normalisation", "aggregation"),
  [
    ("sum", "token_mean"),
    ("gdpo", "token_mean"),
    ("gdpo", "sequence_mean_token_mean"),
  ],
)
def test_grpo_against_loops(normalisation, aggregation):
  rng = np.random.default_rng(0)
  mask_BT = ragged_mask(rng, 24, 6)
  reward_BC = rng.normal(size=(24, 3)) * [1, 100, 1]
  reward_BC[:4] = 0.7  # a group without spread
  reward_BC[5, 0] = reward_BC[9:12, 1] = NAN
  reward_BC[14, 2] = NAN  # of weight 0
  weight_BC = np.tile([1.0, -0.5, 0.0], (24, 1))
  weight_BC[20:] = [0.0, 0.0, 2.0]  # the last group is of another stream
  experience = experience_of(mask_BT, reward_BC, weight_BC)
  names = ("group", "normalisation", "aggregation")
  got = jax.jit(grpo.advantages, static_argnames=names)(
    experience, group=4, normalisation=normalisation, aggregation=aggregation
  )
  if normalisation == "sum":
    total_B = twin.weighted_sums(reward_BC, weight_BC)
    wanted_B = twin.group_advantages(total_B, 4, grpo.DEFAULTS["std_floor"])
  else:
    each_BC = twin.normalised(reward_BC, 4, grpo.DEFAULTS["std_floor"])
    wanted_B = twin.weighted_sums(each_BC, weight_BC)
  assert 0 < np.isnan(wanted_B).sum() < 8
  wanted_mask_BT = mask_BT & np.isfinite(wanted_B)[:, None]
  assert np.array_equal(got.mask_BT, wanted_mask_BT)
  wanted_BT = np.where(wanted_mask_BT, np.array(wanted_B)[:, None], 0.0)
  if normalisation == "gdpo":
    wanted_BT = twin.whitened_tokens(wanted_BT, wanted_mask_BT, aggregation)
  close(got.advantage_BT, wanted_BT, atol=2e-5)


def test_gdpo_does_not_let_the_wider_dimension_drown_the_other():
  # Two replies, rewards (1, 0) and (0, 100): by sum the second wins; dimension by
  # dimension it is a tie, so that nothing is left.
  experience = experience_of(np.ones((2, 1)), [[1, 0], [0, 100]])
  summed = grpo.advantages(experience, group=2)
  close(summed.advantage_BT[:, 0], [-1 / math.sqrt(2), 1 / math.sqrt(2)])
  gdpo = grpo.advantages(experience, group=2, normalisation="gdpo")
  assert np.array_equal(gdpo.advantage_BT, np.zeros((2, 1)))


def test_gdpo_limits_each_dimension():
  # One reply of 100 differs: A = 99/√100 = 9.9 and −0.1, kept within 5; then whitened.
  reward = np.zeros((100, 1))
  reward[0] = 1.0
  got = grpo.advantages(
    experience_of(np.ones((100, 1)), reward), group=100, normalisation="gdpo"
  )
  wanted_B = twin.whitened([5.0] + [-0.1] * 99)
  close(got.advantage_BT[:, 0], wanted_B, atol=1e-4)


def test_ppo_by_hand():
  # γ = λ = 1: A_t is the rewards from t on minus v_t. Row 0: R = 2 on its last token
  # (t = 2) and −.5 of KL on t = 0: 1.5−.5 = 1 and 2−1 = 1. Row 1: R = −1, v = 0.
  # Row 2 has no reward. Returns 1.5, 2, −1.
  experience = experience_of(
    [[1, 0, 1], [1, 0, 0], [1, 1, 1]],
    [[2.0], [-1.0], [NAN]],
    value_BT=[[0.5, 9, 1], [0, 9, 9], [9, 9, 9]],
  )
  kl_reward_BT = jnp.array([[-0.5, 9, 0], [0, 9, 9], [NAN, NAN, NAN]])
  got = ppo.advantages(experience, group=1, kl_reward_BT=kl_reward_BT, whiten=False)
  close(got.advantage_BT, [[1, 0, 1], [-1, 0, 0], [0, 0, 0]])
  close(got.return_BT, [[1.5, 0, 2], [-1, 0, 0], [0, 0, 0]])
  assert got.mask_BT.tolist() == [
    [True, False, True],
    [True] + [False] * 2,
    [False] * 3,
  ]
  # Whitened over the tokens 1, 1, −1: mean 1/3, std √(8/9); returns stay.
  white = ppo.advantages(experience, group=1, kl_reward_BT=kl_reward_BT)
  up, down = (2 / 3) / math.sqrt(8 / 9), (-4 / 3) / math.sqrt(8 / 9)
  close(white.advantage_BT, [[up, 0, up], [down, 0, 0], [0, 0, 0]])
  close(white.return_BT, got.return_BT)


def test_ppo_against_loops():
  rng = np.random.default_rng(1)
  mask_BT = ragged_mask(rng, 12, 7)
  reward_BC = rng.normal(size=(12, 2))
  reward_BC[3, 0] = NAN
  value_BT, kl_reward_BT = rng.normal(size=(2, 12, 7)).astype(np.float32)
  experience = experience_of(mask_BT, reward_BC, [1.0, 2.0], value_BT=value_BT)
  advantages = jax.jit(ppo.advantages, static_argnames=("group", "gamma", "lambda_"))
  got = advantages(
    experience, group=4, kl_reward_BT=jnp.array(kl_reward_BT), gamma=0.9, lambda_=0.7
  )
  total_B = twin.weighted_sums(reward_BC, [[1.0, 2.0]] * 12)
  mask_BT = mask_BT & np.isfinite(total_B)[:, None]
  reward_BT = kl_reward_BT.astype(np.float64)
  for b in range(12):
    if mask_BT[b].any():
      reward_BT[b, np.flatnonzero(mask_BT[b])[-1]] += total_B[b]
  raw_BT = twin.gae(reward_BT, value_BT, mask_BT, 0.9, 0.7)
  close(got.return_BT, np.where(mask_BT, raw_BT + value_BT, 0.0))
  wanted_BT = np.zeros((12, 7))
  wanted_BT[mask_BT] = twin.whitened(raw_BT[mask_BT].tolist())
  close(got.advantage_BT, wanted_BT)
  assert np.array_equal(got.mask_BT, mask_BT)


def test_ppo_has_no_gdpo():
  experience = experience_of(np.ones((2, 2)))
  with pytest.raises(ValueError, match=r"'gdpo'.*'sum'"):
    ppo.advantages(experience, group=2, normalisation="gdpo")
  with pytest.raises(ValueError, match=r"'gdpo'.*'sum'"):
    ppo.value_loss(jnp.zeros((2, 2)), experience, normalisation="gdpo")


@pytest.mark.parametrize("algorithm", [grpo, ppo])
def test_token_loss_reads_its_hyper_parameters(algorithm):
  rng = np.random.default_rng(2)
  mask_BT = ragged_mask(rng, 6, 5)
  now_BT, old_BT, advantage_BT = rng.normal(size=(3, 6, 5)).astype(np.float32)
  experience = experience_of(mask_BT, old_BT=old_BT, advantage_BT=advantage_BT)
  for low, high, dual in ((0.2, 0.2, 3.0), (0.05, 0.5, 0), (0.3, 0.1, 1.5)):
    loss_BT, _ = algorithm.token_loss(
      jnp.array(now_BT), experience, clip_low=low, clip_high=high, dual_clip=dual
    )
    wanted_BT = twin.clipped_loss(
      now_BT, old_BT, advantage_BT, mask_BT, low, high, dual
    )
    close(loss_BT, wanted_BT)


@pytest.mark.parametrize("delta", [0, 0.2, 1.0])
def test_value_loss_against_loops(delta):
  rng = np.random.default_rng(3)
  mask_BT = ragged_mask(rng, 8, 6)
  value_BT, old_BT, return_BT = rng.normal(size=(3, 8, 6)).astype(np.float32)
  value_BT[~mask_BT] = old_BT[~mask_BT] = NAN
  experience = experience_of(mask_BT, value_BT=old_BT, return_BT=return_BT)

  def total(x_BT):
    loss_BT = ppo.value_loss(x_BT, experience, value_clip=delta)
    return loss_BT.sum(), loss_BT

  grad_BT, loss_BT = jax.jit(jax.grad(total, has_aux=True))(jnp.array(value_BT))
  close(loss_BT, twin.value_loss(value_BT, old_BT, return_BT, mask_BT, delta))
  assert np.array_equal(np.array(grad_BT)[~mask_BT], np.zeros((~mask_BT).sum()))
  assert np.isfinite(grad_BT).all()


def test_value_loss_by_hand():
  # Old 0, return 1, δ = .2. Predicted .5: ½ max(.25, .64) = .32 with no gradient;
  # .1: ½·.81 with gradient −.9; −1: ½ max(4, 1.44) = 2 with gradient −2.
  experience = experience_of(np.ones((1, 3)), return_BT=[[1.0, 1, 1]])

  def total(x_BT):
    loss_BT = ppo.value_loss(x_BT, experience, value_clip=0.2)
    return loss_BT.sum(), loss_BT

  grad_BT, loss_BT = jax.grad(total, has_aux=True)(jnp.array([[0.5, 0.1, -1.0]]))
  close(loss_BT, [[0.32, 0.405, 2.0]])
  close(grad_BT, [[0.0, -0.9, -2.0]])
