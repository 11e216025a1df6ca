"""The parity report against differences that were put there by hand."""

import copy
import dataclasses
import gc
import json
import math
import weakref

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from stepaudio_jax import checkpoint, convert, workdirs
from stepaudio_jax.core import disk, storage
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.hf import parity, parity_table, table
from stepaudio_jax.hf.export import Weights, export
from stepaudio_jax.models import heads as heads_lib
from tests.hf import directories, exports

BF16 = np.dtype(ml_dtypes.bfloat16)


def saved(folder, params, tokenizer, size=exports.SIZE):
  """A checkpoint of ours."""
  zero = np.zeros((), np.int32)
  checkpoints = checkpoint.Checkpoints(folder, every_steps=1, keep=1)
  checkpoints.save(3, TrainState(params, {}, (), zero, np.zeros(2, np.uint32)), {})
  checkpoints.close()
  workdirs.describe(folder, size, tokenizer)
  return folder


def rewritten(folder, target, change):
  """A copy of an export with other tensors: `change` edits {key: array}."""
  target.mkdir()
  (target / "config.json").write_text((folder / "config.json").read_text())
  tensors = {}
  for path in folder.glob("*.safetensors"):
    tensors |= safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, target / "model.safetensors")
  return target


def checked(a, b, **settings):
  """The report on two folders of either kind."""
  return parity.check(convert.side(a), convert.side(b), **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory, params, tokenizer):
  return saved(tmp_path_factory.mktemp("parity") / "run", params, tokenizer)


@pytest.fixture(scope="module")
def half(tmp_path_factory, params, tokenizer):
  folder = tmp_path_factory.mktemp("parity") / "half"
  weights = Weights.of(params)
  export(weights, exports.SIZE, folder, tokenizer=tokenizer, card=exports.CARD)
  return folder


def test_a_checkpoint_and_its_export_are_equal(run, folder):
  report = checked(run, folder)
  assert report["equal"]
  assert report["first_difference"] is None
  assert list(report["tensors"]) == list(table.their_shapes(exports.SIZE))
  row = {"max_abs": 0.0, "bit_equal": True, "non_finite": 0, "broken": 0}
  row |= {"rounded_to": None, "equal_rounded": False}
  assert report["verdict"] == "equal"
  assert all(found == row for found in report["tensors"].values())
  assert report["a"]["kind"] == "checkpoint"
  assert report["b"]["kind"] == "Step-Audio"
  count = sum(map(math.prod, table.their_shapes(exports.SIZE).values()))
  for side in ("a", "b"):
    assert report[side]["dtypes"] == {"float32": len(report["tensors"])}
    assert report[side]["parameters"] == count
    assert report[side]["bytes"] == 4 * count
  nothing = {"max_abs": 0.0, "kl_mean": 0.0, "kl_max": 0.0, "same_argmax": 1.0}
  assert report["logits"] == {"text": nothing, "audio": nothing}
  assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_rounding_is_measured(folder, half, params):
  """float32 against bfloat16: the largest rounding error, found in numpy."""
  report = checked(folder, half)
  errors = {
    key: np.abs(array - array.astype(BF16).astype(np.float32)).max()
    for key, array in directories.torch_tensors(params, exports.SIZE).items()
  }
  assert report["max_abs_key"] == max(errors, key=errors.get)
  assert report["max_abs"] == max(errors.values()) > 0
  for key, error in errors.items():
    assert report["tensors"][key]["max_abs"] == error
  assert len(report["dtype_differences"]) == len(errors)
  assert report["dtype_differences"][0] == {
    "key": "model.embed_tokens.weight",
    "a": "float32",
    "b": "bfloat16",
  }
  assert not report["equal"]
  assert report["verdict"] == "equal after rounding"
  assert report["rounding"] == [
    {"a": "float32", "b": "bfloat16", "to": "bfloat16"}
    | {"tensors": len(errors), "equal": len(errors)}
  ]
  for row in report["logits"].values():
    assert 0 < row["max_abs"] < 0.1
    assert 0 < row["kl_mean"] <= row["kl_max"] < 0.01


def test_one_number_of_the_encoder(run, folder, tmp_path):
  """It is found; what cannot hear it predicts the same, to the bit."""
  key = "encoder.blocks.1.attn.out.bias"

  def change(tensors):
    tensors[key] = tensors[key].copy()
    tensors[key][7] += 0.5

  report = checked(run, rewritten(folder, tmp_path / "other", change))
  assert report["first_difference"] == report["max_abs_key"] == key
  assert report["max_abs"] == pytest.approx(0.5, abs=1e-6)
  assert not report["tensors"].pop(key)["bit_equal"]
  assert all(row["bit_equal"] for row in report["tensors"].values())
  assert report["logits"]["text"]["max_abs"] == 0
  assert report["logits"]["audio"]["max_abs"] > 1e-3
  assert report["logits"]["audio"]["kl_max"] > 0
  assert not report["equal"]


