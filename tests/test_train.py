"""The supervised loop: resume, errors, what a run leaves behind."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import soundfile

from configs import midtrain, prealign, sft
from stepaudio_jax import checkpoint, logs, meshes, steps, train, workdirs
from stepaudio_jax.core import recipe, storage, tree
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.text import tokenizer as tokenizers
from tests import small

LITTLE = dataclasses.replace(small.SIZE, name="tiny", vocabulary=1024)
WORDS = ("one", "two", "three", "four")


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  """Recipes say size=tiny; these tests need no more than a few thousand weights."""
  monkeypatch.setitem(sizes.SIZES, "tiny", LITTLE)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Eight tones with transcripts, and dialogues about them; no synthesis needed."""
  folder = tmp_path_factory.mktemp("world")
  time_N = np.arange(16_000) / 16_000
  clips, talks = [], []
  for i in range(8):
    low = i % 2 == 0
    tone_N = 0.3 * np.sin(2 * np.pi * (200 if low else 600) * time_N)
    soundfile.write(folder / f"{i}.wav", tone_N, 16_000)
    pitch = "low" if low else "high"
    clips.append(
      {
        "id": f"clip-{i}",
        "audio": {"path": f"{i}.wav"},
        "transcript": f"{WORDS[i % 4]} {WORDS[i // 2]}",
        "attributes": {"pitch": pitch},
      }
    )
    heard = [{"type": "audio", "path": f"{i}.wav"}, {"type": "text", "text": "Pitch?"}]
    reply = {
      "role": "assistant",
      "think": "I hear a tone.",
      "content": f"It is {pitch}.",
    }
    talks.append(
      {"id": f"talk-{i}", "messages": [{"role": "human", "content": heard}, reply]}
    )
  for name, rows in {"clips": clips, "talks": talks}.items():
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines)
  return folder


def hear_recipe(world, steps=6):
  c = prealign.get_config("phase=hear,smoke")
  c.data.options.speech.path = str(world / "clips.jsonl")
  c.data.max_clip_s = 1.0
  c.data.attributes = {"pitch": ("low", "middle", "high")}
  c.total_steps, c.batch_size = steps, 4
  c.optim.schedule = "constant"  # so that a shorter run is a prefix of a longer one
  c.checkpoint.every_steps = 3
  return c


def talk_recipe(world, init, steps=6, pack=True):
  c = prealign.get_config("phase=speak,smoke")
  c.init = str(init)
  c.data.options.dialogue.path = str(world / "talks.jsonl")
  c.data.max_clip_s, c.data.max_tokens, c.data.pack = 1.0, 128, pack
  c.total_steps, c.batch_size, c.microbatches = steps, 4, 2
  c.optim.schedule = "constant"
  c.checkpoint.every_steps = 3
  return c


@pytest.fixture(scope="module")
def heard(world, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "hear"
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sizes.SIZES, "tiny", LITTLE)
    train.run(hear_recipe(world), folder)
  return folder


def untimed(folder):
  rows = logs.read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in rows]


@pytest.mark.parametrize("stage", ["hear", "speak"])
def test_stopped_and_resumed_equals_never_stopped(world, heard, tmp_path, stage):
  def recipe_of(steps):
    if stage == "hear":
      return hear_recipe(world, steps)
    return talk_recipe(world, heard, steps)

  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train.run(recipe_of(6), whole)
  train.run(recipe_of(3), parts)
  train.run(recipe_of(6), parts)
  a, b = workdirs.load_params(whole), workdirs.load_params(parts)
  assert tree.content_hash(a) == tree.content_hash(b)
  assert untimed(whole) == untimed(parts)
  assert len(untimed(whole)) == 6


def test_a_resumed_run_hears_with_the_encoder_it_was_started_with(
  world, heard, tmp_path, monkeypatch
):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train.run(talk_recipe(world, heard, 6), whole)
  train.run(talk_recipe(world, heard, 3), parts)
  shutil.rmtree(parts / "cache")
  load = workdirs.load_params

  def another(folder, place):  # `init` was trained anew meanwhile
    return load(folder, place=lambda path, leaf: place(path, leaf + 0.1))

  with monkeypatch.context() as patch:
    patch.setattr(train.workdirs, "load_params", another)
    train.run(talk_recipe(world, heard, 6), parts)
  assert untimed(whole) == untimed(parts)
  a, b = load(whole), load(parts)
  assert tree.content_hash(a) == tree.content_hash(b)


def test_a_run_cannot_end_before_its_checkpoint(world, tmp_path):
  train.run(hear_recipe(world, 3), tmp_path / "run")
  with pytest.raises(ValueError, match=r"total_steps=2, but .*/run holds step 3"):
    train.run(hear_recipe(world, 2), tmp_path / "run")


