"""Terms of single raters: planted ones are found, and the heads are better for it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepaudio_jax import losses, train, workdirs
from stepaudio_jax.core import storage
from stepaudio_jax.models import raters
from tests import test_reward_model
from tests.test_reward_model import recipe_of

little_model, start = test_reward_model.little_model, test_reward_model.start


def test_terms_by_hand():
  params = {
    "lean": jnp.asarray([[1.0, 2.0], [3.0, 4.0]]),
    "leniency": jnp.asarray([[0.1, 0.2], [0.3, 0.4]]),
  }
  rater_BJ = jnp.asarray([[1, 0, raters.NOBODY]])
  lean, leniency = raters.terms(params, rater_BJ, jnp.asarray([[False, True, False]]))
  assert lean.tolist() == [[[3.0, 4.0], [-1.0, -2.0], [0.0, 0.0]]]
  np.testing.assert_allclose(leniency, [[[0.3, 0.4], [0.1, 0.2], [0.0, 0.0]]])


def test_losses_with_terms_by_hand():
  # Δ = ½ and a lean of −1: the second is chosen at −log σ(−½). r = 1, a leniency of
  # ½ and a mark of 5: (1 + ½ − 2)².
  reward = jnp.asarray([[[0.0], [0.5]]])
  label, lean = jnp.asarray([[[2.0]]]), jnp.asarray([[[-1.0]]])
  plain = {"margin": 0.0, "scaled": False}
  total, _ = losses.bradley_terry(reward, label, lean_BJC=lean, **plain)
  assert float(total) == pytest.approx(np.log1p(np.exp(0.5)), rel=1e-6)
  score = jnp.asarray([[[[5.0]], [[np.nan]]]])
  total, _ = losses.regression(reward + 1.0, score, jnp.asarray([[[0.5]]]))
  assert float(total) == pytest.approx(0.25)
  # 2² over the one lean that is used, and the two leniencies 1² and 3²: 14 / 3.
  values = jnp.asarray([[[2.0], [9.0]]]), jnp.asarray([[[1.0], [3.0]]])
  used = jnp.asarray([[[True], [False]]]), jnp.asarray([[[True], [True]]])
  total, _ = losses.ridge(*zip(values, used, strict=True))
  assert float(total) == pytest.approx(14 / 3, rel=1e-6)


LEAN = np.asarray([1.5, -1.0, 0.0, 0.5])
LENIENCY = np.asarray([1.0, -0.8, 0.3, -0.5])


def planted(pairs=400, seed=0):
  """Two of four raters a pair; the lenient one marks mostly the worse half of pairs."""
  rng = np.random.default_rng(seed)
  true_B2 = rng.normal(size=(pairs, 2))
  order = np.argsort(true_B2.mean(1))
  first_B = np.empty(pairs, np.int32)
  first_B[order] = np.repeat([0, 1], pairs // 2)  # rater 0 has the worse half
  rater_BJ = np.stack([first_B, rng.integers(2, 4, pairs)], axis=1).astype(np.int32)
  turned_BJ = rng.random((pairs, 2)) < 0.2
  sign_BJ = np.where(turned_BJ, -1.0, 1.0)
  gap_BJ = (true_B2[:, 1] - true_B2[:, 0])[:, None] + sign_BJ * LEAN[rater_BJ]
  chosen_BJ = rng.random((pairs, 2)) < 1 / (1 + np.exp(-gap_BJ))
  label_BJ = np.where(chosen_BJ, 1.0, -1.0)
  marks = 3 + true_B2[:, :, None] + LENIENCY[rater_BJ][:, None]
  score_B2J = marks + 0.3 * rng.normal(size=marks.shape)
  return true_B2, rater_BJ, turned_BJ, label_BJ[..., None], score_B2J[..., None]


def fitted(with_terms, steps=400):
  """Free rewards of every reply, and the raters' terms, by the losses themselves."""
  true_B2, rater_BJ, turned_BJ, label_BJC, score_B2JC = planted()
  label, score = (
    jnp.asarray(label_BJC, jnp.float32),
    jnp.asarray(score_B2JC, jnp.float32),
  )
  params = {"reward": jnp.zeros((len(label), 2, 1)), "raters": raters.init_params(4, 1)}
  used_BJC = jnp.ones(label.shape, bool)

  def loss(params):
    lean = leniency = None
    if with_terms:
      lean, leniency = raters.terms(params["raters"], rater_BJ, turned_BJ)
    plain = {"margin": 0.0, "scaled": False, "lean_BJC": lean}
    total = losses.bradley_terry(params["reward"], label, **plain)[0]
    total += losses.regression(params["reward"], score, leniency)[0]
    if with_terms:
      total += 0.01 * losses.ridge((lean, used_BJC), (leniency, used_BJC))[0]
    return total / len(label)

  tx = optax.adam(0.05)

  @jax.jit
  def run(params):
    def step(carry, _):
      params, moments = carry
      with jax.numpy_dtype_promotion("standard"):
        updates, moments = tx.update(jax.grad(loss)(params), moments)
      return (optax.apply_updates(params, updates), moments), None

    return jax.lax.scan(step, (params, tx.init(params)), None, length=steps)[0][0]

  return true_B2, jax.device_get(run(params))


def test_planted_raters_are_found_and_rewards_come_nearer_to_the_truth():
  true_B2, found = fitted(True)
  _, without = fitted(False)
  np.testing.assert_allclose(found["raters"]["leniency"][:, 0], LENIENCY, atol=0.25)
  np.testing.assert_allclose(found["raters"]["lean"][:, 0], LEAN, atol=0.5)

  def error(fit):
    reward_B2 = fit["reward"][..., 0]
    return np.sqrt(np.mean((reward_B2 - reward_B2.mean() - true_B2) ** 2))

  assert error(found) < 0.6 * error(without)
  assert not without["raters"]["lean"].any()


@pytest.mark.slow
def test_a_run_learns_them_and_leaves_them_behind(start, tmp_path):
  """One rater always calls the first reply better, in two of three rows wrongly."""
  path = test_reward_model.write_preferences(tmp_path, pairs=12)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    if row["rater"] == "r1":
      row["overall"] = -3
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  c = recipe_of(start, steps=12, **{"raters.room": 3, "raters.ridge": 0.01})
  c.data.options.preference.path, c.data.pack = str(path), True
  c.optim.lr = 0.02
  train.run(c, tmp_path / "rm")
  leaves = dict(
    storage.Leaves(tmp_path / "rm").read(["raters/lean", "raters/leniency"])
  )
  assert json.loads((tmp_path / "rm" / "raters.json").read_text()) == ["r0", "r1"]
  lean = leaves["raters/lean"]
  assert lean[1, 0] < -0.05
  assert lean[1, 0] < lean[0, 0] - 0.05
  assert lean[1, 1] == 0.0  # r1 says nothing of naturalness but by marks
  assert not lean[2].any()  # room that nobody took
  assert "raters" not in workdirs.load_reward_model(tmp_path / "rm").params


def test_more_raters_than_room_are_told(start, tmp_path):
  c = recipe_of(start, **{"raters.room": 1, "raters.ridge": 0.1})
  with pytest.raises(
    ValueError, match=r"raters.room=1, but there are 2: \['r0', 'r1'\]$"
  ):
    train.run(c, tmp_path / "rm")
