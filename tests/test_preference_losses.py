"""Losses of a reward model against arithmetic by hand and independent numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import losses
from stepaudio_jax.core import masked

NAN = float("nan")
PLAIN = {"margin": 0.0, "scaled": False}


def log_sigmoid(x):
  return -math.log1p(math.exp(-x))


def pair(*dimensions):
  """reward_B2C of one comparison from (first, second) of each dimension."""
  return jnp.asarray(dimensions, jnp.float32).T[None]


def labels(*raters):
  return jnp.asarray(raters, jnp.float32)[None]


def test_choices_ties_and_margins_by_hand():
  # Δ = 0.5. The second is preferred by 2 levels: −log σ(Δ − 0.1·2) = −log σ(0.3).
  # The first by 1: −log σ(−Δ − 0.1). A tie: ½(−log σ(Δ) − log σ(−Δ)), no margin.
  total, metrics = losses.bradley_terry(
    pair((1.0, 1.5)), labels([2.0], [-1.0], [0.0]), margin=0.1, scaled=False
  )
  tie = -0.5 * (log_sigmoid(0.5) + log_sigmoid(-0.5))
  expected = (-log_sigmoid(0.3) - log_sigmoid(-0.6) + tie) / 3
  assert float(total) == pytest.approx(expected, rel=1e-6)
  assert float(metrics["loss"].count) == 1


def test_scaled_form_by_hand():
  total, _ = losses.bradley_terry(
    pair((1.0, 1.5)), labels([3.0], [0.0]), margin=0.0, scaled=True
  )
  tie = -0.5 * (log_sigmoid(0.5) + log_sigmoid(-0.5))
  assert float(total) == pytest.approx((-3 * log_sigmoid(0.5) + tie) / 2, rel=1e-6)


def test_several_raters_are_a_soft_label():
  # Two of three call the second better: the cross-entropy of σ(Δ) to ⅔.
  total, _ = losses.bradley_terry(
    pair((0.0, 0.8)), labels([2.0], [1.0], [-1.0]), **PLAIN
  )
  expected = -(2 * log_sigmoid(0.8) + log_sigmoid(-0.8)) / 3
  assert float(total) == pytest.approx(expected, rel=1e-6)


def test_margin_and_scale_exclude_each_other():
  reward, label = pair((0.0, 0.0)), labels([1.0])
  with pytest.raises(ValueError, match=r"margin=0.5 with scaled=True"):
    losses.bradley_terry(reward, label, margin=0.5, scaled=True)
  with pytest.raises(ValueError, match=r"margin=-0.5"):
    losses.bradley_terry(reward, label, margin=-0.5, scaled=False)


@pytest.mark.parametrize("gap", [1e4, -1e4])
@pytest.mark.parametrize("label", [-2.0, 0.0, 1.0])
def test_huge_gaps_overflow_nowhere(gap, label):
  def loss(reward):
    return losses.bradley_terry(reward, labels([label]), **PLAIN)[0]

  value, gradient = jax.value_and_grad(loss)(pair((0.0, gap)))
  # −log σ(sΔ) → |Δ| on the wrong side, 0 on the right one; a tie costs |Δ| / 2.
  expected = 5e3 if label == 0 else 1e4 * (label * gap < 0)
  assert float(value) == pytest.approx(expected)
  assert np.isfinite(gradient).all()


def numpy_bradley_terry(reward_B2C, label_BJC, margin):
  """One label at a time; the mean of each comparison's labels."""
  sums, compared = 0.0, 0
  for reward_2C, label_JC in zip(reward_B2C, label_BJC, strict=True):
    nats = []
    for label_C in label_JC:
      for (first, second), label in zip(reward_2C.T, label_C, strict=True):
        if math.isnan(label) or math.isnan(first):
          continue
        gap = float(second - first)
        if label == 0:
          nats.append(-0.5 * (log_sigmoid(gap) + log_sigmoid(-gap)))
        else:
          nats.append(
            -log_sigmoid(math.copysign(gap, gap * label) - margin * abs(label))
          )
    if nats:
      sums, compared = sums + sum(nats) / len(nats), compared + 1
  return sums, compared