def test_keys_and_shapes_that_differ(folder, tmp_path):
  def change(tensors):
    del tensors["adapter.conv.bias"]
    tensors["extra"] = np.zeros(3, np.float32)
    tensors["model.norm.weight"] = np.zeros(7, np.float32)

  other = rewritten(folder, tmp_path / "other", change)
  report = checked(folder, other)
  assert report["only_a"] == ["adapter.conv.bias"]
  assert report["only_b"] == ["extra"]
  shapes = [{"key": "model.norm.weight", "a": [96], "b": [7]}]
  assert report["shape_differences"] == shapes
  assert report["first_difference"] == "model.norm.weight"  # before the adapter
  assert report["logits"] == {"left_out": "a side has no whole decoder"}
  shown = parity_table.table(report)
  assert "only in a: adapter.conv.bias" in shown
  assert "only in b: extra" in shown
  assert "shape differs: model.norm.weight: [96] and [7]" in shown
  assert shown.endswith("NOT equal")


def test_an_epsilon_is_a_difference(folder, tmp_path):
  """The same tensors, another model."""
  other = rewritten(folder, tmp_path / "other", lambda tensors: None)
  config = json.loads((other / "config.json").read_text())
  config["text_config"]["rms_norm_eps"] = 1e-6
  (other / "config.json").write_text(json.dumps(config))
  report = checked(folder, other)
  assert report["config_differences"] == [{"name": "norm_eps", "a": 1e-3, "b": 1e-6}]
  assert report["first_difference"] is None
  assert not report["equal"]
  assert report["logits"]["text"]["max_abs"] > 0


def test_another_kind_has_the_same_names(folder, tmp_path):
  """Qwen2-Audio's encoder under Step-Audio's keys; it has no decoder to run."""
  other = directories.qwen2_audio(tmp_path / "qwen")
  report = checked(other, other, logits=False)
  assert report["equal"]
  assert report["logits"] is None
  deeper = dataclasses.replace(exports.SIZE, encoder_layers=3)
  encoder = [k for k in table.their_shapes(deeper) if k.startswith("encoder.")]
  assert list(report["tensors"]) == encoder
  report = checked(folder, other)
  assert set(report["only_a"]) == set(table.their_shapes(exports.SIZE)) - set(encoder)
  assert report["only_b"] == [k for k in encoder if k.startswith("encoder.blocks.2.")]
  assert "left_out" in report["logits"]


def test_reward_heads_are_compared(tmp_path, params, tokenizer, folder):
  """A checkpoint with heads against one without, and against other heads."""
  width = exports.SIZE.width
  generator = np.random.default_rng(0)
  rewards = {
    "linear": {
      "kernel": generator.normal(size=(width, 2)).astype(np.float32),
      "bias": np.zeros(2, np.float32),
    },
    "gate": {"kernel": np.zeros((width, 2), np.float32)},
    "scale": np.ones(2, np.float32),
  }
  assert sorted(rewards) == sorted(_reward_leaves(width))
  other = copy.deepcopy(rewards)
  other["linear"]["kernel"][5, 1] += 2
  folders = []
  for name, some in (("a", rewards), ("b", other)):
    folders.append(saved(tmp_path / name, {**params, "rewards": some}, tokenizer))
    workdirs.describe_rewards(folders[-1], ("kind", "clear"), ())
  report = checked(*folders, logits=False)
  assert report["first_difference"] == "rewards.linear.weight"
  assert report["max_abs"] == pytest.approx(2, abs=1e-5)
  report = checked(folder, folders[0], logits=False)
  assert len(report["only_b"]) == 4
  assert all(key.startswith("rewards.") for key in report["only_b"])


def _reward_leaves(width):
  import jax

  return heads_lib.init_rewards(jax.random.key(0), width, 2)


def test_no_more_than_two_tensors_are_in_memory(folder, half, monkeypatch):
  """One of each side; every tensor is read once."""
  alive, peak, reads = [], [], []
  read = disk.Stored.read

  def counted(self):
    array = read(self)
    reads.append(self)
    alive.append(weakref.ref(array))
    peak.append(sum(ref() is not None for ref in alive))
    return array

  monkeypatch.setattr(disk.Stored, "read", counted)
  gc.collect()
  report = checked(folder, half, logits=False)
  assert len(reads) == 2 * len(report["tensors"])
  assert max(peak) == 2


def test_a_checkpoint_is_read_leaf_by_leaf(run, folder, monkeypatch):
  """Each once, a stacked one for all of its layers."""
  asked, read = [], storage.Leaves.read

  def counted(self, paths=None, **settings):
    asked.append([*paths])
    return read(self, asked[-1], **settings)

  monkeypatch.setattr(storage.Leaves, "read", counted)
  checked(run, folder, logits=False)
  assert sorted(asked) == sorted([path] for path in table.our_shapes(exports.SIZE))


