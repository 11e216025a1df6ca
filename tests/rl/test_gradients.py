"""Losses of GSPO and CISPO, and every algorithm's gradient by finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import rl
from stepaudio_jax.rl import cispo, gspo
from stepaudio_jax.rl.parts.aggregate import aggregate
from tests.rl import numpy_twin as twin
from tests.rl.experiences import array, close, experience_of, ragged_mask

NAN = math.nan
ROWS, TOKENS, WORDS = 8, 4, 5


def graded(algorithm, now_BT, experience, **hyper):
  """Loss, extras, and the gradient of the loss's sum by log-probability."""

  def total(x_BT):
    loss_BT, extras = algorithm.token_loss(x_BT, experience, **hyper)
    return loss_BT.sum(), (loss_BT, extras)

  grad_BT, out = jax.jit(jax.grad(total, has_aux=True))(array(now_BT))
  return *out, np.array(grad_BT)


def test_gspo_by_hand():
  # ε .2 and .3; advantage 2, 2, −2, −2. ℓ = ln 2, 0, ln 2 → s = 4^⅓ = 1.587, clipped to
  # 1.3: loss −2.6, no gradient. ℓ = ln 1.21, (not sampled), 0 → s = 1.1: loss −2.2, and
  # −s·A/2 at each token. ℓ = −ln 4, 0, 0 → s = .63, clipped to .8: loss 1.6. The last:
  # s = 1.1 and A < 0: 2.2, +s·|A|/2.
  two, small = math.log(2), math.log(1.21)
  now = [[two, 0, two], [small, NAN, 0], [-2 * two, 0, 0], [0, NAN, small]]
  mask = [[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1]]
  advantage_BT = np.array([[2], [2], [-2], [-2]]) * np.ones((4, 3))
  experience = experience_of(mask, advantage_BT=advantage_BT)
  hyper = {"clip_low": 0.2, "clip_high": 0.3}
  loss_BT, extras, grad_BT = graded(gspo, now, experience, **hyper)
  close(loss_BT, [[-2.6] * 3, [-2.2, 0, -2.2], [1.6] * 3, [2.2, 0, 2.2]])
  # Each token bears the reply's loss, and the sum of n of them moves by n · s/n · A.
  close(grad_BT, [[0] * 3, [-2.2, 0, -2.2], [0] * 3, [2.2, 0, 2.2]])
  close(extras["clip_high"], [[1] * 3, [0] * 3, [0] * 3, [0] * 3])
  close(extras["clip_low"], [[0] * 3, [0] * 3, [1] * 3, [0] * 3])
  close(extras["ratio"][:, 0], [4 ** (1 / 3), 1.1, 4 ** (-1 / 3), 1.1])


def test_cispo_by_hand():
  # log π = −1, and log π_old such that r = 2, 8, 8, 8; c = 5. loss = −min(r, 5)·A·(−1),
  # gradient −min(r, 5)·A: a clipped token still learns, whatever its sign.
  old = [[-1 - math.log(2), -1 - math.log(8), -1 - math.log(8), NAN]]
  advantage_BT = [[3.0, 3.0, -3.0, NAN]]
  experience = experience_of([[1, 1, 1, 0]], old_BT=old, advantage_BT=advantage_BT)
  loss_BT, extras, grad_BT = graded(cispo, [[-1.0, -1, -1, NAN]], experience)
  close(loss_BT, [[6, 15, -15, 0]])
  close(grad_BT, [[-6, -15, 15, 0]])
  close(extras["clip_high"], [[0, 1, 1, 0]])
  close(extras["ratio"], [[2, 8, 8, 0]])


@pytest.mark.parametrize(
  ("name", "hyper"),
  [
    ("gspo", {"clip_low": 0.1, "clip_high": 0.3}),
    ("cispo", {"ratio_limit": 1.5}),
  ],
)
def test_ratios_against_loops_and_without_a_gradient_outside_the_mask(name, hyper):
  rng = np.random.default_rng(0)
  mask_BT = ragged_mask(rng, 30, 7)
  now_BT, old_BT, advantage_BT = rng.normal(size=(3, 30, 7)).astype(np.float32)
  now_BT[:3] += 60.0  # beyond what exp may take
  for x_BT in (now_BT, old_BT, advantage_BT):
    x_BT[~mask_BT] = NAN
  experience = experience_of(mask_BT, old_BT=old_BT, advantage_BT=advantage_BT)
  loss_BT, extras, grad_BT = graded(rl.load(name), now_BT, experience, **hyper)
  wanted_BT = LOSSES[name](now_BT, old_BT, advantage_BT, mask_BT, hyper)
  np.testing.assert_allclose(loss_BT, wanted_BT, rtol=1e-4, atol=1e-5)
  assert np.isfinite(grad_BT).all()
  assert not grad_BT[~mask_BT].any()
  assert grad_BT[mask_BT].any()
  for value_BT in extras.values():
    assert not np.array(value_BT)[~mask_BT].any()
    assert np.array(value_BT)[mask_BT].any()


