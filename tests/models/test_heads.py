"""Read-outs against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax.models import heads as heads_lib

X_BTD = jnp.asarray([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])


def test_values_by_hand():
  params = {"linear": {"kernel": jnp.asarray([[2.0], [-1.0]]), "bias": jnp.ones(1)}}
  value_BT = heads_lib.ValueHead().apply({"params": params}, X_BTD)
  # 2·1 − 2 + 1, 2·3 − 4 + 1, 2·5 − 6 + 1
  assert value_BT.tolist() == [[1.0, 3.0, 5.0]]


def reward_params(gate=0.0, scale=0.0):
  return {
    "linear": {
      "kernel": jnp.asarray([[1.0, 0.0], [0.0, 1.0]]),
      "bias": jnp.asarray([0.0, 0.5]),
    },
    "gate": {"kernel": jnp.asarray([[0.0, gate], [0.0, 0.0]])},
    "scale": jnp.asarray([scale, scale]),
  }


SURPRISE_BQT = jnp.asarray([[[-9.0, -1.0, -3.0]]])


def rewards(params, count, surprise_BQT=SURPRISE_BQT, x_BTD=X_BTD):
  count_BQ = jnp.asarray([[count]])
  heads = heads_lib.RewardHeads(2)
  return heads.apply({"params": params}, x_BTD[:, None], surprise_BQT, count_BQ)[0, 0]


def test_rewards_are_read_at_the_last_token():
  assert rewards(reward_params(), 3).tolist() == [5.0, 6.5]
  assert rewards(reward_params(), 2).tolist() == [3.0, 4.5]


def test_surprise_is_averaged_by_the_gate_without_the_first_token():
  # Equal weights: 2·(−1 − 3)/2 = −4. A gate of ½·x₀ on the second head, x₀ = 3 and 5:
  # weights 1 : e, surprise (−1 − 3e)/(1 + e).
  reward_C = rewards(reward_params(gate=0.5, scale=2.0), 3)
  second = 2 * (-1 - 3 * np.e) / (1 + np.e)
  np.testing.assert_allclose(reward_C, [5 - 4, 6.5 + second], rtol=1e-6)
  # What lies behind a reply of two tokens does not count.
  np.testing.assert_allclose(rewards(reward_params(0.5, 2.0), 2), [3 - 2, 4.5 - 2])


def test_an_absent_reply_has_no_reward_and_no_gradient():
  params = reward_params(gate=0.5, scale=2.0)
  assert np.isnan(rewards(params, 0)).all()

  def total(x_BTD, surprise_BQT, count):
    reward_C = rewards(params, count, surprise_BQT, x_BTD)
    return jnp.where(jnp.isnan(reward_C), 0.0, reward_C).sum()

  for gradient in jax.grad(total, (0, 1))(X_BTD, SURPRISE_BQT, 0):
    assert not np.asarray(gradient).any()
  x_gradient, surprise_gradient = jax.grad(total, (0, 1))(X_BTD, SURPRISE_BQT, 2)
  assert np.asarray(x_gradient)[0, :, 0].astype(bool).tolist() == [False, True, False]
  read = np.asarray(surprise_gradient)[0, 0].astype(bool)
  assert read.tolist() == [False, True, False]


def test_a_fresh_critic_predicts_zero_and_can_learn():
  params = heads_lib.init_value(jax.random.key(0), 2)
  assert not heads_lib.ValueHead().apply({"params": params}, X_BTD).any()

  def loss(params):
    return ((heads_lib.ValueHead().apply({"params": params}, X_BTD) - 1) ** 2).sum()

  assert jax.grad(loss)(params)["linear"]["kernel"].all()


def test_half_precision_inputs_give_float32_scores():
  params = heads_lib.init_rewards(jax.random.key(0), 2, 3)
  heads = heads_lib.RewardHeads(3, jnp.bfloat16)
  x_BQTD = X_BTD[:, None].astype(jnp.bfloat16)
  count_BQ = jnp.asarray([[3]])
  reward = heads.apply({"params": params}, x_BQTD, SURPRISE_BQT, count_BQ)
  assert reward.dtype == jnp.float32


def test_fresh_heads_know_nothing_of_tokens_but_can_learn():
  params = heads_lib.init_rewards(jax.random.key(0), 2, 2)
  assert not params["gate"]["kernel"].any()
  gradient = jax.grad(lambda p: rewards(p, 3).sum())(params)
  assert np.asarray(gradient["gate"]["kernel"]).all()
  assert np.asarray(gradient["scale"]).all()
