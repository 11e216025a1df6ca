"""The gated mixture: by hand, learnt on a toy, and a run of it with what it leaves."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import reward_model
from stepaudio_jax import convert, losses, scoring, train, workdirs
from stepaudio_jax.core import tree
from stepaudio_jax.models import heads, mixture, sizes, step_audio
from tests import stages, test_reward_model, tones
from tests.test_reward_model import rows_of

little_model = test_reward_model.little_model
LITTLE, DIMENSIONS = test_reward_model.LITTLE, ("overall", "naturalness", "coherence")


def test_scores_by_hand():
  # Logits tanh(x)·(0, 2, 0) over τ = 2, the first dimension left out: for x = 0 the
  # weights are ½ and ½. λ = (9, 1, 0), 7 tokens: ½(3 − ln 7) + ½·5.
  params = {
    "hidden": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)},
    "gate": {"kernel": jnp.asarray([[0.0, 2.0, 0.0]]), "bias": jnp.zeros(3)},
    "temperature": jnp.asarray([2.0]),
    "verbosity": jnp.asarray([9.0, 1.0, 0.0]),
    "of": jnp.asarray([0.0, 1.0, 1.0]),
  }
  reward = jnp.asarray([[[100.0, 3.0, 5.0]] * 2])
  tokens = jnp.full((1, 2, 3), 7)
  x_BID = jnp.asarray([[[0.0], [np.arctanh(0.5)]]])
  score, gate = mixture.scores(params, x_BID, reward, tokens)
  tilted = np.exp(0.5) / (1 + np.exp(0.5))  # tanh = ½: a logit of 1, over 2
  assert gate[0, 0].tolist() == [0.0, 0.5, 0.5]
  np.testing.assert_allclose(gate[0, 1], [0.0, tilted, 1 - tilted], rtol=1e-6)
  less = 3 - np.log(7)
  expected = [0.5 * less + 2.5, tilted * less + (1 - tilted) * 5]
  np.testing.assert_allclose(score[0], expected, rtol=1e-6)


def test_a_gate_learns_what_a_prompt_asks_for():
  """Two kinds of prompts; one's choices follow the one dimension, one's the other."""
  rng = np.random.default_rng(0)
  kind_B = rng.integers(0, 2, 256)
  x_B2D = np.eye(2, dtype=np.float32)[kind_B][:, None].repeat(2, axis=1)
  reward_B2C = rng.normal(size=(256, 2, 3)).astype(np.float32)
  gap_BC = reward_B2C[:, 1] - reward_B2C[:, 0]
  label_BJ1 = np.sign(gap_BC[np.arange(256), 1 + kind_B])[:, None, None]
  params = mixture.init_params(
    jax.random.key(0), 2, (False, True, True), hidden=4, temperature=0.5
  )
  tokens = jnp.ones(reward_B2C.shape, jnp.int32)

  def loss(params):
    score, _ = mixture.scores(params, x_B2D, reward_B2C, tokens)
    label = label_BJ1.astype(np.float32)
    return losses.bradley_terry(score[..., None], label, margin=0.0, scaled=False)[0]

  tx = optax.adam(0.05)

  @jax.jit
  def run(params):
    def step(carry, _):
      with jax.numpy_dtype_promotion("standard"):
        updates, moments = tx.update(jax.grad(loss)(carry[0]), carry[1])
      return (optax.apply_updates(carry[0], updates), moments), None

    (after, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, length=150)
    return after, jax.grad(loss)(params)

  after, gradients = run(params)
  gate = mixture.scores(after, jnp.eye(2)[:, None], reward_B2C[:2, :1], tokens[:2, :1])
  assert gate[1][0, 0, 1] > 0.9
  assert gate[1][1, 0, 2] > 0.9
  for name in ("temperature", "verbosity", "of"):
    assert not gradients[name].any()
    assert after[name].tolist() == params[name].tolist()


@pytest.mark.parametrize("packed", [True, "prompts"])
def test_packed_rows_give_the_scores_of_plain_ones(packed):
  """Of the prompts' own states: with another gate all would be others."""
  stage = stages.reward_model()
  rng = np.random.default_rng(0)
  made = mixture.init_params(
    jax.random.key(1), stages.SIZE.width, (False, True, True), hidden=3, temperature=0.1
  )
  made["gate"]["kernel"] = jnp.asarray(rng.normal(size=(3, 3)), jnp.float32)
  made["verbosity"] = jnp.asarray([0.0, 0.5, -0.5])
  read = jax.jit(
    functools.partial(
      scoring.gated, stages.model(), heads.RewardHeads(4), on_thought=(False, True) * 2
    )
  )
  params = stage.params | {"mixture": made}
  plain, gate = read(params, stage.batch.replies)
  found, _ = read(params, stages.reward_model(packed).batch.replies)
  assert plain.shape[-1] == 4
  assert np.ptp(gate[:, 0, 1]) > 0.1
  np.testing.assert_allclose(found, plain, atol=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A reward model of random weights in rm/, a mixture of it in whole/."""
  folder = tmp_path_factory.mktemp("mixture")
  path = test_reward_model.write_preferences(folder, pairs=12)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    row["dims"]["coherence"] = -1
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  kept, sizes.SIZES["tiny"] = sizes.SIZES["tiny"], LITTLE
  params = dict(step_audio.init_params(jax.random.key(0), LITTLE))
  params["rewards"] = heads.init_rewards(jax.random.key(1), LITTLE.width, 3)
  tones.saved(folder / "rm", jax.device_get(params))
  workdirs.describe_rewards(folder / "rm", DIMENSIONS, ("naturalness",))
  try:
    train.run(mixing(folder, 4), folder / "whole")
  finally:
    sizes.SIZES["tiny"] = kept
  return folder


def mixing(folder, steps):
  c = reward_model.get_config("stage=mixture,smoke")
  c.init, c.data.options.preference.path = (
    str(folder / "rm"),
    str(folder / "preferences-train.jsonl"),
  )
  c.dimensions, c.dims_on_thought = DIMENSIONS, ("naturalness",)
  c.data.max_clips, c.data.max_clip_s, c.data.max_raters = 1, 0.6, 2
  c.data.max_tokens, c.data.cache = 64, str(folder / "cache")
  c.total_steps, c.batch_size, c.checkpoint.every_steps = steps, 4, 2
  c.optim.schedule = "constant"
  return c


@pytest.mark.slow
def test_a_mixture_resumes_bit_for_bit(run):
  for steps in (2, 4):
    train.run(mixing(run, steps), run / "parts")
  whole, parts = (workdirs.load_params(run / name) for name in ("whole", "parts"))
  assert tree.content_hash(whole) == tree.content_hash(parts)
  assert rows_of(run / "whole") == rows_of(run / "parts")


def test_a_mixture_leaves_its_model_alone(run):
  whole = workdirs.load_params(run / "whole")
  before = workdirs.load_params(run / "rm")
  assert tree.content_hash({n: whole[n] for n in before}) == tree.content_hash(before)
  assert whole["mixture"]["gate"]["kernel"].any()
  # Nothing of `overall`, which is to be predicted, and no length left in the others.
  weight = whole["mixture"]["verbosity"]
  assert weight[0] == 0.0
  assert weight[1:].any()
  row = rows_of(run / "whole")[0]
  assert row["train/gate_overall"] == 0.0
  assert row["train/gate_coherence"] == pytest.approx(0.5)


def test_it_is_one_more_dimension(run):
  loaded = workdirs.load_reward_model(run / "whole")
  assert loaded.dimensions == (*DIMENSIONS, "mixture")
  assert loaded.on_thought == (False, True, False, False)
  assert workdirs.load_reward_model(run / "rm").dimensions == DIMENSIONS


def test_it_leaves_by_an_export_and_comes_back(run, tmp_path):
  convert.export_(run / "whole", tmp_path / "hf", dtype="keep")
  described = json.loads((tmp_path / "hf" / "heads.json").read_text())
  assert described["dimensions"] == list(DIMENSIONS)
  assert "mixture.gate.weight" in described["tensors"]
  convert.import_([tmp_path / "hf"], tmp_path / "ckpt", dtype="keep")
  before, after = map(workdirs.load_reward_model, (run / "whole", tmp_path / "ckpt"))
  assert tree.content_hash(before.params) == tree.content_hash(after.params)
  assert after.dimensions == (*DIMENSIONS, "mixture")
  assert convert.check(run / "whole", tmp_path / "hf", logits=False)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"dimensions": ("overall", "coherence", "naturalness")},
      r"has .*'coherence'\], .* the recipe .*'coherence', 'naturalness'\]",
    ),
    ({"dimensions": ("naturalness", "coherence")}, r"a mixture learns from 'overall'"),
    ({"trainable": ("rewards",)}, r"trainable=\('rewards',\).*of a mixture trainable"),
    ({"mixture.temperature": 0.0}, r"temperature=0.0: all must be above 0"),
    ({"mixture.most": 1.5}, r"'most': 1.5.*`most` between 0 and 1"),
  ],
)
def test_settings_that_make_no_mixture_are_refused(run, tmp_path, changes, message):
  c = mixing(run, 4)
  c.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    train.run(c, tmp_path / "run")


def test_the_recipe_of_a_mixture_stands():
  c = train.checked(reward_model.get_config("stage=mixture"))
  assert (c.objective, c.init, c.trainable) == ("mixture", "runs/rm", ())
  with pytest.raises(ValueError, match="stage=mixture trains a gate alone"):
    reward_model.get_config("stage=mixture,train=heads")
  with pytest.raises(ValueError, match=r"'both'; the choices are \['heads', 'mixture'"):
    reward_model.get_config("stage=both")
