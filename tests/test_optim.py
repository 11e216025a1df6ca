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
  "b1": 0.0,
  "b2": 0.0,
  "eps": 0.0,
  "weight_decay": 0.0,
  "clip_norm": 0.0,
}
FLAT = {"warmup_steps": 0, "schedule": "constant"}
ADAMW = {"name": "adamw", "b1": 0.9, "b2": 0.999, "eps": 1e-8}


def updates_of(changes, gradients, params):
  """What each of the gradients adds to the parameters."""
  tx = optim.optimiser(ConfigDict(BASE | FLAT | changes), 5)
  state, found = tx.init(params), []
  for grads in gradients:
    with jax.numpy_dtype_promotion("standard"):
      updates, state = tx.update(grads, state, params)
    found.append(updates)
  return found


def test_the_keys_are_those_of_the_recipes():
  assert set(optim.KEYS) == set(BASE)


def test_warm_up_begins_above_zero_and_the_line_ends_above_zero():
  rate = optim.schedule(ConfigDict(BASE), 11)
  # Updates 1…4 rise by quarters; then a line, to be 0 at the 12th, falls by eighths.
  wanted = [0.25, 0.5, 0.75, 1.0, *(k / 8 for k in range(7, 0, -1))]
  np.testing.assert_allclose([rate(i) for i in range(11)], wanted, rtol=1e-6)


def test_a_line_without_warm_up_starts_whole_and_ends_above_zero():
  rate = optim.schedule(ConfigDict(BASE | {"warmup_steps": 0}), 4)
  np.testing.assert_allclose([rate(i) for i in range(4)], [1.0, 0.75, 0.5, 0.25])


def test_cosine_is_half_way_down_in_the_middle():
  rate = optim.schedule(ConfigDict(BASE | {"schedule": "cosine"}), 11)
  # Update 4 has the full rate and update 12 would have none: the middle is update 8.
  assert float(rate(7)) == pytest.approx(0.5)
  # ½(1 + cos(⅞π)) = ½(1 − 0.92388)
  assert float(rate(10)) == pytest.approx(0.03806, rel=1e-3)


def test_without_warm_up_the_first_update_has_the_full_rate():
  assert float(optim.schedule(ConfigDict(BASE | FLAT), 5)(0)) == 1.0


def test_the_clip_bounds_the_global_norm():
  grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}  # norm 5
  (updates,) = updates_of({"clip_norm": 1.0}, [grads], grads)
  np.testing.assert_allclose(
    [updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6
  )


def test_sgd_has_momentum_and_decay():
  params = {"kernel": jnp.array([2.0])}
  grads = {"kernel": jnp.array([1.0])}
  changes = {"lr": 0.1, "b1": 0.5, "weight_decay": 0.25}
  first, second = updates_of(changes, [grads, grads], params)
  # Gradient with decay: 1 + 0.25·2 = 1.5. Its trace: 1.5, then 1.5 + 0.5·1.5 = 2.25.
  assert float(first["kernel"][0]) == pytest.approx(-0.15)
  assert float(second["kernel"][0]) == pytest.approx(-0.225)


@pytest.mark.parametrize("name", ["b2", "eps"])
def test_sgd_refuses_what_it_would_not_read(name):
  with pytest.raises(ValueError, match=rf"'sgd' has no \{{'{name}': 0\.5\}}"):
    updates_of({name: 0.5}, [], {})


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_only_kernels_and_embeddings_decay(name):
  known = {"sgd": {}, "adamw": ADAMW, "muon": ADAMW | {"name": "muon"}}
  changes = known[name] | {"weight_decay": 0.1}
  params = {
    name: {"leaf": {name: jnp.ones(2)}} for name in ("kernel", "scale", "bias")
  } | {"embed": {"embedding": jnp.ones(2)}}
  (updates,) = updates_of(changes, [jax.tree.map(jnp.zeros_like, params)], params)
  moved = {k: float(jax.tree.leaves(v)[0][0]) for k, v in updates.items()}
  assert moved["kernel"] == pytest.approx(-0.1)
  assert moved["embed"] == pytest.approx(-0.1)
  assert moved["scale"] == moved["bias"] == 0.0


def orthogonal(matrix):
  """Five Newton-Schulz steps with the quintic of Muon, in numpy."""
  a, b, c = 3.4445, -4.775, 2.0315
  x = matrix / np.linalg.norm(matrix)
  for _ in range(5):
    gram = x @ x.T
    x = a * x + (b * gram + c * gram @ gram) @ x
  return x


def model_like(rng):
  """Leaves named as the model's; heads of 2 × 3 in a width of 4, two layers."""
  shapes = {
    "adaptor/conv/kernel": (3, 4, 5),
    "adaptor/linear1/bias": (4,),
    "decoder/embed/embedding": (7, 4),
    "decoder/head/kernel": (4, 7),
    "decoder/layers/attn/out/kernel": (2, 2, 3, 4),
    "decoder/layers/attn/query/kernel": (2, 4, 2, 3),
    "decoder/layers/attn_norm/scale": (2, 4),
    "decoder/layers/mlp/up/kernel": (2, 4, 8),
    "rewards/linear/kernel": (4, 3),
  }
  tree = {}
  for path, shape in shapes.items():
    *rooms, name = path.split("/")
    node = tree
    for room in rooms:
      node = node.setdefault(room, {})
    node[name] = jnp.asarray(rng.standard_normal(shape), jnp.float32)
  return tree


def test_muon_makes_the_first_update_of_every_matrix_orthogonal():
  rng = np.random.default_rng(0)
  params, grads = model_like(rng), model_like(rng)
  (got,) = updates_of(ADAMW | {"name": "muon", "lr": 0.1}, [grads], params)
  # The first momentum is a multiple of the gradient, whose size does not matter.
  matrices = {  # as rows in × columns out, layer by layer
    ("adaptor", "conv"): [(None, (12, 5))],
    ("decoder", "layers", "attn", "out"): [(0, (6, 4)), (1, (6, 4))],
    ("decoder", "layers", "attn", "query"): [(0, (4, 6)), (1, (4, 6))],
    ("decoder", "layers", "mlp", "up"): [(0, (4, 8)), (1, (4, 8))],
  }
  for rooms, parts in matrices.items():
    grad, update = grads, got
    for room in (*rooms, "kernel"):
      grad, update = grad[room], update[room]
    for layer, shape in parts:
      one = np.asarray(grad if layer is None else grad[layer]).reshape(shape)
      mine = np.asarray(update if layer is None else update[layer]).reshape(shape)
      wide = orthogonal(one.T).T if shape[0] > shape[1] else orthogonal(one)
      wanted = -0.1 * 0.2 * max(shape) ** 0.5 * wide
      np.testing.assert_allclose(mine, wanted, atol=2e-5, err_msg=str(rooms))


def test_muon_leaves_embeddings_heads_and_vectors_to_adamw():
  rng = np.random.default_rng(1)
  params, grads = model_like(rng), model_like(rng)
  changes = ADAMW | {"weight_decay": 0.1}
  (muon,) = updates_of(changes | {"name": "muon"}, [grads], params)
  (adamw,) = updates_of(changes, [grads], params)
  for tree in (muon, adamw):  # what the test above is about
    del tree["adaptor"]["conv"]
    for room in ("attn", "mlp"):
      del tree["decoder"]["layers"][room]
  jax.tree.map(np.testing.assert_array_equal, muon, adamw)
  assert len(jax.tree.leaves(muon)) == 5
