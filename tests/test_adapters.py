"""Low-rank adapters: the model, a run, what is left of it for use and export."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import reward_model
from stepaudio_jax import checkpoint, convert, scoring, train, workdirs
from stepaudio_jax.core import low_rank, storage, tree
from stepaudio_jax.models import adapters, sizes
from stepaudio_jax.models.heads import RewardHeads
from tests import stages, test_reward_model
from tests.test_reward_model import recipe_of, rows_of

little_model, start = test_reward_model.little_model, test_reward_model.start
ON_THOUGHT = (False, True, False)


def made(maps=tuple(adapters.MAPS), moved=True):
  """Parameters with adapters whose B is not 0, unless it is that of a new run."""
  stage = stages.reward_model(remat="attention")
  pairs = adapters.init_params(
    jax.random.key(3), stages.SIZE, rank=2, alpha=6.0, maps=maps
  )
  if moved:
    rng = np.random.default_rng(4)
    pairs["layers"] = jax.tree.map(
      lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), pairs["layers"]
    )
  return stage, stage.params | {"adapters": pairs}


def plain(params):
  """The same with W + 3·A·B in place of W, in numpy."""
  leaves = {path: np.asarray(x) for path, x in tree.named_leaves(params)}
  for kernel, (a, b) in low_rank.pairs(leaves).items():
    z, rank = leaves[b].shape[:2]
    change = leaves[a].reshape(z, -1, rank) @ leaves[b].reshape(z, rank, -1)
    leaves[kernel] = leaves[kernel] + 3.0 * change.reshape(leaves[kernel].shape)
  return tree.nested(x for x in leaves.items() if not low_rank.is_part(x[0]))


@pytest.mark.parametrize("packed", [False, True])
def test_adapters_are_their_product_in_the_weights(packed):
  _, params = made()
  replies = stages.reward_model(packed).batch.replies

  @jax.jit
  def read(params):
    model = stages.model(remat="full" if packed else "none")
    return scoring.rewards(model, RewardHeads(3), params, replies, ON_THOUGHT)

  found = read(params)
  np.testing.assert_allclose(found, read(plain(params)), atol=2e-5)
  without = {name: part for name, part in params.items() if name != "adapters"}
  assert np.abs(found - read(without)).max() > 1e-2


def test_new_adapters_change_no_bit_and_alone_have_gradients():
  stage, params = made(maps=("query", "down"), moved=False)

  @jax.jit
  def both(trained):
    def total(trained):
      return stage.loss_fn(stage.params | trained, stage.batch, None)[0]

    found, gradients = jax.value_and_grad(total)(trained)
    return found - stage.loss_fn(stage.params, stage.batch, None)[0], gradients

  apart, gradients = both({"adapters": params["adapters"]})
  assert apart == 0.0
  moved = {p: np.asarray(g).any() for p, g in tree.named_leaves(gradients)}
  # A of a new pair has none, for its B is 0; the scale never has.
  assert moved == {
    "adapters/scale": False,
    "adapters/layers/attn/query/a": False,
    "adapters/layers/attn/query/b": True,
    "adapters/layers/mlp/down/a": False,
    "adapters/layers/mlp/down/b": True,
  }
  # Once B is not 0, all have one but the scale.
  _, grown = made(maps=("query", "down"))
  gradients = both({"adapters": grown["adapters"]})[1]["adapters"]
  assert gradients["scale"] == 0.0
  assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients["layers"]))


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
  """A run of adapters."""
  folder = tmp_path_factory.mktemp("adapters")
  kept, sizes.SIZES["tiny"] = sizes.SIZES["tiny"], test_reward_model.LITTLE
  try:
    train.run(adapting(start, 4), folder / "whole")
  finally:
    sizes.SIZES["tiny"] = kept
  return folder


def adapting(start, steps):
  return recipe_of(
    start,
    steps,
    **{"adapters.rank": 2, "adapters.maps": ("value", "out", "up")},
    **{"trainable": ("rewards",), "checkpoint.every_steps": 2},
  )


def stored(folder):
  """What the checkpoint itself holds, A and B apart."""
  leaves = storage.Leaves(folder)
  return dict(leaves._read(leaves._part)), leaves._part


@pytest.mark.slow
def test_a_run_of_adapters_resumes_bit_for_bit(start, run):
  for steps in (2, 4):
    train.run(adapting(start, steps), run / "parts")
  whole, parts = (stored(run / name)[0] for name in ("whole", "parts"))
  assert tree.content_hash(whole) == tree.content_hash(parts)
  assert rows_of(run / "whole") == rows_of(run / "parts")


def test_what_is_frozen_stays_and_has_no_moments(start, run):
  found, part = stored(run / "whole")
  before = workdirs.load_params(start / "sft")
  for path, leaf in tree.named_leaves(before):
    assert part[path] == "frozen"
    assert leaf.tobytes() == found[path].tobytes(), path
  trained = {path.split("/")[0] for path in part if part[path] == "params"}
  assert trained == {"adapters", "rewards"}
  moments = checkpoint.ocp.checkpointables_metadata(storage.step_folder(run / "whole"))
  paths = {p for p, _ in tree.named_leaves(moments.metadata["state"]["opt_state"])}
  assert any("adapters" in path for path in paths)
  assert not [path for path in paths if "decoder" in path or "adaptor" in path]


def test_whoever_reads_it_finds_plain_weights(run, tmp_path):
  found, _ = stored(run / "whole")
  assert float(found["adapters/scale"]) == 8.0  # α = 16 over a rank of 2
  loaded = workdirs.load_reward_model(run / "whole").params
  for name in ("attn/value", "attn/out", "mlp/up"):
    a, b = (found[f"adapters/layers/{name}/{x}"] for x in "ab")
    kernel = found[f"decoder/layers/{name}/kernel"]
    layers, rank = b.shape[:2]
    change = 8 * (a.reshape(layers, -1, rank) @ b.reshape(layers, rank, -1))
    expected = kernel + change.reshape(kernel.shape)
    assert np.abs(change).max() > 1e-4
    room, one = name.split("/")
    read = loaded["decoder"]["layers"][room][one]["kernel"]
    np.testing.assert_allclose(read, expected, rtol=1e-6, atol=1e-7)
  assert "adapters" not in workdirs.load_params(run / "whole")
  convert.export_(run / "whole", tmp_path / "hf", dtype="float32")
  value = loaded["decoder"]["layers"]["attn"]["value"]["kernel"]
  (shard,) = (tmp_path / "hf").glob("model-*.safetensors")
  theirs = safetensors.numpy.load_file(shard)["model.layers.1.self_attn.v_proj.weight"]
  assert np.array_equal(theirs, value[1].reshape(len(value[1]), -1).T)
  assert convert.check(run / "whole", tmp_path / "hf", logits=False)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"adapters.rank": 2}, r"adapters.rank=2 with trainable=.*'decoder'"),
    ({"adapters.rank": -1, "trainable": ("rewards",)}, r"adapters of rank=-1"),
    (
      {"adapters.rank": 1, "adapters.maps": ("head",), "trainable": ("rewards",)},
      r"unknown map of a layer 'head'; the choices are \['down'",
    ),
    ({"adapters.alpha": 32.0}, r"rank=0.*adapters.alpha=32.0 .*would do nothing"),
    ({"adapters.maps": ("up",)}, r"rank=0.*adapters.maps=\('up',\) would do nothing"),
    ({"trainable": ()}, r"trainable=\(\) of 'preference'"),
    ({"raters.room": 3}, r"raters.room=3 and raters.ridge=0.0: both above 0"),
  ],
)
def test_settings_that_cannot_act_are_refused(changes, message):
  c = reward_model.get_config("smoke")
  c.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    train.checked(c)


def test_the_recipe_names_what_is_trained():
  assert "decoder" in reward_model.get_config("").trainable
  assert reward_model.get_config("train=heads").trainable == ("rewards",)
  c = train.checked(reward_model.get_config("train=adapters,raters=6"))
  assert (c.adapters.rank, c.trainable) == (8, ("rewards",))
  assert (c.raters.room, c.raters.ridge > 0) == (6, True)
  with pytest.raises(ValueError, match=r"'half'; the choices are \['adapters', 'full'"):
    reward_model.get_config("train=half")
