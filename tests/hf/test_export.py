"""The folder that an export leaves: what is in it, and when it is there."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import yaml
from etils import epath

from stepaudio_jax.hf import card as card_lib
from stepaudio_jax.hf import export as export_lib
from stepaudio_jax.hf import files, table
from stepaudio_jax.models import sizes
from stepaudio_jax.text.tokenizer import Special
from tests.hf import exports, published_7b

PUBLISHED = Special(
  bot=151666,
  eot=151665,
  eos=151643,
  audio_start=151688,
  audio_end=151689,
  audio_patch=151690,
  im_start=151644,
  im_end=151645,
  tool_call=151657,
  tool_call_end=151658,
  tts_start=151693,
  tts_end=151694,
  tts_pad=151695,
)


NBYTES = {
  key: 2 * math.prod(shape) for key, shape in table.their_shapes(exports.SIZE).items()
}


def write(params, folder, tokenizer, **changes):
  settings = {"tokenizer": tokenizer, "card": exports.CARD, "dtype": "float32"}
  export_lib.export(
    export_lib.Weights.of(params), exports.SIZE, folder, **{**settings, **changes}
  )


def test_published_config_has_exactly_the_published_keys():
  """model.md §4, written out by hand for the 7B."""
  got = files.config(sizes.size("step_audio_2_mini"), PUBLISHED, "bfloat16")
  assert got == {
    "architectures": ["StepAudio2ForCausalLM"],
    "auto_map": {
      "AutoConfig": "configuration_step_audio_2.StepAudio2Config",
      "AutoModelForCausalLM": "modeling_step_audio_2.StepAudio2ForCausalLM",
    },
    "model_type": "step_audio_2",
    "text_config": published_7b.TEXT,
    "audio_encoder_config": published_7b.AUDIO | {"llm_dim": 3584},
  }
  r1 = files.config(sizes.size("step_audio_r1"), PUBLISHED, "bfloat16")
  assert r1["text_config"]["rms_norm_eps"] == 1e-5
  assert r1["text_config"].keys() == got["text_config"].keys()


def test_other_sizes_add_four_keys(tokenizer):
  published = files.config(sizes.size("step_audio_2_mini"), PUBLISHED, "bfloat16")
  tiny = files.config(sizes.size("tiny"), tokenizer.special, "float32")
  ids = {"audio_start_id", "audio_end_id", "audio_patch_id"}
  assert tiny.keys() - published.keys() == ids
  assert tiny["audio_patch_id"] == tokenizer.special.audio_patch
  room = "audio_encoder_config"
  assert tiny[room].keys() - published[room].keys() == {"adapter_hidden"}
  assert tiny[room]["adapter_hidden"] == 256
  assert tiny["text_config"].keys() == published["text_config"].keys()


def test_generation_ends_by_name(tokenizer):
  assert files.generation_config(PUBLISHED) == {
    "eos_token_id": [151643, 151645, 151665],
    "pad_token_id": 151643,
  }
  without = dataclasses.replace(tokenizer.special, im_end=None)
  ends = files.generation_config(without)["eos_token_id"]
  assert ends == [tokenizer.special.eos, tokenizer.special.eot]


def test_files_of_an_export(folder):
  assert sorted(path.name for path in folder.iterdir()) == [
    "README.md",
    "chat_template.jinja",
    "config.json",
    "configuration_step_audio_2.py",
    "generation_config.json",
    "model-00001-of-00001.safetensors",
    "model.safetensors.index.json",
    "modeling_step_audio_2.py",
    "preprocessor_config.json",
    "processing_step_audio_2.py",
    "tokenizer.json",
    "tokenizer_config.json",
  ]
  settings = json.loads((folder / "tokenizer_config.json").read_text())
  assert settings["chat_template"] == (folder / "chat_template.jinja").read_text()


def test_tensors_of_an_export(folder, params):
  """Exactly the keys of the table, each where the index says, values untouched."""
  index = json.loads((folder / "model.safetensors.index.json").read_text())
  shapes = table.their_shapes(exports.SIZE)
  assert list(index["weight_map"]) == list(shapes)
  found = {}
  for name in sorted(set(index["weight_map"].values())):
    with safetensors.safe_open(folder / name, framework="numpy") as shard:
      assert shard.metadata() == {"format": "pt"}
    found |= {key: (name, array) for key, array in _load(folder / name).items()}
  assert {key: name for key, (name, _) in found.items()} == index["weight_map"]
  assert {key: array.shape for key, (_, array) in found.items()} == shapes
  total = sum(array.nbytes for _, array in found.values())
  assert index["metadata"]["total_size"] == total
  embedding = params["decoder"]["embed"]["embedding"]
  np.testing.assert_array_equal(found["model.embed_tokens.weight"][1], embedding)


def _load(path):
  return safetensors.numpy.load_file(path)


def test_several_shards(tmp_path, params, tokenizer):
  packed = export_lib.shards(NBYTES, 400_000)
  write(params, tmp_path / "out", tokenizer, dtype="bfloat16", shard_bytes=400_000)
  shards = sorted((tmp_path / "out").glob("*.safetensors"))
  assert len(shards) == len(packed) > 2
  assert shards[1].name == f"model-00002-of-{len(packed):05d}.safetensors"
  for path, keys in zip(shards, packed, strict=True):
    arrays = _load(path)
    assert set(arrays) == set(keys)
    assert {a.dtype for a in arrays.values()} == {np.dtype(ml_dtypes.bfloat16)}
  # Round to nearest even, as jax does it.
  norm = params["decoder"]["norm"]["scale"]
  wanted = np.asarray(jnp.asarray(norm).astype(jnp.bfloat16))
  name = export_lib.weight_map(packed)["model.norm.weight"]
  got = _load(tmp_path / "out" / name)["model.norm.weight"]
  np.testing.assert_array_equal(got, wanted)


def test_a_tensor_larger_than_the_cap_has_a_shard_of_its_own():
  packed = export_lib.shards(NBYTES, cap=1)
  assert all(len(keys) == 1 for keys in packed)


def test_card(folder, tokenizer):
  text = (folder / "README.md").read_text()
  assert text.startswith('---\nlicense: "apache-2.0"\nlanguage:\n- "en"\n- "zh"\n')
  assert "| pitch | 0.96 |" in text
  assert f"`<|BOT|>` {tokenizer.special.bot}," in text
  assert "{" not in text.replace('{"', "").replace('[{"', "")


def test_a_card_without_a_licence_says_so(tokenizer):
  card, special = {**exports.CARD, "license": ""}, tokenizer.special
  text = files.model_card(card, exports.SIZE, special, 1)
  assert text.startswith('---\nlanguage:\n- "en"\n- "zh"\nlibrary_name: transformers\n')
  assert "None has been named for these weights." in text
  assert "license" not in text


def front(text):
  """The front matter, as YAML is read."""
  return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("word", ["no", "1.0", "a: b", "x\n---\n# y", 'q"u\\o', "– ü"])
def test_the_front_matter_holds_whatever_is_typed(tokenizer, word):
  card = {**exports.CARD, "license": word, "languages": [word, "en"], "name": word}
  text = files.model_card(card, exports.SIZE, tokenizer.special, 1)
  found = front(text)
  assert found["license"] == word
  assert found["language"] == [word, "en"]
  assert found["pipeline_tag"] == "audio-text-to-text"
  name = " ".join(word.split())
  assert f"\n---\n\n# {name}\n\n" in text
  assert f"\nOf the weights: {name}.\n" in text


def test_a_reward_models_card_is_no_chat_models(tokenizer):
  rewards = {"dimensions": ["overall", "warmth"], "dims_on_thought": ["warmth"]}
  arguments = exports.CARD, exports.SIZE, tokenizer.special, 1
  text, other = (files.model_card(*arguments, it) for it in (rewards, None))
  assert "pipeline_tag" not in front(text)
  assert front(text)["tags"] == ["reward-model"]
  assert "generate" not in text
  assert "wav_lens" not in text
  assert (
    "for each dimension, in this order: `overall`, `warmth`. `warmth` reads" in text
  )
  assert 'origins.load_reward_model("FOLDER")' in text
  assert "\n\n## Use\n" in text
  assert "\n\n## Tokens\n" in text
  assert "reward" not in other
  assert "model.generate(" in other
  assert "wav_lens" in other


def test_a_card_names_no_place_on_this_machine(tmp_path):
  """Of a training run: where it started and what it read, by their names alone."""
  config = {
    "stage": "sft",
    "total_steps": 1200,
    "init": "/home/ann/runs/start",
    "data.mix.dialogue": 1.0,
    "data.options.dialogue.path": "/home/ann/talks.jsonl",
    "data.options.dialogue.split": "train",
  }
  (tmp_path / "config.json").write_text(json.dumps({"config": config}))
  made = card_lib.of_run(tmp_path, "3", name="x", license_="", languages=["en"])
  assert made["summary"].endswith("1,200 steps of sft, from start.")
  said = "* `dialogue`, weight 1.0: path `talks.jsonl`, split `train`"
  assert made["data"] == said


def test_existing_target_is_left_alone(tmp_path, params, tokenizer):
  (tmp_path / "out").mkdir()
  with pytest.raises(FileExistsError, match="out exists"):
    write(params, tmp_path / "out", tokenizer)
  assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_export_leaves_nothing(tmp_path, params, tokenizer, monkeypatch):
  seen = []

  def interrupt(*_, **__):
    seen.extend(path.name for path in tmp_path.iterdir())
    raise KeyboardInterrupt

  monkeypatch.setattr(export_lib.blocks, "not_finite", interrupt)
  with pytest.raises(KeyboardInterrupt):
    write(params, tmp_path / "out", tokenizer)
  assert set(seen) == {"out.partial"}
  assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_replaced(tmp_path, params, tokenizer, folder):
  (tmp_path / "out.partial").mkdir()
  (tmp_path / "out.partial" / "model-00009-of-00009.safetensors").write_text("half")
  write(params, tmp_path / "out", tokenizer)
  names = {path.name for path in (tmp_path / "out").iterdir()}
  assert names == {path.name for path in folder.iterdir()}
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_bad_input_names_what_is_wrong(tmp_path, params, tokenizer):
  out = tmp_path / "out"
  broken = {**params, "adaptor": dict(params["adaptor"])}
  broken["adaptor"]["linear1"] = {
    "kernel": params["adaptor"]["linear1"]["kernel"],
    "bias": np.full(80, np.nan, np.float32),
  }
  with pytest.raises(
    ValueError, match=r"finite:\n  adapter\.linear1\.bias as float32: 80 values$"
  ):
    write(broken, out, tokenizer)
  with pytest.raises(ValueError, match=r"float16.*bfloat16.*float32"):
    write(params, out, tokenizer, dtype="float16")
  card = {**exports.CARD, "author": "?"}
  del card["data"]
  with pytest.raises(ValueError, match=r"\['author', 'data'\]"):
    write(params, out, tokenizer, card=card)
  assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_beyond_the_embedding_is_refused(tmp_path, params, tokenizer):
  size = dataclasses.replace(exports.SIZE, vocabulary=512)
  with pytest.raises(ValueError, match=r"tiny.*embedding of size test only 512"):
    export_lib.export(
      export_lib.Weights.of(params),
      size,
      tmp_path / "out",
      tokenizer=tokenizer,
      card=exports.CARD,
    )


def test_a_width_without_a_key_is_refused(tokenizer):
  size = dataclasses.replace(exports.SIZE, head_width=32)
  with pytest.raises(ValueError, match="no key for heads of 32"):
    files.config(size, tokenizer.special, "float32")


def test_every_tensor_that_is_not_finite_is_named(tmp_path, params, tokenizer):
  """Also one whose largest value is beyond bfloat16, which has the range of float32."""
  broken = {**params, "adaptor": jax.tree.map(np.copy, params["adaptor"])}
  broken["adaptor"]["linear2"]["kernel"][3, 5:7] = np.inf
  broken["adaptor"]["conv"]["bias"][2] = np.finfo(np.float32).max
  with pytest.raises(ValueError, match="not finite") as error:
    write(broken, tmp_path / "out", tokenizer, dtype="bfloat16")
  assert sorted(str(error.value).splitlines()[1:]) == [
    "  adapter.conv.bias as bfloat16: 1 values",
    "  adapter.linear2.weight as bfloat16: 2 values",
  ]
  assert list(tmp_path.iterdir()) == []


def test_kept_dtypes_are_each_tensors_own(tmp_path, params, tokenizer):
  mixed = {**params, "encoder": jax.tree.map(_bfloat16, params["encoder"])}
  write(mixed, tmp_path / "out", tokenizer, dtype="keep")
  arrays = _load(tmp_path / "out" / "model-00001-of-00001.safetensors")
  for key, array in arrays.items():
    wanted = ml_dtypes.bfloat16 if key.startswith("encoder.") else np.float32
    assert array.dtype == wanted, key
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["text_config"]["torch_dtype"] == "bfloat16"  # 25 of its 45 leaves


def _bfloat16(leaf):
  return leaf.astype(ml_dtypes.bfloat16)


def test_an_object_store_gets_its_files_when_they_are_whole(tmp_path, monkeypatch):
  """There a file cannot be written out of order: it is copied from a local one."""
  target = epath.Path(tmp_path)
  monkeypatch.setattr(type(target), "__str__", lambda self: "gs://somewhere")
  with export_lib._local(target) as room:
    assert room != tmp_path
    (room / "a.safetensors").write_bytes(b"weights")
    assert list(tmp_path.iterdir()) == []
  monkeypatch.undo()
  assert (tmp_path / "a.safetensors").read_bytes() == b"weights"
  assert not room.exists()
