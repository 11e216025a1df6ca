"""Parts of the algorithms against arithmetic by hand and plain loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax.rl.parts import (
  aggregate,
  agreement,
  clip,
  dimensions,
  gae,
  groups,
  kl,
  whiten,
)
from stepaudio_jax.rl.parts.hyper import settled
from tests.rl import numpy_twin as twin
from tests.rl.experiences import experience_of, ragged_mask

NAN = math.nan


def close(got, wanted, atol=1e-5):
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=atol)


def array(x):
  return jnp.asarray(x, jnp.float32)


def test_groups_by_hand():
  # Rewards 1 0 0 3: mean 1, squares 0+1+1+4 = 6, std √(6/3) = √2.
  # Then 2 NaN 4: of two known, mean 3, std √2; the last group knows one alone.
  x_BC = array([[1.0, 0, 0, 3], [2, NAN, 4, NAN], [NAN, 7, NAN, NAN]]).reshape(-1, 1)
  deviation_BC, std_BC = groups.deviations(x_BC, 4)
  close(deviation_BC[:, 0], [0, -1, -1, 2, -1, NAN, 1, NAN] + [NAN] * 4)
  close(std_BC[:, 0], [math.sqrt(2)] * 8 + [NAN] * 4)


def test_groups_against_loops():
  rng = np.random.default_rng(0)
  x_BC = rng.normal(size=(30, 3)).astype(np.float32)
  x_BC[rng.random(x_BC.shape) < 0.3] = NAN
  x_BC[4, 1] = np.inf  # not finite is missing, too
  got_BC = jax.jit(groups.standardised, static_argnums=(1, 2))(array(x_BC), 5, 0.3)
  for c in range(3):
    close(got_BC[:, c], twin.group_advantages(x_BC[:, c], 5, 0.3))


@pytest.mark.parametrize("reward", [0.1, 0.3, 1e4 / 3, -7.77])
def test_equal_rewards_have_exactly_no_advantage(reward):
  # The mean of three float32 0.1 is not 0.1; over the floor 1e-4 that shows.
  got_BC = groups.standardised(jnp.full((6, 1), reward, jnp.float32), 3, 1e-8)
  assert np.array_equal(got_BC, np.zeros((6, 1)))


def test_near_ties_stay_small():
  # training.md: near-ties of 1e-6 must not become |A| ≈ 0.8. Spread 1e-6 over 1e-4.
  got_BC = groups.standardised(array([[0.0], [1e-6]]), 2, 1e-4)
  close(got_BC[:, 0], [-0.005, 0.005], atol=1e-7)


def test_impossible_groups_raise():
  with pytest.raises(ValueError, match="group=1"):
    groups.deviations(jnp.zeros((4, 1)), 1)
  with pytest.raises(ValueError, match=r"5 replies .* groups of 2"):
    groups.deviations(jnp.zeros((5, 1)), 2)


def test_weighted_sum_by_hand():
  # 2·1 + (−1)·3 = −1; a missing reward counts only where it has a weight.
  # The last row belongs to another stream: 4·9.
  weight_BC = array([[2, -1, 0]] * 4 + [[0, 0, 4]])
  reward_BC = array(
    [[1, 3, 9], [1, 3, NAN], [1, NAN, 9], [np.inf, 3, 9], [NAN, NAN, 9]]
  )
  close(dimensions.weighted_sum(reward_BC, weight_BC), [-1, -1, NAN, NAN, 36])
  with pytest.raises(ValueError, match=r"\(5, 2\)"):
    dimensions.weighted_sum(reward_BC, weight_BC[:, :2])


def test_statistics_by_hand():
  # Dimension 0: groups (0, 2) and (1, 1). A = ∓1/√2 and 0, 0; dimension 1: (NaN, 5)
  # has no statistics, (0, 4): ∓1/√2. Dimension 2 is never known. Weights 3, −1, 1:
  # Σ|wA| = 3·2/√2 and 2/√2, of which the shares are 3/4 and 1/4.
  reward_BC = array([[0, NAN, NAN], [2, 5, NAN], [1, 0, NAN], [1, 4, NAN]])
  got = dimensions.statistics(reward_BC, array([[3, -1, 1]] * 4), 2, 1e-4)
  half = 1 / math.sqrt(2)
  close(got["raw"], [1, 3, NAN])
  close(got["std"], [math.sqrt(2) / 2, 4 * half, NAN])
  close(got["norm"], [half / 2, half, NAN])
  close(got["weighted"], [3 * half / 2, half, NAN])
  close(got["share"], [0.75, 0.25, NAN])
  close(got["no_spread"], [0.5, 0.5, 1])
  close(got["missing"], [0, 0.25, 1])


def test_statistics_against_loops():
  rng = np.random.default_rng(1)
  reward_BC = rng.normal(size=(24, 4)).astype(np.float32)
  reward_BC[:, 1] = (reward_BC[:, 1] > 0.8).astype(np.float32)  # groups without spread
  reward_BC[rng.random(reward_BC.shape) < 0.4] = NAN
  weight_BC = np.tile(np.float32([1.0, 0.5, 0.0, -2.0]), (24, 1))
  weight_BC[12:] = [0.0, 3.0, 1.0, 0.0]
  function = jax.jit(dimensions.statistics, static_argnums=(2, 3))
  got = function(array(reward_BC), array(weight_BC), 4, 0.2)
  wanted = twin.dimension_statistics(reward_BC, weight_BC, 4, 0.2)
  assert set(got) == set(wanted[0])
  for name, value_C in got.items():
    close(value_C, [one[name] for one in wanted])


def test_whiten_by_hand_and_against_loops():
  # 1 3 5: mean 3, squares 4+0+4, std √(8/3).
  x_BT, mask_BT = array([[1, NAN, 3], [NAN, 5, 9]]), [[1, 0, 1], [0, 1, 0]]
  got_BT = whiten.whitened(x_BT, jnp.array(mask_BT, bool))
  step = 2 / math.sqrt(8 / 3)
  close(got_BT, [[-step, 0, 0], [0, step, 0]])
  x_B = np.random.default_rng(2).normal(3, 5, size=40).astype(np.float32)
  got_B = whiten.whitened(array(x_B), jnp.ones(40, bool))
  close(got_B, twin.whitened(x_B.tolist()))


@pytest.mark.parametrize("mask", [[True] * 5, [True] + [False] * 4, [False] * 5])
def test_whiten_without_spread_is_zero(mask):
  got_B = whiten.whitened(jnp.full(5, 1e4 / 3, jnp.float32), jnp.array(mask))
  assert np.array_equal(got_B, np.zeros(5))


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


def test_agreement_against_loops():
  rng = np.random.default_rng(7)
  mask_BT = ragged_mask(rng, 6, 7)
  sampler_BT = rng.normal(-2, 1, size=(6, 7)).astype(np.float32)
  old_BT = (sampler_BT + rng.normal(0, 0.4, size=(6, 7))).astype(np.float32)
  wanted = twin.agreement(sampler_BT, old_BT, mask_BT)
  sampler_BT[~mask_BT], old_BT[~mask_BT] = NAN, 1e6
  got = jax.jit(agreement.agreement)(
    array(sampler_BT), array(old_BT), jnp.array(mask_BT)
  )
  assert set(got) == set(wanted)
  for name, value in wanted.items():
    assert float(got[name]) == pytest.approx(value, rel=1e-4), name
  # Sampler ½ ½, trainer ¾ ¼, one of each: ½(1.5 + .5) − 1 − ½ ln(1.5 · .5) = .1438;
  # the other way round it would be ½(2/3 + 2) − 1 + ½ ln(…) = .1895.
  got = agreement.agreement(
    jnp.log(array([[0.5, 0.5]])), jnp.log(array([[0.75, 0.25]])), jnp.ones((1, 2), bool)
  )
  assert float(got["mean_kl"]) == pytest.approx(-math.log(0.75) / 2, rel=1e-5)
  assert float(got["max_abs"]) == pytest.approx(math.log(2), rel=1e-5)
  assert math.isnan(float(got["pearson"]))  # one side is constant


def test_agreement_of_nothing_is_nan():
  got = agreement.agreement(
    jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool)
  )
  assert all(math.isnan(float(value)) for value in got.values())


def test_settled_takes_what_is_given_and_checks_it():
  defaults = {"clip_low": 0.2, "dual_clip": 3.0, "normalisation": "sum"}
  defaults |= {"gamma": 1.0, "whiten": True}
  assert vars(settled(defaults, {"dual_clip": 0})) == {**defaults, "dual_clip": 0}
  with pytest.raises(TypeError, match=r"clip_hgih.*the hyper-parameters are"):
    settled(defaults, {"clip_hgih": 0.2})
  for name, value in (
    ("clip_low", 0),
    ("clip_low", 1.5),
    ("clip_low", NAN),
    ("clip_low", "0.2"),
    ("clip_low", True),
    ("dual_clip", 0.9),
    ("dual_clip", NAN),
    ("dual_clip", math.inf),
    ("normalisation", "mean"),
    ("gamma", 1.1),
    ("gamma", -0.1),
    ("whiten", 1),
  ):
    with pytest.raises(ValueError, match=name):
      settled(defaults, {name: value})