def test_saving_is_timed_apart(world, tmp_path, monkeypatch):
  save = checkpoint.Checkpoints.save

  def slow(*args):
    time.sleep(0.3)
    save(*args)

  monkeypatch.setattr(checkpoint.Checkpoints, "save", slow)
  train.run(hear_recipe(world, 5), tmp_path / "run")  # a checkpoint after step 3
  rows = logs.read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert [row["time/save_s"] > 0.3 for row in rows] == [0, 0, 0, 1, 0]
  assert all(row["time/data_s"] < 0.3 for row in rows)


def test_fresh_parts_are_the_models_own_and_the_others_are_read(world, heard):
  c = talk_recipe(world, heard)
  tokenizer, rng = tokenizers.load(c.tokenizer), jax.random.key(7)
  params = train.initial_params(c, LITTLE, tokenizer, rng, meshes.mesh(c.mesh))
  made = step_audio.init_params(jax.random.split(rng)[0], LITTLE)
  for part in ("adaptor", "decoder"):
    assert tree.content_hash(params[part]) == tree.content_hash(made[part])
  before = workdirs.load_params(heard)["encoder"]
  assert tree.content_hash(params["encoder"]) == tree.content_hash(before)


def test_an_encoder_whose_frames_are_kept_cannot_be_trained(world, heard, tmp_path):
  c = talk_recipe(world, heard)
  c.trainable = ("encoder", "decoder")
  with pytest.raises(
    ValueError, match=r"'encoder', 'decoder'\): 'next_token' reads fr"
  ):
    train.run(c, tmp_path / "run")


def test_the_command_ends_with_status_0_and_leaves_a_run(world, tmp_path):
  """As a person types it, in a process of its own; the model is the little one."""
  (tmp_path / "little.py").write_text(
    "from stepaudio_jax.models import sizes\n"
    "from tests import test_train\n"
    "def get_config(arg):\n"
    "  sizes.SIZES['tiny'] = test_train.LITTLE\n"
    "  return test_train.hear_recipe(test_train.pathlib.Path(arg))\n"
  )
  recipe_file = f"{tmp_path / 'little.py'}:{world}"
  command = [sys.executable, "-m", "stepaudio_jax.train", "--config", recipe_file]
  done = subprocess.run(
    [*command, "--workdir", str(tmp_path / "run"), "--config.total_steps=2"],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(__file__).resolve().parents[1],
  )
  assert (done.returncode, done.stdout) == (0, ""), done.stderr
  assert "trained" in done.stderr
  assert "INFO" not in done.stderr
  assert [row["step"] for row in untimed(tmp_path / "run")] == [1, 2]
  assert storage.step_folder(tmp_path / "run").name == "2"