@pytest.mark.parametrize("some", [3, parity._SOME])
def test_differences_by_hand(some, monkeypatch):
  monkeypatch.setattr(parity, "_SOME", some)
  a = np.asarray([[1.0, 2.0], [3.0, 4.0], [0.0, np.nan]], np.float32)
  assert parity.difference(a, a.copy())["bit_equal"]  # a NaN of the same bits too
  b = a.copy()
  b[1, 0], b[0, 1] = 3.25, 1.0
  unlike = {"bit_equal": False, "rounded_to": None, "equal_rounded": False}
  wanted = {"max_abs": 1.0, "non_finite": 0, "broken": 2} | unlike
  assert parity.difference(a, b) == wanted
  assert parity.difference(a.T, b.T) == wanted
  b = a.copy()
  b[2, 0], b[0, 0] = -0.0, np.inf
  wanted = {"max_abs": 0.0, "non_finite": 1, "broken": 3} | unlike
  assert parity.difference(a, b) == wanted
  third = np.asarray([1 / 3, 1], np.float32)
  wanted = abs(float(third[0]) - 0.333984375)  # 0x3EAB, the nearest bfloat16
  assert parity.difference(third, third.astype(BF16)) == {
    "max_abs": wanted,
    "bit_equal": False,
    "non_finite": 0,
    "broken": 0,
    "rounded_to": "bfloat16",
    "equal_rounded": True,
  }
  off = third.astype(BF16)
  off.view(np.uint16)[1] += 1  # the last bit
  assert not parity.difference(third, off)["equal_rounded"]
  assert not parity.difference(off, third)["equal_rounded"]
  scalar = np.float32(2).reshape(())
  assert parity.difference(scalar, scalar - np.float32(5))["max_abs"] == 5


def test_divergence_by_hand():
  """p = (¾, ¼) against (½, ½): KL = ¾ log 3/2 + ¼ log 1/2; the second row is equal."""
  a = np.log([[0.75, 0.25], [0.5, 0.5]]) + 3
  b = np.log([[0.5, 0.5], [0.5, 0.5]]) + np.asarray([[0], [7]])
  got = parity.divergence(a, b)
  kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
  assert got["kl_max"] == pytest.approx(kl)
  assert got["kl_mean"] == pytest.approx(kl / 2)
  assert got["max_abs"] == pytest.approx(4)
  assert got["same_argmax"] == 1.0
  a[0, 0] = np.nan
  assert parity.divergence(a, b)["kl_mean"] is None


def test_what_is_no_model_is_refused(tmp_path, folder):
  with pytest.raises(FileNotFoundError, match="nowhere"):
    checked(folder, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=r"empty is neither (.|\n)*config\.json"):
    checked(tmp_path / "empty", folder)
  broken = rewritten(folder, tmp_path / "broken", lambda tensors: None)
  config = json.loads((broken / "config.json").read_text())
  del config["text_config"]["rms_norm_eps"]
  (broken / "config.json").write_text(json.dumps(config))
  path = broken / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(ValueError, match="broken cannot be read") as error:
    checked(folder, broken)
  assert "rms_norm_eps" in str(error.value)
  assert "truncated" in str(error.value)


def test_a_checkpoint_of_another_size_than_it_says(tmp_path, params, tokenizer):
  size = dataclasses.replace(exports.SIZE, ffn_width=161)
  run = saved(tmp_path / "run", params, tokenizer, size)
  with pytest.raises(ValueError, match=r"mlp/gate/kernel is .*160.*model\.json says"):
    checked(run, run)


def test_the_table_for_people(folder, half):
  shown = parity_table.table(checked(folder, half)).splitlines()
  assert shown[0].startswith(f"a: {folder} (Step-Audio), ")
  count = len(table.their_shapes(exports.SIZE))
  assert f"0 of {count} tensors in both are bit-equal" in shown
  dtypes = "float32 and bfloat16: equal after rounding to bfloat16: "
  assert f"{dtypes}{count} of {count} tensors" in shown
  assert not any(line.startswith("dtype differs") for line in shown)
  assert any(line.startswith("logits, audio prompt: max |Δ| ") for line in shown)
  assert shown[-1] == "equal after rounding"


def test_beyond_rounding_is_not_equal(folder, half, tmp_path):
  """One value by one more than its last bit: the line counts it, its key is listed."""

  def change(tensors):
    norm = tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
    norm.view(np.uint16)[3] += 1

  report = checked(folder, rewritten(half, tmp_path / "other", change), logits=False)
  shown = parity_table.table(report).splitlines()
  count = len(report["tensors"])
  dtypes = "float32 and bfloat16: equal after rounding to bfloat16: "
  assert f"{dtypes}{count - 1} of {count} tensors" in shown
  assert "dtype differs: model.norm.weight: float32 and bfloat16" in shown
  assert shown[-1] == report["verdict"] == "NOT equal"


@pytest.mark.parametrize("logits", [True, False])
def test_what_is_not_finite_in_both_is_not_equal(folder, tmp_path, logits):
  def change(tensors):
    tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
    tensors["model.norm.weight"][3] = np.nan

  other = rewritten(folder, tmp_path / "other", change)
  report = checked(other, other, logits=logits)
  shown = parity_table.table(report).splitlines()
  assert "not finite: model.norm.weight: 2 values of both" in shown
  assert report["tensors"]["model.norm.weight"]["bit_equal"]
  assert shown[-1] == report["verdict"] == "NOT finite, in both alike"
  assert not report["equal"]
