"""Read-outs against arithmetic by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from stepaudio_jax.models import heads

X_BTD = jnp.asarray([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])


def test_values_by_hand():
  params = {"linear": {"kernel": jnp.asarray([[2.0], [-1.0]]), "bias": jnp.ones(1)}}
  value_BT = heads.ValueHead().apply({"params": params}, X_BTD)
  # 2·1 − 2 + 1, 2·3 − 4 + 1, 2·5 − 6 + 1
  assert value_BT.tolist() == [[1.0, 3.0, 5.0]]


def test_rewards_are_read_at_their_slots():
  kernel = jnp.asarray([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
  params = {"linear": {"kernel": kernel, "bias": jnp.asarray([0.0, 0.0, 0.5])}}
  model = heads.RewardHeads(3)
  reward_BQC = model.apply({"params": params}, X_BTD, jnp.asarray([[2, -1, 0]]))
  assert reward_BQC.tolist() == [[[5.0, 6.0, 11.5], [0.0, 0.0, 0.0], [1.0, 2.0, 3.5]]]


def test_an_absent_slot_gives_no_gradient():
  params = heads.init_rewards(jax.random.key(0), 2, 3)

  def total(x_BTD):
    slots = jnp.asarray([[-1, 1]])
    return heads.RewardHeads(3).apply({"params": params}, x_BTD, slots).sum()

  gradient = np.asarray(jax.grad(total)(X_BTD))
  assert not gradient[0, [0, 2]].any()
  assert gradient[0, 1].all()


def test_a_fresh_critic_predicts_zero_and_can_learn():
  params = heads.init_value(jax.random.key(0), 2)
  assert not heads.ValueHead().apply({"params": params}, X_BTD).any()

  def loss(params):
    return ((heads.ValueHead().apply({"params": params}, X_BTD) - 1) ** 2).sum()

  assert jax.grad(loss)(params)["linear"]["kernel"].all()


def test_half_precision_inputs_give_float32_scores():
  params = heads.init_rewards(jax.random.key(0), 2, 3)
  model = heads.RewardHeads(3, jnp.bfloat16)
  slots = jnp.asarray([[1]])
  reward = model.apply({"params": params}, X_BTD.astype(jnp.bfloat16), slots)
  assert reward.dtype == jnp.float32
