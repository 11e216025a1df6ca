"""Every hyper-parameter of every algorithm acts, and in the direction that it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepaudio_jax import rl
from stepaudio_jax.rl.parts import hyper as hyper_lib
from tests.rl.experiences import experience_of, ragged_mask

ROWS, TOKENS, GROUP = 16, 6, 4


@functools.cache
def outcome(name, flags=()):
  """All that an algorithm says of one experience, as numpy arrays."""
  algorithm, rng = rl.load(name), np.random.default_rng(0)
  mask_BT = ragged_mask(rng, ROWS, TOKENS)
  mask_BT[:, 0] = True
  noise = rng.normal(size=(5, ROWS, TOKENS)).astype(np.float32)
  reward_BC = 3.0 + rng.normal(size=(ROWS, 2)) * [3.0, 0.5]
  experience = experience_of(mask_BT, reward_BC, old_BT=-2 + noise[0])
  how, hp = algorithm.AGGREGATIONS[0], dict(flags)

  def all_of(experience, now_BT):
    learned = algorithm.advantages(experience, group=GROUP, aggregation=how, **hp)
    loss_BT, extras = algorithm.token_loss(now_BT, learned, **hp)
    out = {"advantage": learned.advantage_BT, "return": learned.return_BT}
    out |= {"loss": loss_BT, **extras}
    if algorithm.CRITIC:
      out["value"] = algorithm.value_loss(now_BT, learned, **hp)
    return out

  found = jax.jit(all_of)(experience, jnp.asarray(-2 + noise[1]))
  return {key: np.array(x) for key, x in found.items()}, mask_BT


def size(x):
  return np.abs(x).sum()


def from_one(x_BT, mask_BT):
  """How far the mean square is from 1: that of tokens, or that of replies."""
  return min(abs(np.square(x).mean() - 1) for x in (x_BT[mask_BT], x_BT[:, 0]))


def group_means(x_BT):
  return np.abs(x_BT[:, 0].reshape(-1, GROUP).mean(1))


# flag: (another value, what must then be true of what was and what is, and the mask)
ACTS = {
  "clip_low": (0.6, lambda was, now, m: now["clip_low"].sum() < was["clip_low"].sum()),
  "clip_high": (
    0.9,
    lambda was, now, m: now["clip_high"].sum() < was["clip_high"].sum(),
  ),
  "dual_clip": (
    1.5,
    lambda was, now, m: (
      now["clip_dual"].sum() > np.sum(was.get("clip_dual", 0.0))
      and now["loss"].max() < was["loss"].max()
    ),
  ),
  "std_floor": (
    50.0,
    lambda was, now, m: size(now["advantage"]) < size(was["advantage"]),
  ),
  "normalisation": (
    "gdpo",  # whitened: mean square 1 over the batch; within groups of four it is ¾
    lambda was, now, m: (
      from_one(now["advantage"], m) < 1e-3 < from_one(was["advantage"], m)
    ),
  ),
  "reward_clip": (
    0.5,  # in groups of four |A| goes up to 1.5; whitened, the largest are smaller
    lambda was, now, m: np.abs(now["advantage"]).max() < np.abs(was["advantage"]).max(),
  ),
  "scale_by_std": (
    False,  # the rewards' spread is above 1
    lambda was, now, m: size(now["advantage"]) > size(was["advantage"]),
  ),
  "whiten": (
    False,  # rewards are around 6
    lambda was, now, m: (
      abs(was["advantage"][m].mean()) < 1e-5 < now["advantage"][m].mean()
    ),
  ),
  "gamma": (0.5, lambda was, now, m: now["return"].sum() < was["return"].sum()),
  "lambda_": (
    0.0,  # only the last token sees the reward, where the values are 0
    lambda was, now, m: (now["return"] != 0).sum() == ROWS < (was["return"] != 0).sum(),
  ),
  "value_clip": (0.0, lambda was, now, m: now["value"].sum() < was["value"].sum()),
  "ratio_limit": (
    1.1,
    lambda was, now, m: (
      now["clip_high"].sum() > was["clip_high"].sum()
      and size(now["loss"]) < size(was["loss"])
    ),
  ),
  "baseline": (
    True,
    lambda was, now, m: (
      np.square(group_means(now["advantage"])).sum()
      < np.square(group_means(was["advantage"])).sum()
    ),
  ),
}
# What a flag needs beside it to act.
BESIDE = {"reward_clip": (("normalisation", "gdpo"),)}
FLAGS = [(name, flag) for name in rl.names() for flag in rl.load(name).DEFAULTS]
NO_CHOICE = {("ppo", "normalisation")}  # "sum" alone, the other is refused


@pytest.mark.parametrize(("name", "flag"), [f for f in FLAGS if f not in NO_CHOICE])
def test_every_flag_acts_in_its_direction(name, flag):
  value, so = ACTS[flag]
  beside = BESIDE.get(flag, ())
  was, mask_BT = outcome(name, beside)
  now, _ = outcome(name, (*beside, (flag, value)))
  assert so(was, now, mask_BT)


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_every_flag_is_checked(name, flag):
  with pytest.raises(ValueError, match=flag):
    hyper_lib.settled(rl.load(name).DEFAULTS, {flag: "much"})


def test_a_limit_of_the_ratio_below_1_is_refused():
  with pytest.raises(ValueError, match=r"ratio_limit=0.5; it must lie in \[1.0, ∞\)"):
    hyper_lib.settled({"ratio_limit": 5.0}, {"ratio_limit": 0.5})
