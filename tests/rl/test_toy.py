"""A toy that every algorithm must learn: a table of three tokens that says a target."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepaudio_jax import rl
from stepaudio_jax.core.types import Experience
from stepaudio_jax.rl.parts.aggregate import aggregate

TARGET = np.array([2, 3, 0])  # 0 ends a reply, so that shorter ones are masked
GROUP, ROWS, TOKENS = 16, 64, 3
# Advantages that are not divided by a spread are small, and so are the steps of ratios
# of which nearly all are clipped.
RATES = {"drgrpo": 3.0, "rloo": 1.0, "gspo": 0.6}


def logprob(params, token_BT):
  logprob_TV = jax.nn.log_softmax(params["logits_TV"])
  return logprob_TV[jnp.arange(TOKENS)[None], token_BT]


def rollout(params, rng) -> tuple[jax.Array, Experience]:
  """Replies sampled from the table; 1 for the target, missing now and then."""
  draw, lose = jax.random.split(rng)
  logits_TV = params["logits_TV"]
  token_BT = jax.random.categorical(draw, logits_TV, shape=(ROWS, TOKENS))
  ended_BT = jnp.cumsum((token_BT == 0).astype(jnp.int32), axis=1) > 0
  mask_BT = jnp.concatenate([jnp.ones((ROWS, 1), bool), ~ended_BT[:, :-1]], axis=1)
  right_B = (token_BT == jnp.asarray(TARGET)[None]).all(1)
  lost_B = jax.random.bernoulli(lose, 0.1, (ROWS,))
  reward_B = jnp.where(lost_B, jnp.nan, right_B.astype(jnp.float32))
  old_BT = logprob(params, token_BT)
  value_BT = jnp.broadcast_to(params["value_T"][None], (ROWS, TOKENS))
  zero_BT = jnp.zeros((ROWS, TOKENS))
  return token_BT, Experience(
    mask_BT=mask_BT,
    sampler_BT=old_BT,
    old_BT=old_BT,
    reference_BT=old_BT,
    reward_BC=reward_B[:, None],
    weight_BC=jnp.ones((ROWS, 1)),
    value_BT=value_BT,
    advantage_BT=zero_BT,
    return_BT=zero_BT,
  )


def learnt(name, steps=200, **hyper):
  """Exact probability of the target before and after, and the parameters."""
  algorithm = rl.load(name)
  tx, how = optax.sgd(RATES.get(name, 0.3)), algorithm.AGGREGATIONS[0]
  constant = TOKENS if how == "constant" else None

  def loss_fn(params, token_BT, experience):
    loss_BT, _ = algorithm.token_loss(logprob(params, token_BT), experience, **hyper)
    if algorithm.CRITIC:
      value_BT = jnp.broadcast_to(params["value_T"][None], loss_BT.shape)
      loss_BT = loss_BT + algorithm.value_loss(value_BT, experience)
    mean = aggregate(loss_BT, experience.mask_BT, how, constant)
    return mean.total / jnp.maximum(mean.count, 1.0)

  def step(carry, rng):
    params, opt_state = carry
    token_BT, experience = rollout(params, rng)
    known = {"group": GROUP, "aggregation": how, **hyper}
    experience = algorithm.advantages(experience, **known)
    for _ in range(2):  # the second update is off-policy: ratios are not 1
      grads = jax.grad(loss_fn)(params, token_BT, experience)
      updates, opt_state = tx.update(grads, opt_state, params)
      params = optax.apply_updates(params, updates)
    return (params, opt_state), None

  def expected(params):
    return float(jnp.exp(logprob(params, jnp.asarray(TARGET)[None]).sum()))

  params = {"logits_TV": jnp.zeros((TOKENS, 4)), "value_T": jnp.zeros(TOKENS)}
  rngs = jax.random.split(jax.random.key(0), steps)
  run = jax.jit(lambda carry: jax.lax.scan(step, carry, rngs)[0])
  after, _ = run((params, tx.init(params)))
  return expected(params), expected(after), after


@pytest.mark.parametrize(
  ("name", "hyper"),
  [*((name, {}) for name in rl.names()), ("reinforce_pp", {"baseline": True})],
)
def test_a_table_learns_to_say_the_target(name, hyper):
  before, after, params = learnt(name, **hyper)
  assert before == pytest.approx(1 / 64)  # three tokens out of four, each by chance
  assert after > 0.8
  # The critic of PPO knows what to expect by then; the others have left it alone.
  value_T = np.array(params["value_T"])
  assert (np.abs(value_T - rl.load(name).CRITIC * after) < 0.2).all(), value_T
