"""DPO: its loss by hand and beside torch, packed or not, and the loop that runs it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from configs import dpo, sft
from stepaudio_jax import logs, losses, steps, train, workdirs
from stepaudio_jax.core import masked, recipe, tree
from stepaudio_jax.core.types import Contrasts
from stepaudio_jax.models import sizes
from tests import stages, test_reward_model, tones

PLAIN = {"beta": 0.5, "length_normalised": False, "nll_weight": 0.0}


def log_sigmoid(x):
  return -math.log1p(math.exp(-x))


def two_replies():
  """One comparison: 2 spoken tokens against 1; what is unspoken is NaN."""
  nan = float("nan")
  now = [[[nan, -1.0, -2.0], [nan, nan, -3.0]]]
  reference = [[[nan, -1.5, -2.5], [nan, nan, -2.0]]]
  spoken = [[[False, True, True], [False, False, True]]]
  return jnp.asarray(now), jnp.asarray(reference), jnp.asarray(spoken)


@pytest.mark.parametrize(
  ("changes", "margin", "alpha"),
  [
    # h_c = (−1 + 1.5) + (−2 + 2.5) = 1, h_r = −3 + 2 = −1: β·(1 + 1) = 1.
    ({}, 1.0, 0.0),
    ({"beta": 0.1}, 0.2, 0.0),
    # By token: ½·1 + 1 = 1.5, times ½.
    ({"length_normalised": True}, 0.75, 0.0),
    ({"nll_weight": 0.3}, 1.0, 0.3),
  ],
)
def test_by_hand(changes, margin, alpha):
  total, metrics = losses.dpo(*two_replies(), **PLAIN | changes)
  # The chosen reply's nats per token: (1 + 2) / 2.
  assert float(total) == pytest.approx(-log_sigmoid(margin) + alpha * 1.5, rel=1e-6)
  found = {name: float(masked.ratio(value)) for name, value in metrics.items()}
  assert found["margin"] == pytest.approx(margin, rel=1e-6)
  assert found["nll"] == pytest.approx(1.5)
  assert found["accuracy"] == 1.0
  rewards = found["reward_chosen"] - found["reward_rejected"]
  assert rewards == pytest.approx(margin, rel=1e-6)
  # k3 = e^−d + d − 1 with d = ½, ½, −1.
  k3 = (2 * (math.exp(-0.5) - 0.5) + math.exp(1) - 2) / 3
  assert found["kl"] == pytest.approx(k3, rel=1e-5)


def test_huge_margins_overflow_nowhere():
  now, reference, spoken = two_replies()
  for scale in (1e4, -1e4):
    shift = jnp.asarray([[[scale], [-scale]]])

    def loss(now, shift=shift):
      return losses.dpo(now + shift, reference, spoken, **PLAIN)[0]

    value, gradient = jax.value_and_grad(loss)(now)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def random_logits(seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(5, 2, 7, 11)).astype(np.float32)
  reference = rng.normal(size=(5, 2, 7, 11)).astype(np.float32)
  token = rng.integers(11, size=(5, 2, 7))
  count = rng.integers(2, 8, size=(5, 2, 1))
  spoken = (np.arange(7) >= 1) & (np.arange(7) < count)
  spoken[3, 1] = False  # an absent reply
  return logits, reference, token, spoken


@pytest.mark.parametrize("length_normalised", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_value_and_gradient_are_those_of_a_torch_twin(length_normalised, alpha):
  logits, reference, token, spoken = random_logits()
  settings = {"length_normalised": length_normalised, "nll_weight": alpha}

  def ours(logits):
    def picked(x):
      x = jax.nn.log_softmax(x)
      return jnp.take_along_axis(x, jnp.asarray(token)[..., None], -1)[..., 0]

    return losses.dpo(picked(logits), picked(reference), spoken, beta=0.3, **settings)

  (total, metrics), gradient = jax.value_and_grad(ours, has_aux=True)(logits)
  theirs = torch.tensor(logits, requires_grad=True)
  sums = []
  for b in (0, 1, 2, 4):  # 3 has no second reply
    ratio, nll = [], []
    for q in range(2):
      places = np.flatnonzero(spoken[b, q])
      nats = [
        torch.distributions.Categorical(logits=x[b, q, places]).log_prob(
          torch.tensor(token[b, q, places])
        )
        for x in (theirs, torch.tensor(reference))
      ]
      divisor = len(places) if length_normalised else 1
      ratio.append((nats[0] - nats[1]).sum() / divisor)
      nll.append(-nats[0].mean())
    margin = 0.3 * (ratio[0] - ratio[1])
    sums.append(torch.nn.functional.softplus(-margin) + alpha * nll[0])
  sum(sums).backward()
  assert float(metrics["loss"].count) == 4
  assert float(total) == pytest.approx(sum(sums).item(), rel=1e-6)
  np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)


def contrasts(packed):
  """Two of four ragged replies to each prompt, their first two tokens forced."""
  given = stages.replies(least=3)
  given = dataclasses.replace(
    given, token_BQT=given.token_BQT[:, :2], count_BQ=given.count_BQ[:, :2]
  )
  place_T = np.arange(stages.LENGTH)
  spoken = (place_T >= 2) & (place_T < given.count_BQ[..., None])
  return Contrasts(stages.laid(packed, given), spoken[:, None] if packed else spoken)


@pytest.fixture(scope="module")
def stage():
  """Parameters beside a reference that differs from them."""
  made = stages.stage(contrasts(False), None)
  rng = np.random.default_rng(1)
  speaking = {part: made.params[part] for part in ("adaptor", "decoder")}
  reference = jax.tree.map(
    lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), speaking
  )
  return {**made.params, "reference": reference}


def test_packing_changes_no_loss(stage):
  """Nor any metric; gradients go the roads of tests/data/test_packing.py."""
  loss_fn = jax.jit(steps.dpo_loss(stages.model(), **PLAIN | {"nll_weight": 0.2}))
  total, metrics = loss_fn(stage, contrasts(False), None)
  packed, told = loss_fn(stage, contrasts(True), None)
  assert float(metrics["loss"].count) == float(told["loss"].count) == stages.ROWS
  assert float(packed) == pytest.approx(float(total), rel=1e-6)
  for name in ("margin", "kl", "nll", "reward_rejected"):
    ours, theirs = float(told[name].total), float(metrics[name].total)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=2e-5), name


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", tones.LITTLE)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  folder = tmp_path_factory.mktemp("start")
  test_reward_model.write_preferences(folder)
  tones.policy(folder / "sft")
  tones.policy(folder / "other", seed=5)
  return folder


def recipe_of(start, steps=20, **changes):
  c = dpo.get_config("smoke")
  c.init = str(start / "sft")
  c.data.options.preference.path = str(start / "preferences-train.jsonl")
  c.data.max_clip_s, c.data.max_tokens, c.data.max_raters = 0.6, 64, 2
  c.data.cache = str(start / "cache")
  c.total_steps, c.optim.schedule, c.optim.warmup_steps = steps, "constant", 0
  c.optim.lr, c.checkpoint.every_steps = 5e-3, 10
  c.update_from_flattened_dict(changes)
  return c


def rows_of(folder):
  found = logs.read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in found]


@pytest.fixture(scope="module")
def finished(start, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sizes.SIZES, "tiny", tones.LITTLE)
    return train.run(recipe_of(start), tmp_path_factory.mktemp("dpo") / "whole")


def test_stopped_and_resumed_equals_never_stopped(start, finished, tmp_path):
  """Even where `init` has gone on training meanwhile: the reference is the run's."""
  c = recipe_of(start, steps=10, init=str(tones.policy(tmp_path / "sft")))
  train.run(c, tmp_path / "run")
  other = workdirs.load_params(start / "other")
  encoder = workdirs.load_params(start / "sft")["encoder"]
  tones.saved(tmp_path / "sft", {**other, "encoder": encoder}, step=2)
  c.total_steps = 20
  train.run(c, tmp_path / "run")
  assert rows_of(tmp_path / "run") == rows_of(finished)
  ours, theirs = (workdirs.load_params(d) for d in (tmp_path / "run", finished))
  assert tree.content_hash(ours) == tree.content_hash(theirs)