def random_batch(seed=0, rows=6):
  rng = np.random.default_rng(seed)
  reward_B2C = rng.normal(size=(rows, 2, 3)).astype(np.float32)
  label_BJC = rng.integers(-3, 4, size=(rows, 4, 3)).astype(np.float32)
  label_BJC[rng.random(label_BJC.shape) < 0.3] = np.nan
  label_BJC[1] = np.nan  # nobody judged this one
  score_B2JC = rng.integers(1, 6, size=(rows, 2, 4, 3)).astype(np.float32)
  score_B2JC[rng.random(score_B2JC.shape) < 0.3] = np.nan
  score_B2JC[2] = np.nan
  return reward_B2C, label_BJC, score_B2JC


def test_against_a_loop_in_numpy():
  reward, label, _ = random_batch()
  total, metrics = losses.bradley_terry(reward, label, margin=0.2, scaled=False)
  expected, compared = numpy_bradley_terry(reward, label, 0.2)
  assert float(total) == pytest.approx(expected, rel=1e-5)
  assert float(metrics["loss"].count) == compared == 5


def test_regression_by_hand():
  # Marks 5 and 4 of the first reply, 1 of the second; r = 1 and −1:
  # (1 − 2)² + (1 − 1)² + (−1 + 2)² = 2, over three marks.
  score_B2JC = jnp.asarray([[[[5.0], [4.0]], [[1.0], [NAN]]]])
  total, metrics = losses.regression(pair((1.0, -1.0)), score_B2JC)
  assert float(total) == pytest.approx(2 / 3, rel=1e-6)
  assert float(metrics["loss"].count) == 1


def test_centring_by_hand():
  # (0.5 + 1)² = 2.25 and (−1 + 1)² = 0, over two dimensions
  total, metrics = losses.centring(
    pair((0.5, 1.0), (-1.0, 1.0)), jnp.ones((1, 2), bool)
  )
  assert float(total) == pytest.approx(2.25 / 2)
  assert float(metrics["loss"].count) == 1


def every_loss(reward, label, score):
  return (
    losses.bradley_terry(reward, label, margin=0.1, scaled=False)[0]
    + losses.regression(reward, score)[0]
    + losses.centring(reward, ~jnp.isnan(label).all(1))[0]
  )


def test_missing_labels_and_replies_give_no_gradient():
  reward, label, score = random_batch()
  label[0, :, 1], score[0, :, :, 1] = np.nan, np.nan
  reward[3] = np.nan  # no reply was there to be read

  def judged(reward):
    parts = losses.bradley_terry(reward, label, **PLAIN)[0]
    return parts + losses.regression(reward, score)[0]

  gradient = np.asarray(jax.grad(judged)(jnp.asarray(reward)))
  assert np.isfinite(gradient).all()
  assert not gradient[0, :, 1].any()
  assert not gradient[3].any()
  assert gradient[0, :, [0, 2]].all()
  everything = jax.grad(every_loss)(jnp.asarray(reward), label, score)
  assert np.isfinite(everything).all()


def test_micro_batches_add_up():
  batch = random_batch()
  whole = every_loss(*map(jnp.asarray, batch))
  parts = [every_loss(*(x[k : k + 2] for x in batch)) for k in (0, 2, 4)]
  assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)
  counts = [losses.bradley_terry(*b, **PLAIN)[1]["loss"].count for b in (batch[:2],)]
  halves = [
    losses.bradley_terry(batch[0][k : k + 3], batch[1][k : k + 3], **PLAIN)[1]["loss"]
    for k in (0, 3)
  ]
  assert float(sum(half.count for half in halves)) == float(counts[0]) == 5


def test_accuracy_counts_decided_choices_and_half_an_equal_reward():
  reward = jnp.concatenate([pair((0.0, 1.0), (2.0, 2.0)), pair((0.0, -1.0), (0, 1))])
  label = jnp.asarray([[[1.0, 3.0], [0.0, NAN]], [[2.0, 0.0], [-1.0, NAN]]])
  first, second = losses.choices_right(reward, label)
  # Dimension 0: +1 right, tie left out, +2 wrong, −1 right. 1: ½ for an equal reward.
  assert (float(first.total), float(first.count)) == (2.0, 3.0)
  assert float(masked.ratio(second)) == 0.5
  assert float(second.count) == 1
