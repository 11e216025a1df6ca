"""A reward model from preferences to a loadable checkpoint, at a few steps."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from configs import reward_model, sft
from stepaudio_jax import checkpoint, logs, train, workdirs
from stepaudio_jax.core import recipe, tree
from stepaudio_jax.core.types import TrainState
from stepaudio_jax.models import sizes, step_audio
from stepaudio_jax.text import tokenizer as tokenizers
from tests import small

LITTLE = dataclasses.replace(small.SIZE, name="tiny", vocabulary=1024)
DIMENSIONS = ("overall", "naturalness")


@pytest.fixture(autouse=True)
def little_model(monkeypatch):
  monkeypatch.setitem(sizes.SIZES, "tiny", LITTLE)


def write_preferences(folder, split="train", pairs=8, gold=True):
  """Two raters; a reply that says "sorry" is the worse one, in its two places."""
  tone_N = 0.3 * np.sin(2 * np.pi * 300 * np.arange(8_000) / 16_000)
  soundfile.write(folder / "a.wav", tone_N, 16_000)
  heard = [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "Pitch?"}]
  rows = []
  for k in range(pairs):
    texts = ["It is low.", f"sorry {'low ' * (k % 3)}sorry"][:: -1 if k % 2 else 1]
    worse = 1 if k % 2 else -1
    for rater in ("r0", "r1"):
      row = {
        "schema": "pref/1",
        "id": f"{k}-{rater}",
        "task_id": f"t{k}",
        "rater": rater,
        "context": [{"role": "human", "content": heard}],
        "candidates": [
          {"cid": cid, "text": text, "think": "A tone.", "model": "m"}
          for cid, text in zip("ab", texts, strict=True)
        ],
        "overall": 2 * worse if rater == "r0" else worse,
        "dims": {"naturalness": None if rater == "r1" else worse},
        "scores": {"a": {"naturalness": 3 - worse}, "b": {"naturalness": 3 + worse}},
        "ts": 0,
        "order_seed": k,
      }
      if gold:
        marks = {"a": {"naturalness": 3.0 - worse}, "b": {"naturalness": 3.0 + worse}}
        row["gold"] = marks | {"simulated": True}
      rows.append(row)
  path = folder / f"preferences-{split}.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  """Preferences, and a checkpoint of random weights as SFT leaves it."""
  import jax
  import jax.numpy as jnp

  folder = tmp_path_factory.mktemp("start")
  write_preferences(folder)
  params = step_audio.init_params(jax.random.key(0), LITTLE)
  key = jax.random.key_data(jax.random.key(0))
  saved = checkpoint.Checkpoints(folder / "sft", every_steps=1, keep=1)
  saved.save(1, TrainState(params, {}, {}, jnp.int32(1), key), {})
  saved.close()
  workdirs.describe(folder / "sft", LITTLE, tokenizers.load("tiny"))
  return folder


def recipe_of(start, steps=6, **changes):
  c = reward_model.get_config("smoke")
  c.init = str(start / "sft")
  c.dimensions, c.dims_on_thought = DIMENSIONS, ("naturalness",)
  c.data.options.preference.path = str(start / "preferences-train.jsonl")
  c.data.max_clips, c.data.max_clip_s, c.data.max_raters = 1, 0.6, 2
  c.data.max_tokens = 64
  c.total_steps, c.batch_size, c.microbatches = steps, 4, 2
  c.optim.schedule = "constant"
  c.checkpoint.every_steps = 3
  c.update_from_flattened_dict(changes)
  return c


def rows_of(folder):
  rows = logs.read_metrics(folder / "metrics.jsonl")
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in rows]


def test_stopped_and_resumed_equals_never_stopped(start, tmp_path):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  train.run(recipe_of(start), whole)
  train.run(recipe_of(start, steps=3), parts)
  train.run(recipe_of(start), parts)
  a, b = workdirs.load_params(whole), workdirs.load_params(parts)
  assert tree.content_hash(a) == tree.content_hash(b)
  assert rows_of(whole) == rows_of(parts)


def test_it_learns_and_leaves_what_is_needed_to_use_it(start, tmp_path):
  folder = tmp_path / "rm"
  train.run(recipe_of(start, steps=40, **{"optim.lr": 5e-3}), folder)
  rows = rows_of(folder)
  assert rows[0]["train/bradley_terry"] == pytest.approx(np.log(2), abs=0.3)
  assert rows[-1]["train/bradley_terry"] < 0.3
  assert rows[-1]["train/accuracy_overall"] == 1.0
  assert rows[-1]["train/accuracy_naturalness"] == 1.0
  loaded = workdirs.load_reward_model(folder)
  assert (loaded.dimensions, loaded.on_thought) == (DIMENSIONS, (False, True))
  assert loaded.params["rewards"]["linear"]["kernel"].shape == (LITTLE.width, 2)
  before = workdirs.load_params(start / "sft")
  assert tree.content_hash(before["encoder"]) == tree.content_hash(
    loaded.params["encoder"]
  )
  with pytest.raises(ValueError, match="holds a reward model, which writes no replies"):
    workdirs.load_model(folder)
  with pytest.raises(ValueError, match=r"no reward model.*\['rewards'\].*absent"):
    workdirs.load_reward_model(start / "sft")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"dims_on_thought": ("overal",)}, r"dims_on_thought \['overal'\] are not in"),
    ({"dimensions": ("overall", "warmth")}, r"\['warmth'\] have no label.*naturalness"),
    ({"loss.margin": 0.5, "loss.scaled": True}, r"margin=0.5 with scaled=True"),
    ({"loss.weights.centring": -1.0}, r"weights of the loss .*'centring': -1.0"),
    (
      {"loss.weights.bradley_terry": 0.0, "loss.weights.regression": 0.0},
      r"nothing is learned",
    ),
    ({"fresh": ()}, r"\['rewards'\] are not in init="),
    ({"data.max_raters": 1}, r"has 2 raters, max_raters is 1"),
  ],
)
def test_wrong_settings_name_the_value_and_the_choices(
  start, tmp_path, changes, message
):
  c = recipe_of(start)
  for key, value in changes.items():
    *folders, last = key.split(".")
    node = c
    for name in folders:
      node = node[name]
    setattr(node, last, value)
  if "dimensions" in changes:
    c.dims_on_thought = ()
  with pytest.raises(ValueError, match=message):
    train.run(c, tmp_path / "run")


def test_the_recipe_has_every_key_that_the_loop_reads():
  shared = {key for key in recipe.flat(sft.get_config("")) if "data" not in key}
  assert shared <= set(recipe.flat(reward_model.get_config("")))
  assert train.checked(reward_model.get_config("")) is not None
