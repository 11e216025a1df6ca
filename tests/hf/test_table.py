"""The table against the model's own tree, published counts and its own inverse."""

import math

import numpy as np
import pytest

from stepaudio_jax.core.tree import named_leaves
from stepaudio_jax.hf import export, table
from stepaudio_jax.models import sizes
from stepaudio_jax.models.step_audio import abstract_params
from tests.hf import directories, exports


@pytest.mark.parametrize("name", sorted(sizes.SIZES))
def test_paths_and_shapes_are_the_models(name):
  size = sizes.size(name)
  leaves = {path: leaf.shape for path, leaf in named_leaves(abstract_params(size))}
  assert table.our_shapes(size) == leaves


# model.md §1: tensors, parameters and bf16 bytes of the published checkpoints.
@pytest.mark.parametrize(
  ("name", "tensors", "parameters", "bytes_", "shards"),
  [
    ("step_audio_2_mini", 832, 8_315_179_264, 16_630_358_528, 4),
    ("step_audio_r1", 1264, 33_487_033_600, 66_974_067_200, 14),
  ],
)
def test_published_counts(name, tensors, parameters, bytes_, shards):
  size = sizes.size(name)
  shapes = table.their_shapes(size)
  assert len(shapes) == tensors
  assert sum(map(math.prod, shapes.values())) == parameters
  nbytes = {key: 2 * math.prod(shape) for key, shape in shapes.items()}
  packed = export.shards(nbytes, export.SHARD_BYTES)
  assert [key for keys in packed for key in keys] == list(shapes)
  sizes_ = [sum(2 * math.prod(shapes[key]) for key in keys) for keys in packed]
  assert sum(sizes_) == bytes_
  assert len(packed) == shards
  assert max(sizes_) <= 5_000_000_000


def test_published_shapes_by_hand():
  """model.md §3, and a few from Qwen2.5-7B: 28 × 128 queries, 4 × 128 keys."""
  shapes = table.their_shapes(sizes.size("step_audio_2_mini"))
  assert shapes["encoder.conv1.weight"] == (1280, 128, 3)
  assert shapes["encoder.blocks.31.mlp.0.weight"] == (5120, 1280)
  assert shapes["encoder.positional_embedding.weight"] == (1500, 1280)
  assert shapes["adapter.conv.weight"] == (1280, 1280, 3)
  assert shapes["adapter.linear2.weight"] == (3584, 2048)
  assert shapes["model.layers.27.self_attn.q_proj.weight"] == (3584, 3584)
  assert shapes["model.layers.0.self_attn.k_proj.weight"] == (512, 3584)
  assert shapes["model.layers.0.self_attn.k_proj.bias"] == (512,)
  assert shapes["model.layers.0.mlp.down_proj.weight"] == (3584, 18944)
  assert shapes["lm_head.weight"] == (158720, 3584)


def test_packing_order():
  keys = list(table.their_shapes(exports.SIZE))
  rooms = [key.split(".")[0] for key in keys]
  assert list(dict.fromkeys(rooms)) == ["model", "encoder", "adapter", "lm_head"]
  assert rooms == sorted(rooms, key=["model", "encoder", "adapter", "lm_head"].index)


def test_views_of_torch_tensors_are_turned_back(params):
  """`ours` of `theirs` is the leaf, whose letters both rows spell."""
  there = dict(named_leaves(params))
  for entry in table.entries(exports.SIZE):
    leaf = there[entry.row.path]
    tensor = np.ascontiguousarray(table.theirs(leaf, entry))
    assert tensor.shape == table.their_shape(entry, exports.SIZE)
    back = table.ours(tensor, entry, exports.SIZE)
    wanted = leaf if entry.layer is None else leaf[entry.layer]
    np.testing.assert_array_equal(back, wanted, err_msg=entry.key)


def test_a_view_writes_into_the_leaf(params):
  key = "encoder.blocks.1.mlp.0.weight"
  (entry,) = (each for each in table.entries(exports.SIZE) if each.key == key)
  leaf = np.zeros_like(dict(named_leaves(params))[entry.row.path])
  table.theirs(leaf, entry)[7, 5] = 3
  assert leaf[1, 5, 7] == 3
  assert leaf.sum() == 3


def test_parts_are_told_apart():
  shapes = table.our_shapes(exports.SIZE, ("encoder", "adaptor"))
  assert {path.split("/")[0] for path in shapes} == {"encoder", "adaptor"}
  keys = [entry.key for entry in table.entries(exports.SIZE, ("decoder",))]
  assert len(keys) == 12 * 3 + 3
  assert {key.split(".")[0] for key in keys} == {"model", "lm_head"}


def test_merged_axes_by_hand(params):
  """Row h of head H is row H · 16 + h of the torch matrix."""
  tensors = directories.torch_tensors(params, exports.SIZE)
  query = params["decoder"]["layers"]["attn"]["query"]
  weight = tensors["model.layers.2.self_attn.q_proj.weight"]
  assert weight[5 * 16 + 7, 11] == query["kernel"][2, 11, 5, 7]
  assert tensors["model.layers.1.self_attn.q_proj.bias"][20] == query["bias"][1, 1, 4]
  out = params["decoder"]["layers"]["attn"]["out"]["kernel"]
  assert tensors["model.layers.0.self_attn.o_proj.weight"][3, 20] == out[0, 1, 4, 3]
  conv = params["encoder"]["conv1"]["kernel"]
  assert tensors["encoder.conv1.weight"][9, 100, 2] == conv[2, 100, 9]


def test_every_wrong_parameter_is_listed_at_once(params):
  wrong = {**params, "extra": np.zeros(3), "adaptor": dict(params["adaptor"])}
  del wrong["adaptor"]["conv"]
  wrong["decoder"] = {**params["decoder"], "norm": {"scale": np.zeros(7)}}
  with pytest.raises(ValueError, match="not a test model") as error:
    table.check({p: x.shape for p, x in named_leaves(wrong)}, exports.SIZE)
  text = str(error.value)
  assert "missing parameter adaptor/conv/kernel" in text
  assert "missing parameter adaptor/conv/bias" in text
  assert "unknown parameter extra" in text
  assert "decoder/norm/scale is (7,), not (96,)" in text
