"""The command: what it prints, what it refuses, and that what it leaves can be used."""

import json
import os

import jax
import numpy as np
import pytest

from configs import sft
from stepaudio_jax import (
  convert,
  generate,
  learner,
  meshes,
  origins,
  sharding,
  train,
  workdirs,
)
from stepaudio_jax.checkpoint import Checkpoints
from stepaudio_jax.core import disk, storage, tree
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.hf import hub
from stepaudio_jax.models import step_audio
from stepaudio_jax.text import tokenizer as tokenizers
from tests import tones
from tests.hf import directories, exports


@pytest.fixture(scope="module")
def tokenizer():
  return tokenizers.load("tiny")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  folder = tmp_path_factory.mktemp("source")
  return directories.step_audio(folder / "hf", directories.tensors())


@pytest.fixture(scope="module")
def imported(source):
  """A checkpoint in bfloat16, of a size that no row has, by the command line."""
  convert.main(["import", "--from", str(source), "--to", str(source.parent / "ckpt")])
  return source.parent / "ckpt"


def test_it_leaves_what_a_run_leaves(imported):
  assert sorted(path.name for path in imported.iterdir()) == [
    "checkpoints",
    "manifest.json",
    "model.json",
    "tokenizer",
  ]
  assert storage.step_folder(imported).name == "0"
  manifest = json.loads((imported / "manifest.json").read_text())
  assert manifest["import"] == {
    "sources": [{"name": str(imported.parent / "hf"), "kind": "Step-Audio"}],
    "dtype": "bfloat16",
    "fresh": [],
    "lacking": [],
    "left_out": 0,
  }
  assert manifest["seeds"] == {"seed": 0}


def test_bfloat16_computes_as_the_same_values_in_float32(imported, tokenizer):
  """They are float32 values: rounding happens once, at the import."""
  prompts = [exports.prompt(tokenizer.special, (60, 33), seed=2)]
  used = workdirs.load_model(imported).params
  masters = workdirs.load_params(imported)
  rounded, whole = (exports.our_logits(x, prompts, 48) for x in (used, masters))
  assert whole.std() > 0.05
  np.testing.assert_allclose(rounded, whole, atol=1e-5)


@pytest.mark.slow
def test_generation_says_the_same_from_both(imported, tmp_path):
  leaves = dict(tree.named_leaves(workdirs.load_params(imported)))
  sizes = {path: leaf.nbytes for path, leaf in leaves.items()}
  storage.save_leaves(tmp_path / "float32", sizes, iter(leaves.items()))
  workdirs.describe(
    tmp_path / "float32",
    workdirs.load_size(imported),
    workdirs.load_tokenizer(imported),
  )
  tones.world(tmp_path)
  asked = {"audio": [tmp_path / "0.wav"], "prompt": "Pitch?", "seed": 3}
  first, second = (
    generate.run(checkpoint=folder, max_new_tokens=6, **asked)
    for folder in (imported, tmp_path / "float32")
  )
  assert first.token_ids == second.token_ids
  assert len(set(first.token_ids)) > 1
  np.testing.assert_allclose(first.logprobs, second.logprobs, atol=1e-5)


def sft_recipe(world, init):
  c = sft.get_config("smoke")
  c.init, c.size = str(init), "init"
  c.data.options.dialogue.path = str(world / "prompts-train.jsonl")
  c.data.max_clip_s, c.data.max_tokens, c.data.max_clips = 1.0, 64, 1
  c.total_steps, c.batch_size = 1, 2
  return c


def test_training_starts_from_it_in_float32(imported, tokenizer):
  c, size = sft_recipe(imported, imported), workdirs.load_size(imported)
  mesh = meshes.mesh(c.mesh)
  params = train.initial_params(c, size, tokenizer, jax.random.key(0), mesh)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  arrays = directories.tensors()
  norm = params["decoder"]["norm"]["scale"]
  assert norm.tolist() == arrays["model.norm.weight"].astype(np.float32).tolist()


