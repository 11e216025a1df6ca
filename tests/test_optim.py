import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from stepaudio_jax import optim

BASE = {
  "name": "sgd",
  "lr": 1.0,
  "schedule": "linear",
  "warmup_steps": 4,
  "b1": 0.9,
  "b2": 0.999,
  "eps": 1e-8,
  "weight_decay": 0.0,
  "clip_norm": 0.0,
}


def test_the_keys_are_those_of_the_recipes():
  assert set(optim.KEYS) == set(BASE)


def test_warm_up_begins_above_zero_and_the_line_ends_at_zero():
  rate = optim.schedule(ConfigDict(BASE), 12)
  # Updates 1…4 rise by quarters; then a line over 8 updates down to 0 after the last.
  np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0])
  np.testing.assert_allclose([rate(i) for i in (7, 11)], [0.5, 0.0], atol=1e-7)


def test_cosine_is_half_way_down_in_the_middle():
  rate = optim.schedule(ConfigDict(BASE | {"schedule": "cosine"}), 12)
  assert float(rate(7)) == pytest.approx(0.5)


def test_without_warm_up_the_first_update_has_the_full_rate():
  c = ConfigDict(BASE | {"warmup_steps": 0, "schedule": "constant"})
  assert float(optim.schedule(c, 5)(0)) == 1.0


def test_the_clip_bounds_the_global_norm():
  c = ConfigDict(BASE | {"clip_norm": 1.0, "warmup_steps": 0, "schedule": "constant"})
  tx = optim.optimiser(c, 5)
  grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}  # norm 5
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_allclose(
    [updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6
  )


def test_only_kernels_and_embeddings_decay():
  c = ConfigDict(
    BASE
    | {"name": "adamw", "weight_decay": 0.1, "warmup_steps": 0, "schedule": "constant"}
  )
  params = {
    name: {"leaf": {name: jnp.ones(2)}} for name in ("kernel", "scale", "bias")
  } | {"embed": {"embedding": jnp.ones(2)}}
  zeros = jax.tree.map(jnp.zeros_like, params)
  tx = optim.optimiser(c, 5)
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = tx.update(zeros, tx.init(params), params)
  moved = {k: float(jax.tree.leaves(v)[0][0]) for k, v in updates.items()}
  assert moved["kernel"] == pytest.approx(-0.1)
  assert moved["embed"] == pytest.approx(-0.1)
  assert moved["scale"] == moved["bias"] == 0.0
