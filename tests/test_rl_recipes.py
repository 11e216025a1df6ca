"""Every algorithm by its recipe: keys, advantages, loss, most of it by shapes alone."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import rlhf, rlvr
from stepaudio_jax import learner, meshes, policy, rl, train_rl
from stepaudio_jax.core.types import Mean
from stepaudio_jax.models import heads, step_audio
from stepaudio_jax.rollout import keys
from stepaudio_jax.rollout.actor import Packing
from tests import stages
from tests.rl.experiences import close, experience_of

RECIPES = {"rlvr": rlvr.get_config, "rlhf": rlhf.get_config}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", rl.names())
def test_the_recipes_values_are_the_algorithms_own(recipe, name):
  """All but the floor of a noisy reward; and the keys are exactly those it has."""
  c = keys.checked(RECIPES[recipe](f"algorithm={name}"))
  own = dict(rl.load(name).DEFAULTS)
  if recipe == "rlhf" and "std_floor" in own:
    own["std_floor"] = 0.05
  assert keys.hyper(c) == own
  assert c.aggregation in rl.load(name).AGGREGATIONS
  assert ("critic_optim" in c) == rl.load(name).CRITIC
  keys.checked(RECIPES[recipe](f"algorithm={name},smoke"))


@pytest.mark.parametrize("name", rl.names())
@pytest.mark.parametrize("where", keys.KL_PLACES)
def test_every_algorithm_has_advantages_a_loss_and_a_gradient(name, where):
  c = RECIPES["rlhf"](f"algorithm={name},smoke")
  c.kl.where = where
  algorithm, given = rl.load(keys.checked(c).algorithm.name), stages.replies()
  mask_BT = np.arange(stages.LENGTH) < given.count_BQ.reshape(-1, 1)
  experience = experience_of(mask_BT)
  advised = functools.partial(learner.advised, c, algorithm)
  learned = jax.eval_shape(advised, experience, 0.1)
  assert jax.tree.map(jnp.shape, learned) == jax.tree.map(jnp.shape, experience)
  init = functools.partial(step_audio.init_params, size=stages.SIZE)
  params = jax.eval_shape(init, jax.random.key(0))
  if algorithm.CRITIC:
    value = jax.eval_shape(
      functools.partial(heads.init_value, width=stages.SIZE.width), jax.random.key(0)
    )
    params["critic"] = {**learner.speaking(params), "value": value}
  update = policy.grouped(given, experience, 0.1)
  loss_fn = learner.policy_loss(c, stages.model(), algorithm)
  total = functools.partial(loss_fn, update=update, rng=None)
  (_, metrics), grads = jax.eval_shape(jax.value_and_grad(total, has_aux=True), params)
  assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
  assert {"loss", "policy_loss", "kl_now", "correction"} <= set(metrics)
  assert ("value_loss" in metrics) == algorithm.CRITIC
  told = {name for name, value in metrics.items() if not isinstance(value, Mean)}
  assert told == ({"measured"} if where == "loss" else set())


def test_a_kl_in_the_reward_is_weighed_by_the_beta_of_the_step():
  # RLOO, two replies of 3 and 1 tokens: old −1, reference −3, so k1 = 2 a token; both
  # have reward 5. β = ½: totals 5 − 3 and 5 − 1, A = ∓2; twice that with β = 1.
  c = RECIPES["rlvr"]("algorithm=rloo,smoke")
  c.kl.where, c.sampling.samples = "reward", 2
  mask = np.array([[1, 1, 1], [1, 0, 0]])
  experience = experience_of(
    mask, [[5.0], [5.0]], old_BT=-1.0 * mask, reference_BT=-3.0 * mask
  )
  advised = jax.jit(functools.partial(learner.advised, c, rl.load("rloo")))
  for beta in (0.5, 1.0):
    got = advised(experience, beta)
    close(got.advantage_BT, beta * np.array([[-4, -4, -4], [4, 0, 0]]))
  assert advised._cache_size() == 1  # β may change without a new program


def test_beta_stays_without_a_target():
  c = RECIPES["rlhf"]("smoke")
  assert learner.following(c, 0.02, 9.0) == 0.02
  c.kl.target, c.kl.horizon = 0.1, 160
  # 4 prompts × 4 replies a step: 1 + .2 · 16/160.
  assert learner.following(c, 0.02, 9.0) == pytest.approx(0.0204)


def changed(recipe: str, arg: str, **values) -> ConfigDict:
  c = RECIPES[recipe](arg)
  c.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
  return c


@pytest.mark.parametrize(
  ("arg", "values", "message"),
  [
    ("algorithm=gspo", {"aggregation": "token_mean"}, r"'gspo'.*sequence_mean_token"),
    ("algorithm=drgrpo", {"aggregation": "token_mean"}, r"'drgrpo'.*'constant'"),
    ("algorithm=dapo", {"aggregation": "constant"}, r"'dapo'.*\('token_mean',\)"),
    ("algorithm=grpo", {"aggregation": "mean"}, r"'mean'.*token_mean.*constant"),
    ("algorithm=grpo", {"sampling__samples": 1}, "group=1"),
    ("algorithm=rloo", {"sampling__samples": 1}, "group=1"),
    (
      "algorithm=reinforce_pp",
      {"sampling__samples": 1, "algorithm__baseline": True},
      "group=1",
    ),
    (
      "algorithm=grpo",
      {"kl__where": "reward", "algorithm__normalisation": "gdpo"},
      "'gdpo' with a KL in the reward",
    ),
    ("algorithm=cispo", {"algorithm__ratio_limit": 0.5}, "ratio_limit=0.5"),
    ("algorithm=grpo", {"kl__target": 0.1}, "kl.target=0.1 with kl.beta=0"),
    ("algorithm=grpo", {"kl__target": -0.1}, "kl.target=-0.1"),
    ("algorithm=grpo", {"kl__beta": math.nan}, "kl.beta=nan: must be at least 0"),
    ("algorithm=grpo", {"rewards__rubric__weight": -1.0}, r"rubric.weight=-1.0: must"),
    (
      "algorithm=grpo",
      {"log__every_steps": 0},
      "log.every_steps=0: must be at least 1",
    ),
    (
      "algorithm=reinforce_pp",
      {"sampling__samples": 1, "rollout__refill_rounds": 1, "rollout__max_age": 1},
      "refill_rounds=1 with sampling.samples=1: a reply alone",
    ),
    ("algorithm=grpo", {"kl__where": "reward"}, "kl.where='reward' .* kl.beta=0"),
    (
      "algorithm=grpo",
      {"kl__target": 0.1, "kl__beta": 0.1, "kl__horizon": 100},
      "kl.horizon=100 is less than the 128 replies",
    ),
    ("algorithm=grpo", {"correction__limit": 0.5}, "correction.limit=0.5"),
    ("algorithm=dapo", {"rewards__overlong__buffer_tokens": 49}, "buffer_tokens=49"),
    (
      "algorithm=grpo",
      {"data__share_prompts": False},
      "share_prompts=False are of data",
    ),
    ("algorithm=grpo", {"data__row_tokens": 900}, "row_tokens=900, data.pack_rows"),
    ("algorithm=grpo", {"data__pack_rows": (8,)}, r"pack_rows=\(8,\) and"),
    (
      "algorithm=grpo",
      {"data__pack": True, "data__pack_rows": (8, 4)},
      r"data.pack_rows=\(8, 4\) must be lengths that ascend",
    ),
    (
      "algorithm=grpo",
      {"data__pack": True, "data__row_tokens": 159},
      r"row_tokens=159 must be 0 or at least .* = 160",
    ),
    (
      "algorithm=grpo",
      {"reward_model": "runs/rm"},
      "reward_model='runs/rm' would do nothing: rewards.learned names none",
    ),
    (
      "algorithm=grpo",
      {"rewards__rubric__learned": 0.5},
      "rubric.learned=0.5 is a factor of the weights in rewards.learned",
    ),
    (
      "algorithm=grpo",
      {"sampling__slots": 129},
      "slots=129 is more than .* = 128 replies; 0 decodes all",
    ),
  ],
)
def test_impossible_recipes_are_refused_before_anything_is_loaded(arg, values, message):
  with pytest.raises(ValueError, match=message):
    keys.checked(changed("rlvr", arg, **values))


def test_an_update_without_a_reply_that_counts_hides_no_others():
  assert learner._mean([1.0, math.nan, 3.0]) == 2.0
  assert math.isnan(learner._mean([math.nan]))


def test_packed_rows_are_as_long_and_as_shared_as_the_recipe_says():
  mesh = meshes.mesh(dict.fromkeys(meshes.MESH_AXES, 1), jax.devices()[:1])
  c = changed("rlvr", "algorithm=grpo")
  assert train_rl.packing(c, mesh, 2) is None
  c.data.pack = True
  assert train_rl.packing(c, mesh, 2) == Packing(2, 112 + 48, shared=True)
  c.data.share_prompts, c.data.row_tokens, c.data.pack_rows = False, 500, (8, 16)
  assert train_rl.packing(keys.checked(c), mesh, 3) == Packing(3, 500, False, (8, 16))


def test_reinforce_pp_needs_no_group():
  keys.checked(changed("rlvr", "algorithm=reinforce_pp", sampling__samples=1))


def test_names_of_recipes():
  with pytest.raises(ValueError, match=r"'ppoo'.*'cispo'.*'rloo'"):
    rlvr.get_config("algorithm=ppoo")
  with pytest.raises(ValueError, match=r"algorithm='rloo'.*'sum' only.*cispo"):
    rlhf.get_config("algorithm=rloo,normalisation=gdpo")
  assert rlvr.get_config("algorithm=dapo").rewards.overlong.buffer_tokens == 9
  assert rlvr.get_config("algorithm=grpo").rewards.overlong.buffer_tokens == 0
