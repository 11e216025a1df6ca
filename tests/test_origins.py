"""A Hugging Face directory as a start, against its import, by `convert`."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from configs import sft
from stepaudio_jax import convert, origins, train, workdirs
from stepaudio_jax.core import storage, tree
from stepaudio_jax.hf import heads as heads_lib
from stepaudio_jax.hf import safe
from stepaudio_jax.models import heads
from stepaudio_jax.text import tokenizer as tokenizers
from tests import tones
from tests.hf import directories, exports

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Some tensors float32, of one leaf one layer: `keep` could not store it."""
  arrays = directories.tensors()
  rng = np.random.default_rng(5)
  for key in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
    arrays[key] = rng.normal(size=arrays[key].shape).astype(np.float32)
  return directories.step_audio(tmp_path_factory.mktemp("hf") / "source", arrays)


@pytest.fixture(scope="module")
def imported(source):
  convert.import_([source], source.parent / "ckpt", dtype="float32")
  return source.parent / "ckpt"


def test_the_parameters_are_those_of_the_import(source, imported):
  direct, stored = map(origins.load_params, (source, imported))
  assert {leaf.dtype for leaf in jax.tree.leaves(direct)} == {np.dtype(np.float32)}
  assert tree.content_hash(direct) == tree.content_hash(stored)
  assert origins.start_size("init", source) == workdirs.load_size(imported)
  row = origins.start_size("tiny", source)
  assert (row.name, row.width, row.norm_eps) == ("tiny", 128, 1e-3)
  # Nothing is left beside it, in it or in a cache of ours.
  assert {path.name for path in source.parent.iterdir()} == {"source", "ckpt"}
  names = {path.name for path in source.iterdir()}
  assert names == {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  }


def test_a_whole_model_of_a_directory(source, imported):
  direct, stored = map(origins.load_model, (source, imported))
  assert direct.size == stored.size
  assert direct.tokenizer.vocabulary == stored.tokenizer.vocabulary
  assert tree.content_hash(direct.params) == tree.content_hash(stored.params)


def test_every_leaf_is_placed_as_it_is_read(source):
  seen = []

  def place(path, leaf):
    seen.append((path, leaf.shape, leaf.dtype))
    return path

  params = origins.load_params(source, place=place)
  assert params["decoder"]["norm"]["scale"] == "decoder/norm/scale"
  whole = origins.load_params(source)
  shapes = {name: leaf.shape for name, leaf in tree.named_leaves(whole)}
  assert {(path, shape) for path, shape, _ in seen} == set(shapes.items())
  assert {dtype for _, _, dtype in seen} == {np.dtype(np.float32)}


def test_a_tokenizer_that_is_not_the_starts_is_an_error(source, imported):
  tiny = tokenizers.load("tiny")
  document = json.loads(tiny.document)
  swapped = dict(document["model"]["vocab"])
  first, second = list(swapped)[300:302]
  swapped[first], swapped[second] = swapped[second], swapped[first]
  document["model"]["vocab"] = swapped
  other = dataclasses.replace(tiny, name="swapped", document=json.dumps(document))
  for start in (source, imported):
    origins.check_tokenizer(start, tiny)
    with pytest.raises(ValueError, match=r"tokenizer='swapped' is not that of .*300"):
      origins.check_tokenizer(start, other)


def test_a_start_that_is_neither_and_one_that_is_broken(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nor is it a Hugg"):
    origins.load_params(tmp_path)
  arrays = directories.tensors()
  del arrays["model.norm.weight"]
  arrays["stray"] = np.zeros(2, np.float32)
  broken = directories.step_audio(tmp_path / "broken", arrays)
  for call in (origins.load_params, lambda init: origins.start_size("init", init)):
    with pytest.raises(ValueError, match=r"(?s)missing.*norm\.weight.*stray"):
      call(broken)
  with pytest.raises(ValueError, match=r"(?s)missing.*norm\.weight.*stray"):
    origins.load_reward_model(broken)


def test_a_directory_is_pinned_where_it_lies(source, imported, tmp_path, monkeypatch):
  monkeypatch.chdir(source.parent)
  names = {"init": "source", "reference": "ckpt"}
  found = origins.pinned(tmp_path, names)
  assert found == {"init": source, "reference": imported / "checkpoints" / "0"}
  assert json.loads((tmp_path / "sources.json").read_text()) == {
    name: str(path) for name, path in found.items()
  }


def test_a_reward_model_of_a_directory(tmp_path):
  arrays = directories.tensors()
  folder = directories.step_audio(tmp_path / "rm", arrays)
  with pytest.raises(ValueError, match=r"no heads\.safetensors"):
    origins.load_reward_model(folder)
  made = heads.init_rewards(jax.random.key(0), exports.SIZE.width, 2)
  leaves = dict(tree.named_leaves({"rewards": jax.tree.map(np.asarray, made)}))
  described = {"dimensions": ["warm", "clear"], "dims_on_thought": ["clear"]}
  heads_lib.write(folder, heads_lib.Heads(leaves, described))
  convert.import_([folder], tmp_path / "ckpt", dtype="keep")
  direct, stored = map(origins.load_reward_model, (folder, tmp_path / "ckpt"))
  assert direct.params["decoder"]["norm"]["scale"].dtype == BF16
  assert tree.content_hash(direct.params) == tree.content_hash(stored.params)
  for of in ("size", "dimensions", "dims_on_thought", "on_thought"):
    assert getattr(direct, of) == getattr(stored, of), of
  assert direct.tokenizer.document == stored.tokenizer.document


def test_a_checkpoint_is_taken_before_a_directory_around_it(imported, tmp_path):
  """A folder with both is a run of ours into which somebody put weights."""
  storage.save_leaves(
    tmp_path, {"decoder/a": 4}, iter([("decoder/a", np.ones(1, np.float32))])
  )
  header, _, length = safe.layout({"x": (np.dtype(np.float32), (1,))})
  (tmp_path / "model.safetensors").write_bytes(header.ljust(length, b"\0"))
  assert origins.load_params(tmp_path)["decoder"]["a"].tolist() == [1.0]


@pytest.mark.slow
def test_the_first_steps_are_bit_identical(source, imported, tmp_path):
  tones.world(tmp_path)
  runs = {}
  for init in (source, imported):
    c = sft.get_config("smoke")
    c.init, c.size = str(init), "init"
    c.data.options.dialogue.path = str(tmp_path / "prompts-train.jsonl")
    c.data.max_clip_s, c.data.max_tokens, c.data.max_clips = 1.0, 64, 1
    c.total_steps, c.batch_size = 3, 2
    folder = train.run(c, tmp_path / init.name)
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    runs[init.name] = losses, tree.content_hash(workdirs.load_params(folder))
  assert len(runs["source"][0]) == 3
  assert runs["source"] == runs["ckpt"]
