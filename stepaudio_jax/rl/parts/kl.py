"""Estimators of the KL divergence to a reference, http://joschu.net/blog/kl-approx.html,
and the weight that follows a target of it."""

import math

import jax
import jax.numpy as jnp

from stepaudio_jax.core.types import Array

ESTIMATORS = ("k1", "k2", "k3", "k3_k2")
_LIMIT = 20.0
_STEP = 0.2


def kl(now_BT: Array, reference_BT: Array, estimator: str) -> Array:
  """KL(now ‖ reference) estimated at each token that `now` sampled, in nats.

  With d = log π − log π_ref: k1 = d; k2 = d²/2, whose gradient is that of the KL;
  k3 = e^−d + d − 1, unbiased and never negative; k3_k2 has the value of k3 and the
  gradient of k2.

  The value of d is kept within ±20 and its gradient is passed on: a token beyond
  the limit is pulled back as hard as one on it, instead of not at all. No gradient
  reaches the reference. Outside a mask both must be finite (0 will do).
  """
  if estimator not in ESTIMATORS:
    raise ValueError(f"unknown estimator {estimator!r}; the choices are {ESTIMATORS}")
  limited_BT = jnp.clip(now_BT - reference_BT, -_LIMIT, _LIMIT)
  passed_BT = now_BT - jax.lax.stop_gradient(now_BT)  # exactly 0, with gradient 1
  d_BT = jax.lax.stop_gradient(limited_BT) + passed_BT
  if estimator == "k1":
    return d_BT
  k2_BT = jnp.square(d_BT) / 2
  if estimator == "k2":
    return k2_BT
  k3_BT = jnp.expm1(-d_BT) + d_BT
  if estimator == "k3":
    return k3_BT
  return jax.lax.stop_gradient(k3_BT) + (k2_BT - jax.lax.stop_gradient(k2_BT))


def next_beta(
  beta: float, found: float, *, target: float, horizon: float, replies: int
) -> float:
  """β(1 + clip(KL/target − 1, ±0.2) · n/horizon) of Ziegler et al. (arXiv 1909.08593).

  Plain numbers on the host, so that a checkpoint keeps β to the last bit. Where we
  differ: the KL is in nats per token, as it is logged, not the sum over a reply.

  Args:
    found: nats per token of this step's replies; β stays where there are none (NaN).
    target: what it should be; 0 leaves β alone.
    horizon: replies after which β has moved by a factor of about e^±0.2.
    replies: n, of this step.
  """
  if target == 0 or math.isnan(found):
    return beta
  error = min(max(found / target - 1.0, -_STEP), _STEP)
  return beta * (1.0 + error * replies / horizon)
