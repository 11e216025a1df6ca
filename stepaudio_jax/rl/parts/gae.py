"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16)."""

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array


def gae(
  reward_BT: Array, value_BT: Array, mask_BT: Array, gamma: float, lambda_: float
) -> Array:
  """advantage_BT: A_t = δ_t + γλ A_{t+1}, δ_t = r_t + γ v_{t+1} − v_t, v_{T+1} = 0.

  t + 1 is the next *sampled* token of the row: what lies outside the mask is passed
  over, and is 0 in the result.
  """

  def earlier(after, at):
    value_after_B, advantage_after_B = after
    reward_B, value_B, mask_B = at
    delta_B = reward_B + gamma * value_after_B - value_B
    advantage_B = delta_B + gamma * lambda_ * advantage_after_B
    carry = (
      jnp.where(mask_B, value_B, value_after_B),
      jnp.where(mask_B, advantage_B, advantage_after_B),
    )
    return carry, jnp.where(mask_B, advantage_B, 0.0)

  end_B = jnp.zeros(reward_BT.shape[:1], jnp.float32)
  columns = (reward_BT.T, value_BT.T, mask_BT.T)
  _, advantage_TB = jax.lax.scan(earlier, (end_B, end_B), columns, reverse=True)
  return advantage_TB.T