def test_rows_after_the_checkpoint_are_written_again_not_twice(world, tmp_path):
  run = tmp_path / "run"
  train.run(hear_recipe(world, 3), run)
  with (run / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4, "train/loss": 1.0}\n{"step": 5, "train/lo')  # killed here
  train.run(hear_recipe(world, 6), run)
  assert [row["step"] for row in untimed(run)] == [1, 2, 3, 4, 5, 6]


def test_speaking_leaves_the_encoder_alone_and_makes_a_whole_model(
  world, heard, tmp_path
):
  train.run(talk_recipe(world, heard), tmp_path / "speak")
  model = workdirs.load_model(tmp_path / "speak")
  before = workdirs.load_params(heard)["encoder"]
  assert tree.content_hash(model.params["encoder"]) == tree.content_hash(before)
  assert model.size.vocabulary == 1024
  saved = {path.name for path in (tmp_path / "speak").iterdir()}
  wanted = {
    "config.json",
    "manifest.json",
    "metrics.jsonl",
    "checkpoints",
    "tensorboard",
  }
  assert wanted <= saved
  manifest = json.loads((tmp_path / "speak" / "manifest.json").read_text())
  assert manifest["seeds"] == {"seed": 0}


def test_packing_changes_no_loss(world, heard, tmp_path):
  """Eight examples in one batch, two a row, or one a row: the same mean loss."""
  losses = {}
  for pack, rows in ((True, 8), (False, 8)):
    c = talk_recipe(world, heard, steps=1, pack=pack)
    c.batch_size = rows
    train.run(c, tmp_path / str(pack))
    losses[pack] = untimed(tmp_path / str(pack))[0]
  # Packed, the batch holds further epochs of the same eight examples.
  assert losses[True]["train/loss"] == pytest.approx(
    losses[False]["train/loss"], rel=1e-5
  )


def test_mixed_streams_log_both_losses(world, heard, tmp_path):
  rows = [
    {
      "id": f"text-{i}",
      "messages": [
        {"role": "human", "content": "Is two even?"},
        {"role": "assistant", "content": "Yes."},
      ],
    }
    for i in range(4)
  ]
  path = tmp_path / "text.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  c = midtrain.get_config("smoke")
  c.init, c.fresh = str(heard), ("adaptor", "decoder")
  c.data.options.spoken.path = str(world / "talks.jsonl")
  c.data.options.written.path = str(path)
  c.data.max_clip_s, c.data.max_tokens = 1.0, 128
  c.total_steps, c.batch_size = 2, 4
  train.run(c, tmp_path / "mid")
  row = untimed(tmp_path / "mid")[-1]
  assert row["train/loss_spoken"] > 0
  assert row["train/loss_written"] > 0


def test_another_config_in_the_same_workdir_lists_what_changed(world, tmp_path):
  train.run(hear_recipe(world, 1), tmp_path / "run")
  changed = hear_recipe(world, 1)
  changed.optim.lr = 1.0
  changed.log.every_steps = 2  # free to change
  with pytest.raises(ValueError, match=r"optim\.lr: 0\.005 → 1\.0\. Use"):
    train.run(changed, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_with_step_and_ids(world, tmp_path):
  c = hear_recipe(world, 6)
  train.run(hear_recipe(world, 3), tmp_path / "run")
  before = tree.content_hash(workdirs.load_params(tmp_path / "run"))
  objective = train.OBJECTIVES["hear"]

  def poisoned(*args, **options):
    batches, feed, loss_fn = objective.make(*args, **options)

    def loss_with_nan(params, batch, rng):
      total, metrics = loss_fn(params, batch, rng)
      return total * np.nan, metrics | {
        "loss": type(metrics["loss"])(total * np.nan, metrics["loss"].count)
      }

    return batches, feed, loss_with_nan

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(
      train.OBJECTIVES, "hear", dataclasses.replace(objective, make=poisoned)
    )
    with pytest.raises(steps.NonFiniteLoss, match=r"nan at step 4, examples \['clip-"):
      train.run(c, tmp_path / "run")
  assert storage.step_folder(tmp_path / "run").name == "3"
  assert tree.content_hash(workdirs.load_params(tmp_path / "run")) == before


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": "huge"}, r"unknown size 'huge'.*step_audio_r1"),
    (
      {"objective": "sing"},
      r"unknown objective 'sing'.*'hear', 'mixture', 'next_token', 'pref",
    ),
    ({"dtype": "float64"}, r"unknown dtype 'float64'.*\['bfloat16', 'float32'\]"),
    (
      {"remat": "some"},
      r"unknown remat 'some'.*'attention', 'dots', .*'full', 'minimal'",
    ),
    ({"fresh": ("encoder",)}, r"\['hear'\] are not in init=''"),
    ({"fresh": ("ear", "hear")}, r"unknown parts \['ear'\].*'encoder', 'hear'"),
    ({"optim.name": "adamm"}, r"unknown optimiser 'adamm'.*adamw"),
    ({"optim.schedule": "sine"}, r"unknown schedule 'sine'.*cosine"),
    ({"mesh.tensor": 2}, r"mesh .*'tensor': 2.* does not fit 1 devices"),
    ({"attention": "flash"}, r"unknown attention 'flash'.*'auto', 'cudnn', 'plain'"),
    ({"head_chunks": 0}, "head_chunks=0: must be at least 1"),
    ({"data.symbols": "phones"}, r"unknown CTC unit 'phones'.*letters"),
    ({"microbatches": 3}, r"batch_size 4 is not a multiple of 3 microbatches × 1 dev"),
    ({"data.mix": {"speach": 1.0}}, r"speach"),
  ],
)
def test_wrong_settings_name_the_value_and_the_choices(
  world, tmp_path, change, message
):
  c = hear_recipe(world)
  c.update_from_flattened_dict(change) if "data.mix" not in change else setattr(
    c.data, "mix", change["data.mix"]
  )
  with pytest.raises(ValueError, match=message):
    train.run(c, tmp_path / "run")


def test_an_unknown_key_lists_the_keys_there_are(world, tmp_path):
  c = hear_recipe(world)
  c.optim.unlock()
  c.optim.warmup = 3
  with pytest.raises(
    ValueError, match=r"unknown key 'optim\.warmup'.*optim\.warmup_st"
  ):
    train.run(c, tmp_path / "run")


@pytest.mark.parametrize("module", [prealign, midtrain, sft])
def test_every_recipe_has_every_key_the_loop_reads(module):
  keys = {key for key in recipe.flat(module.get_config("")) if "data" not in key}
  assert keys == {key for key in recipe.flat(sft.get_config("")) if "data" not in key}
  with pytest.raises(ValueError, match=r"unknown argument 'sizes'.*'size'"):
    module.get_config("sizes=tiny")