@pytest.mark.slow
def test_training_goes_on_from_it_with_the_files_epsilon(imported, tmp_path):
  tones.world(tmp_path)
  folder = train.run(sft_recipe(tmp_path, imported), tmp_path / "run")
  stored = storage.Leaves(folder)
  assert set(stored.dtypes.values()) == {np.dtype(np.float32)}
  size = workdirs.load_size(folder)
  assert size == workdirs.load_size(imported)
  assert size.norm_eps == 1e-3  # the file's; no row has it
  before, after = workdirs.load_params(imported), workdirs.load_params(folder)
  assert tree.content_hash(before["encoder"]) == tree.content_hash(after["encoder"])
  assert tree.content_hash(before["decoder"]) != tree.content_hash(after["decoder"])


def test_policy_gradients_start_from_float32_too(imported):
  import optax

  class NoCritic:
    CRITIC = False

  c, size = sft_recipe(imported, imported), workdirs.load_size(imported)
  place = sharding.placer(
    meshes.mesh(c.mesh),
    step_audio.axis_names(size),
    dict.fromkeys(step_audio.PARTS, np.float32),
  )
  params = workdirs.load_params(imported, place=place)
  state = learner.initial_state(c, params, optax.adam(1e-3), NoCritic)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.frozen))}
  assert dtypes == {np.dtype(np.float32)}


def test_a_named_row_gets_what_shapes_do_not_show_from_the_start(imported):
  row = origins.start_size("tiny", imported)
  assert (row.name, row.width, row.norm_eps) == ("tiny", 128, 1e-3)
  assert origins.start_size("tiny", "").norm_eps == 1e-6
  with pytest.raises(ValueError, match="unknown size 'init'"):
    origins.start_size("init", "")


def test_an_export_of_a_run_says_what_the_run_was(imported, tmp_path):
  """The card of a run's files; another name, licence and tokenizer are given."""
  run = tmp_path / "run"
  os.symlink(imported, run)
  tokenizers.load("tiny").save(tmp_path / "words")
  arguments = ["--name", "Our model", "--license", "mit", "--language", "en", "zh"]
  arguments += ["--tokenizer", str(tmp_path / "words"), "--shard-gb", "0.0005"]
  out = tmp_path / "hf"
  convert.main(["export", "--from", str(run), "--to", str(out), *arguments])
  card = (out / "README.md").read_text()
  assert card.startswith('---\nlicense: "mit"\nlanguage:\n- "en"\n- "zh"\n')
  assert "# Our model\n" in card
  assert "the weights of hf (Step-Audio)." in card
  assert "Of the weights: mit.\n" in card
  assert str(imported.parent) not in card.split("## How it was made")[0]
  assert len(list(out.glob("*.safetensors"))) == 3  # of 1.34 MB
  arrays = directories.read(out)
  for key, array in directories.tensors().items():
    assert arrays[key].tobytes() == array.tobytes(), key


def test_the_check_of_an_export_and_its_source(imported, source, tmp_path, capsys):
  command = ["check", "--b", str(imported), "--no-logits", "--out", str(tmp_path / "r")]
  convert.main([*command, "--a", str(source)])
  assert capsys.readouterr().out.endswith("equal\n")
  assert json.loads((tmp_path / "r").read_text())["equal"] is True
  other = directories.step_audio(tmp_path / "hf", directories.tensors(seed=1))
  with pytest.raises(SystemExit) as stop:
    convert.main([*command, "--a", str(other)])
  assert stop.value.code == 1
  assert capsys.readouterr().out.endswith("NOT equal\n")


