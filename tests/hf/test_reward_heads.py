"""Reward models leave with their heads beside the index, and come back bit for bit."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from stepaudio_jax import convert, workdirs
from stepaudio_jax.core import storage, tree
from stepaudio_jax.hf import heads, plan
from stepaudio_jax.models import heads as models
from tests.hf import directories, exports

DIMENSIONS = ["overall", "warmth", "naturalness"]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory, params, tokenizer):
  """A workdir as `train` leaves it; the backbone in bfloat16, the heads in float32."""
  import jax

  folder = tmp_path_factory.mktemp("rm") / "run"
  made = jax.tree.map(np.asarray, models.init_rewards(jax.random.key(1), 96, 3))
  made["linear"]["bias"] = np.asarray([0.5, -1.0, 2.0], np.float32)
  backbone = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params)
  leaves = dict(tree.named_leaves({**backbone, "rewards": made}))
  sizes = {path: leaf.nbytes for path, leaf in leaves.items()}
  storage.save_leaves(folder, sizes, iter(leaves.items()))
  workdirs.describe(folder, exports.SIZE, tokenizer)
  workdirs.describe_rewards(folder, DIMENSIONS, ["warmth"])
  return folder


@pytest.fixture(scope="module")
def exported(reward_model):
  convert.export_(reward_model, reward_model.parent / "hf", dtype="keep")
  return reward_model.parent / "hf"


def test_a_reward_model_comes_back_bit_for_bit(reward_model, exported, tmp_path):
  convert.import_([exported], tmp_path / "ckpt", dtype="keep")
  before, after = map(workdirs.load_reward_model, (reward_model, tmp_path / "ckpt"))
  assert tree.content_hash(before.params) == tree.content_hash(after.params)
  assert after.dimensions == tuple(DIMENSIONS)
  assert after.on_thought == (False, True, False)
  with pytest.raises(ValueError, match="holds a reward model, which writes no replies"):
    workdirs.load_model(tmp_path / "ckpt")


def test_bfloat16_rounds_the_backbone_and_not_the_heads(exported, tmp_path):
  convert.import_([exported], tmp_path / "ckpt", dtype="float32")
  convert.export_(tmp_path / "ckpt", tmp_path / "again", dtype="bfloat16")
  first, again = (
    safetensors.numpy.load_file(d / heads.WEIGHTS)
    for d in (exported, tmp_path / "again")
  )
  assert first.keys() == again.keys()
  for key in first:
    assert first[key].tobytes() == again[key].tobytes()


def test_the_files_are_what_the_format_says(reward_model, exported):
  row = json.loads((exported / "heads.json").read_text())
  assert row["format"] == "stepaudio_jax/reward_heads/1"
  assert (row["dimensions"], row["dims_on_thought"]) == (DIMENSIONS, ["warmth"])
  tensors = safetensors.numpy.load_file(exported / "heads.safetensors")
  assert tensors.keys() == row["tensors"].keys()
  params = workdirs.load_reward_model(reward_model).params["rewards"]
  kernel = params["linear"]["kernel"]
  np.testing.assert_array_equal(tensors["rewards.linear.weight"], kernel.T)
  assert tensors["rewards.linear.bias"].tolist() == [0.5, -1.0, 2.0]
  assert tensors["rewards.gate.weight"].shape == (3, 96)


def test_heads_of_an_earlier_shape_are_told(reward_model, tmp_path):
  leaves = dict(storage.Leaves(reward_model).read())
  del leaves["rewards/gate/kernel"]
  sizes = {path: leaf.nbytes for path, leaf in leaves.items()}
  storage.save_leaves(tmp_path / "old", sizes, iter(leaves.items()))
  workdirs.describe(
    tmp_path / "old", exports.SIZE, workdirs.load_tokenizer(reward_model)
  )
  workdirs.describe_rewards(tmp_path / "old", DIMENSIONS, [])
  with pytest.raises(ValueError, match=r"heads lack \['rewards/gate/kernel'\]"):
    convert.export_(tmp_path / "old", tmp_path / "hf")


def test_the_card_says_what_it_is(exported):
  """The example in Python runs, from beside the folder."""
  text = (exported / "README.md").read_text()
  assert "`overall`, `warmth`, `naturalness`. `warmth` reads the turn with" in text
  code = text.split("```python\n")[1].split("```")[0]
  found = {}
  exec(code.replace("FOLDER", str(exported)), found)
  assert found["model"].dimensions == tuple(DIMENSIONS)


def test_loaders_of_the_backbone_do_not_see_them(exported):
  index = json.loads((exported / "model.safetensors.index.json").read_text())
  assert "heads.safetensors" not in index["weight_map"].values()
  assert not [key for key in index["weight_map"] if "rewards" in key]


def test_a_policy_has_none(tmp_path):
  source = directories.step_audio(tmp_path / "hf", directories.tensors())
  convert.import_([source], tmp_path / "ckpt")
  convert.export_(tmp_path / "ckpt", tmp_path / "back")
  assert not list((tmp_path / "back").glob("heads.*"))
  assert workdirs.reward_dimensions(tmp_path / "ckpt") == {}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"format": "other"}, "format 'other' is not 'stepaudio_jax/reward_heads/1'"),
    ({"dimensions": ["a", "a", "b"]}, "do not fit"),
    ({"dims_on_thought": ["speed"]}, "do not fit"),
    ({"dimensions": "overall"}, "dimensions is no list of names"),
    ({"dimensions": ["a"], "dims_on_thought": []}, "is (3, 96), not (1, 96)"),
  ],
)
def test_a_wrong_description_is_told(exported, tmp_path, change, message):
  row = json.loads((exported / "heads.json").read_text()) | change
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / "heads.json").write_text(json.dumps(row))
  with pytest.raises(ValueError, match="cannot be imported") as error:
    plan.plan([tmp_path]).refuse()
  assert message in str(error.value)


def test_heads_without_their_description_are_told(exported, tmp_path):
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / "heads.json").unlink()
  assert plan.plan([tmp_path]).problems == ["heads.json is not there"]
