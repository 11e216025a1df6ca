"""Experience to test with, and how its arrays are made and compared."""

import jax.numpy as jnp
import numpy as np

from stepaudio_jax.core.types import Experience


def array(x):
  return jnp.asarray(x, jnp.float32)


def close(got, wanted, atol=1e-5):
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=atol)


def experience_of(mask, reward=None, weight=None, **fields):
  """Zeros wherever a field is not given.

  Args:
    reward: one dimension of 0 by default.
    weight: of each dimension, for all rows or by row; 1 by default.
  """
  mask_BT = np.array(mask, bool)
  reward = np.zeros((len(mask_BT), 1)) if reward is None else np.array(reward)
  weight = np.broadcast_to(1.0 if weight is None else weight, reward.shape)
  given = {name: np.array(value, np.float32) for name, value in fields.items()}
  zero_BT = np.zeros(mask_BT.shape, np.float32)
  names = ("sampler_BT", "old_BT", "reference_BT", "value_BT", "advantage_BT")
  arrays = {name: given.pop(name, zero_BT) for name in (*names, "return_BT")}
  assert not given, given
  return Experience(
    mask_BT=jnp.asarray(mask_BT),
    reward_BC=jnp.asarray(reward, jnp.float32),
    weight_BC=jnp.asarray(weight, jnp.float32),
    **{name: jnp.asarray(value) for name, value in arrays.items()},
  )


def ragged_mask(rng, rows, tokens, holes=True):
  """Replies of 0 to `tokens` tokens, some with unsampled tokens in between."""
  count_B1 = rng.integers(tokens + 1, size=(rows, 1))
  mask_BT = np.arange(tokens)[None] < count_B1
  return mask_BT & (rng.random((rows, tokens)) < 0.8) if holes else mask_BT