def test_it_learns_the_choices_and_leaves_the_reference_alone(start, finished):
  found = rows_of(finished)
  assert found[0]["train/loss"] == pytest.approx(math.log(2), rel=1e-6)
  assert found[0]["train/margin"] == 0.0
  assert found[-1]["train/accuracy"] == 1.0
  assert found[-1]["train/margin"] > 0.5
  assert found[-1]["train/reward_chosen"] > found[-1]["train/reward_rejected"]
  before, after = (workdirs.load_params(d) for d in (start / "sft", finished))
  for part in ("adaptor", "decoder"):
    kept = tree.content_hash(after["reference"][part])
    assert kept == tree.content_hash(before[part]) != tree.content_hash(after[part])
  workdirs.load_model(finished)  # a reference beside the policy does not disturb


def test_a_reference_of_its_own_is_read(start, tmp_path):
  folder = tmp_path / "run"
  c = recipe_of(start, steps=1, reference=str(start / "other"))
  train.run(c, folder)
  assert rows_of(folder)[0]["train/kl"] > 0.0
  kept, other = workdirs.load_params(folder)["reference"], start / "other"
  decoder = tree.content_hash(workdirs.load_params(other)["decoder"])
  assert tree.content_hash(kept["decoder"]) == decoder


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"loss.beta": 0.0}, "beta=0.0 must be above 0"),
    ({"loss.nll_weight": -1.0}, "nll_weight=-1.0 at least 0"),
    ({"data.pack_rows": (8,)}, r"pack_rows=\(8,\) is of data.pack=True"),
    ({"data.pack_rows": (8, 4)}, r"pack_rows=\(8, 4\) must be lengths that ascend"),
    ({"trainable": ("reference",)}, r"unknown parts \['reference'\]; 'dpo' has"),
  ],
)
def test_wrong_settings_name_the_value(start, tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    train.run(recipe_of(start, **changes), tmp_path / "run")


def test_the_recipe_has_every_key_that_the_loop_reads():
  shared = {key for key in recipe.flat(sft.get_config("")) if "data" not in key}
  for size in ("tiny", "step_audio_r1"):
    c = dpo.get_config(f"size={size}")
    assert shared <= set(recipe.flat(c))
    assert train.checked(c) is not None


def test_a_reference_of_another_size_is_refused(start, tmp_path):
  """As `init` is; the shapes are told."""
  params = workdirs.load_params(start / "other")
  kernel = params["decoder"]["norm"]["scale"]
  params["decoder"]["norm"]["scale"] = np.ones(2 * len(kernel), np.float32)
  tones.saved(tmp_path / "big", params)
  c = recipe_of(start, reference=str(tmp_path / "big"))
  with pytest.raises(ValueError, match=r"reference='.*big' is of another size.*norm"):
    train.run(c, tmp_path / "run")