def test_an_existing_target_is_left_alone(source, imported, tmp_path, capsys):
  (tmp_path / "out").mkdir()
  for command in (
    ["import", "--from", str(source)],
    ["export", "--from", str(imported)],
  ):
    with pytest.raises(SystemExit) as stop:
      convert.main([*command, "--to", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert f"{tmp_path / 'out'} exists; name a new folder" in capsys.readouterr().err
  assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_import_leaves_nothing(source, tmp_path, monkeypatch):
  seen = []

  def interrupt(*_):
    seen.extend(path.name for path in tmp_path.iterdir())
    raise KeyboardInterrupt

  monkeypatch.setattr(convert.workdirs, "describe", interrupt)
  with pytest.raises(KeyboardInterrupt):
    convert.import_([source], tmp_path / "out")
  assert seen == ["out.partial"]
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["import", "--from", "x"], "import needs --to, or --dry-run"),
    (["import", "--from", "nowhere", "--to", "y"], "there is no folder nowhere"),
    (["export", "--from", "nowhere", "--to", "y"], "no checkpoint in nowhere"),
    (
      ["export", "--from", "nowhere", "--to", "y", "--shard-gb", "0"],
      "shard_gb=0 (--shard-gb) must be more than 0",
    ),
    (["import", "--from", "hf://a", "--to", "y"], "'hf://a' is not hf://OWNER/NAME"),
    (
      ["import", "--from", "x", "--to", "y", "--dtype", "int8"],
      "invalid choice: 'int8'",
    ),
  ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, message, capsys):
  with pytest.raises(SystemExit) as stop:
    convert.main(arguments)
  assert stop.value.code == 2
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_hub_offline_is_one_line(capsys):
  """conftest.py forbids the network."""
  with pytest.raises(SystemExit) as stop:
    convert.main(["import", "--from", "hf://no-body/no-thing@v1", "--dry-run"])
  assert stop.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(
    "convert import: hf://no-body/no-thing@v1 could not be fetched"
  )


def test_the_hub_is_asked_for_what_is_read(monkeypatch, tmp_path):
  import huggingface_hub

  asked = {}

  def download(repository, **options):
    asked.update(options, repository=repository)
    return str(tmp_path)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
  assert hub.local("hf://a/b@v1") == tmp_path
  assert (asked["repository"], asked["revision"]) == ("a/b", "v1")
  assert not [p for p in asked["allow_patterns"] if "bin" in p or p == "*"]
  assert hub.local("a/b").parts == ("a", "b")  # a folder here


def test_both_roads_out_of_a_checkpoint_are_one(imported, tmp_path, capsys):
  """A training run's arrays share a store, an import's lie in files of their own."""
  params = workdirs.load_params(imported, keep_dtype=True)
  saved = Checkpoints(tmp_path / "run", every_steps=1, keep=1)
  zero = np.zeros((), np.int32)
  saved.save(0, TrainState(params, {}, (), zero, np.zeros(2, np.uint32)), {})
  saved.close()
  size, tokenizer = workdirs.load_size(imported), workdirs.load_tokenizer(imported)
  workdirs.describe(tmp_path / "run", size, tokenizer)
  exports_of = {}
  for source in (imported, tmp_path / "run"):
    out = tmp_path / f"out-{source.name}"
    capsys.readouterr()
    convert.export_(source, out, name="x", shard_gb=0.0005)
    road = capsys.readouterr().err.strip().split("parameters are read ")[1]
    paths = [path for path in out.iterdir() if path.name != "README.md"]
    exports_of[road.split()[0]] = {path.name: path.read_bytes() for path in paths}
  assert exports_of["file"] == exports_of["through"]
  assert len([name for name in exports_of["file"] if "model-" in name]) == 3


def test_large_tensors_go_in_parts(source, tmp_path, monkeypatch):
  """Cut where no row ends, and turned ones begun first: nothing of it shows."""
  monkeypatch.setattr(disk, "SOME_BYTES", 1000)
  monkeypatch.setattr(disk, "LARGE_BYTES", 20_000)
  convert.import_([source], tmp_path / "ckpt", dtype="float32")
  convert.export_(tmp_path / "ckpt", tmp_path / "hf", dtype="bfloat16", shard_gb=0.0005)
  arrays = directories.read(tmp_path / "hf")
  for key, array in directories.tensors().items():
    assert arrays[key].tobytes() == array.tobytes(), key