def clipped(now_BT, old_BT, advantage_BT, mask_BT, hp, frozen_BT=None):
  bounds = (hp["clip_low"], hp["clip_high"], hp["dual_clip"])
  return twin.clipped_loss(now_BT, old_BT, advantage_BT, mask_BT, *bounds)


def of_replies(now_BT, old_BT, advantage_BT, mask_BT, hp, frozen_BT=None):
  bounds = (hp["clip_low"], hp["clip_high"])
  return twin.reply_ratio_loss(now_BT, old_BT, advantage_BT, mask_BT, *bounds)


def weighted(now_BT, old_BT, advantage_BT, mask_BT, hp, frozen_BT=None):
  known = (hp["ratio_limit"], frozen_BT)
  return twin.cispo_loss(now_BT, old_BT, advantage_BT, mask_BT, *known)


LOSSES = {"gspo": of_replies, "cispo": weighted}


def spoken(logits_TV, token_BT):
  """Log-probabilities in float64."""
  logprob_TV = logits_TV - np.log(np.exp(logits_TV).sum(1, keepdims=True))
  return logprob_TV[np.arange(TOKENS)[None], token_BT]


@pytest.mark.parametrize("name", rl.names())
def test_gradients_are_those_of_finite_differences(name):
  """Of a table's logits, the advantages and the aggregation the algorithm's own."""
  algorithm, rng = rl.load(name), np.random.default_rng(3)
  hp = dict(algorithm.DEFAULTS)
  hp |= {"clip_low": 0.2, "clip_high": 0.3} if name == "gspo" else {}
  how = algorithm.AGGREGATIONS[0]
  constant = 7 if how == "constant" else None
  logits_TV = rng.normal(size=(TOKENS, WORDS))
  token_BT = rng.integers(WORDS, size=(ROWS, TOKENS))
  mask_BT = ragged_mask(rng, ROWS, TOKENS)
  old_BT = spoken(logits_TV, token_BT) + 0.3 * rng.normal(size=(ROWS, TOKENS))
  reward_BC = rng.normal(size=(ROWS, 1))
  learned = algorithm.advantages(
    experience_of(mask_BT, reward_BC, old_BT=old_BT), group=4, aggregation=how, **hp
  )
  advantage_BT = np.array(learned.advantage_BT)

  def ours(x_TV):
    now_BT = jax.nn.log_softmax(x_TV)[jnp.arange(TOKENS)[None], token_BT]
    loss_BT, _ = algorithm.token_loss(now_BT, learned, **hp)
    mean = aggregate(loss_BT, learned.mask_BT, how, constant)
    return mean.total / mean.count

  def theirs(x_TV):
    now_BT, frozen_BT = spoken(x_TV, token_BT), spoken(logits_TV, token_BT)
    loss_BT = LOSSES.get(name, clipped)(
      now_BT, old_BT, advantage_BT, mask_BT, hp, frozen_BT
    )
    total, count = twin.aggregate(loss_BT, mask_BT, how, constant)
    return total / count

  loss, grad_TV = jax.jit(jax.value_and_grad(ours))(array(logits_TV))
  assert float(loss) == pytest.approx(theirs(logits_TV), rel=1e-4, abs=1e-6)
  wanted_TV = np.zeros_like(logits_TV)
  for at in np.ndindex(*logits_TV.shape):
    step_TV = np.zeros_like(logits_TV)
    step_TV[at] = 1e-6
    up, down = theirs(logits_TV + step_TV), theirs(logits_TV - step_TV)
    wanted_TV[at] = (up - down) / 2e-6
  assert np.abs(wanted_TV).max() > 0.01
  np.testing.assert_allclose(grad_TV, wanted_TV, atol=2e-5)
