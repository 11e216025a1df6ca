"""What is asked of every token, against arithmetic by hand and plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.rl.parts import aggregate, clip, gae, kl
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, experience_of, ragged_mask

NAN = math.nan


def test_gae_by_hand():
  # γ = ½, λ = ½; tokens 0, 2, 3 sampled: r = 0 0 1, v = 1 2 4, and 0 after the end.
  # δ: 0+½·2−1 = 0; 0+½·4−2 = 0; 1−4 = −3. A: −3/16, −3/4, −3 (γλ = ¼).
  got_BT = gae.gae(
    array([[0, 9, 0, 1, 9]]),
    array([[1, NAN, 2, 4, 9]]),
    jnp.array([[1, 0, 1, 1, 0]], bool),
    0.5,
    0.5,
  )
  close(got_BT, [[-3 / 16, 0, -3 / 4, -3, 0]])


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 1.0), (0.9, 0.8), (0.7, 0.0)])
def test_gae_against_loops(gamma, lambda_):
  rng = np.random.default_rng(3)
  mask_BT = ragged_mask(rng, 8, 9)
  reward_BT, value_BT = rng.normal(size=(2, 8, 9)).astype(np.float32)
  got_BT = jax.jit(gae.gae)(
    array(reward_BT), array(value_BT), jnp.array(mask_BT), gamma, lambda_
  )
  close(got_BT, twin.gae(reward_BT, value_BT, mask_BT, gamma, lambda_))


@pytest.mark.parametrize("estimator", kl.ESTIMATORS)
def test_kl_against_loops(estimator):
  d_B = np.array([-30, -20, -3, -0.1, 0, 1e-3, 0.5, 4, 30], np.float32)
  got_BT = kl.kl(array(d_B)[None] - 50, jnp.full((1, 9), -50.0), estimator)
  close(got_BT[0], [twin.kl(float(d), 0.0, estimator) for d in d_B], atol=1e-4)


def test_kl_is_exact_over_the_whole_vocabulary():
  # Σ_v π_v · estimate_v with no sampling at all. KL by its definition, in float64.
  rng = np.random.default_rng(4)
  logits_V, other_V = rng.normal(size=(2, 11))
  pi_V = np.exp(logits_V) / np.exp(logits_V).sum()
  reference_V = np.exp(other_V) / np.exp(other_V).sum()
  exact = float(np.sum(pi_V * (np.log(pi_V) - np.log(reference_V))))
  for estimator in ("k1", "k3", "k3_k2"):
    got_V = kl.kl(array(np.log(pi_V)), array(np.log(reference_V)), estimator)
    assert float(pi_V @ got_V) == pytest.approx(exact, rel=1e-5), estimator

  # And E_π[∇ k2] is the gradient of the exact KL, which E_π[∇ k3] is not.
  def expected(logits, estimator):
    now_V = jax.nn.log_softmax(logits)
    return (array(pi_V) * kl.kl(now_V, array(np.log(reference_V)), estimator)).sum()

  wanted_V = pi_V * (np.log(pi_V / reference_V) - exact)
  close(jax.grad(expected)(array(logits_V), "k2"), wanted_V)
  close(jax.grad(expected)(array(logits_V), "k3_k2"), wanted_V)
  assert np.abs(jax.grad(expected)(array(logits_V), "k3") - wanted_V).max() > 0.01


def test_k3_k2_has_the_value_of_one_and_the_gradient_of_the_other():
  now_B, reference_B = array([-1.0, -2.5, -40, -0.1]), array([-3.0, -2.0, -1, -40])

  def one(estimator):
    grad_B = jax.grad(lambda x: kl.kl(x, reference_B, estimator).sum())(now_B)
    return np.array(kl.kl(now_B, reference_B, estimator)), np.array(grad_B)

  both, k2, k3 = one("k3_k2"), one("k2"), one("k3")
  assert np.array_equal(both[0], k3[0])
  assert np.array_equal(both[1], k2[1])
  # d = 2, −½, and beyond the limits −20 and 20: still pulled back, never by more.
  close(both[1], [2, -0.5, -20, 20])
  assert not np.allclose(k2[0], k3[0])
  far = jax.grad(lambda x: kl.kl(now_B, x, "k3").sum())(reference_B)
  assert np.array_equal(far, np.zeros(4))  # the reference learns nothing


def test_unknown_estimator_lists_the_choices():
  with pytest.raises(ValueError, match=r"'k4'.*k1.*k3_k2"):
    kl.kl(jnp.zeros(1), jnp.zeros(1), "k4")


def loss_of(ratio, advantage, low=0.2, high=0.3, dual=3.0):
  """Loss, d loss / d now and extras of one token."""
  experience = experience_of([[1]], old_BT=[[-1.0]], advantage_BT=[[advantage]])

  def total(now_BT):
    loss_BT, extras = clip.clipped_loss(
      now_BT, experience, clip_low=low, clip_high=high, dual_clip=dual
    )
    return loss_BT.sum(), extras

  now_BT = array([[math.log(ratio) - 1.0]])
  (loss, extras), grad_BT = jax.value_and_grad(total, has_aux=True)(now_BT)
  names = {name for name, value in extras.items() if name != "ratio" and value[0, 0]}
  assert float(extras["ratio"][0, 0]) == pytest.approx(ratio, rel=1e-5)
  return float(loss), float(grad_BT[0, 0]), names


@pytest.mark.parametrize(
  ("ratio", "advantage", "loss", "grad", "clipped"),
  [
    (1.0, 2.0, -2.0, -2.0, set()),  # d(−rA)/d log π = −rA
    (1.2, 2.0, -2.4, -2.4, set()),
    (1.5, 2.0, -2.6, 0.0, {"clip_high"}),  # −(1 + .3)·2
    (0.5, 2.0, -1.0, -1.0, set()),  # worse than before: never clipped
    (0.5, -2.0, 1.6, 0.0, {"clip_low"}),  # −(1 − .2)·(−2)
    (1.5, -2.0, 3.0, 3.0, set()),
    (4.0, -2.0, 6.0, 0.0, {"clip_dual"}),  # 3·2
    (4.0, 0.0, 0.0, 0.0, set()),
  ],
)
def test_clip_by_hand(ratio, advantage, loss, grad, clipped):
  got = loss_of(ratio, advantage)
  assert got[:2] == pytest.approx((loss, grad), rel=1e-5, abs=1e-6)
  assert got[2] == clipped


def test_dual_clip_can_be_off():
  assert loss_of(4.0, -2.0, dual=0.0) == (
    pytest.approx(8.0, rel=1e-5),
    pytest.approx(8.0, rel=1e-5),
    set(),
  )


def test_clip_against_loops_and_without_a_gradient_outside_the_mask():
  rng = np.random.default_rng(5)
  mask_BT = ragged_mask(rng, 12, 10)
  now_BT, old_BT = rng.normal(-2, 1, size=(2, 12, 10)).astype(np.float32)
  advantage_BT = rng.normal(size=(12, 10)).astype(np.float32)
  now_BT[0] += 60.0  # beyond what exp may take
  wanted_BT = twin.clipped_loss(now_BT, old_BT, advantage_BT, mask_BT, 0.1, 0.3, 2.0)
  for x_BT in (old_BT, advantage_BT):
    x_BT[~mask_BT] = NAN
  experience = experience_of(mask_BT, old_BT=old_BT, advantage_BT=advantage_BT)

  def total(x_BT):
    loss_BT, extras = clip.clipped_loss(
      x_BT, experience, clip_low=0.1, clip_high=0.3, dual_clip=2.0
    )
    return loss_BT.sum(), (loss_BT, extras)

  gradient = jax.jit(jax.grad(total, has_aux=True))
  grad_BT, (loss_BT, extras) = gradient(array(now_BT))
  close(loss_BT, wanted_BT)
  assert np.array_equal(np.array(grad_BT)[~mask_BT], np.zeros((~mask_BT).sum()))
  assert np.isfinite(grad_BT).all()
  assert np.abs(np.array(grad_BT)[mask_BT]).sum() > 0
  for value_BT in extras.values():
    assert np.array_equal(np.array(value_BT)[~mask_BT], np.zeros((~mask_BT).sum()))
    assert np.array(value_BT)[mask_BT].sum() > 0


def test_aggregate_by_hand():
  # Rows 1 2 | 6 | none: 9/3 tokens; 1.5 + 6 over two rows; 9/4 over two rows.
  loss_BT = array([[1, 2, 99], [6, 99, 99], [99, NAN, 99]])
  mask_BT = jnp.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
  for how, constant, total, count in (
    ("token_mean", None, 9, 3),
    ("sequence_mean_token_mean", None, 7.5, 2),
    ("constant", 4, 2.25, 2),
  ):
    got = aggregate.aggregate(loss_BT, mask_BT, how, constant)
    assert (float(got.total), float(got.count)) == (total, count), how


@pytest.mark.parametrize("how", aggregate.CHOICES)
def test_aggregates_of_micro_batches_add_up_to_that_of_the_batch(how):
  rng = np.random.default_rng(6)
  constant = 8 if how == "constant" else None
  mask_BT = ragged_mask(rng, 12, 8)
  # Whole multiples of 840 divide by every count up to 8: sums without rounding.
  loss_BT = (840 * rng.integers(-9, 9, size=(12, 8))).astype(np.float32)
  whole = aggregate.aggregate(array(loss_BT), jnp.array(mask_BT), how, constant)
  part = [
    aggregate.aggregate(array(loss_BT[rows]), jnp.array(mask_BT[rows]), how, constant)
    for rows in (slice(0, 1), slice(1, 7), slice(7, 12))
  ]
  added = part[0] + part[1] + part[2]
  assert (float(added.total), float(added.count)) == (
    float(whole.total),
    float(whole.count),
  )
  assert (float(whole.total), float(whole.count)) == twin.aggregate(
    loss_BT, mask_BT, how, constant
  )
  grad_BT = jax.grad(
    lambda x: aggregate.aggregate(x, jnp.array(mask_BT), how, constant).total
  )(array(loss_BT))
  assert np.array_equal(np.array(grad_BT) != 0, mask_BT)


@pytest.mark.parametrize(
  ("how", "constant", "message"),
  [
    ("mean", None, "'mean'.*token_mean.*constant"),
    ("constant", None, "only 'constant'"),
    ("token_mean", 3, "only 'constant'"),
    ("constant", 0, "constant=0"),
    ("constant", NAN, "constant=nan"),
  ],
)
def test_impossible_aggregations_raise(how, constant, message):
  with pytest.raises(ValueError, match=message):
    aggregate.aggregate(jnp.zeros((1, 1)), jnp.ones((1, 1), bool), how, constant)
