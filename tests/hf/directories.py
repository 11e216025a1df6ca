"""Small but complete Hugging Face directories of every kind, by other people's code."""

import json
import pathlib

import ml_dtypes
import numpy as np
import safetensors.numpy
import torch
import transformers

from stepaudio_jax.core import tree
from stepaudio_jax.core.types import Params
from stepaudio_jax.hf import table
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text import tokenizer as tokenizer_lib
from tests.hf import exports

BF16 = np.dtype(ml_dtypes.bfloat16)
SIZE = exports.SIZE
TEXT = {
  "hidden_size": 96,
  "intermediate_size": 160,
  "num_attention_heads": 6,
  "num_attention_groups": 2,
  "num_key_value_heads": 2,
  "num_hidden_layers": 3,
  "max_seq_len": 2048,
  "vocab_size": 1040,
  "rms_norm_eps": 1e-3,
  "eos_token_id": 1,
  "rope_theta": 1e4,
  "max_position_embeddings": 2048,
  "rope_scaling": None,
}
AUDIO = {
  "n_mels": 128,
  "n_audio_ctx": 1500,
  "n_audio_state": 64,
  "n_audio_head": 2,
  "n_audio_layer": 2,
  "n_codebook_size": 4096,
  "llm_dim": 96,
  "kernel_size": 3,
  "adapter_stride": 2,
  "adapter_hidden": 80,
}
NESTED = {
  "model_type": "step_audio_2",
  "text_config": TEXT,
  "audio_encoder_config": AUDIO,
}
FLAT = {"model_type": "step_audio_2", **TEXT, "audio_encoder_config": AUDIO}
QWEN_TEXT = {
  "vocab_size": 151936,
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "num_key_value_heads": 1,
  "max_position_embeddings": 512,
  "rms_norm_eps": 2e-6,
}
QWEN_AUDIO = {
  "num_mel_bins": 128,
  "encoder_layers": 3,
  "encoder_attention_heads": 2,
  "encoder_ffn_dim": 96,
  "d_model": 24,
  "max_source_positions": 1500,
}


def tensors(dtype=BF16, seed: int = 0) -> dict[str, np.ndarray]:
  """Random tensors of a Step-Audio model, by their keys."""
  rng = np.random.default_rng(seed)
  shapes = table.their_shapes(SIZE)
  return {k: (rng.normal(size=s) * 0.1).astype(dtype) for k, s in shapes.items()}


def torch_tensors(params: Params, size: Size) -> dict[str, np.ndarray]:
  """Our parameters as torch tensors, by key."""
  leaves = dict(tree.named_leaves(params))
  return {e.key: table.theirs(leaves[e.row.path], e) for e in table.entries(size)}


def step_audio(
  folder: pathlib.Path,
  arrays: dict[str, np.ndarray],
  *,
  config: dict = NESTED,
  names: list[str] | None = None,
  config_name: str = "config.json",
) -> pathlib.Path:
  """Writes them to the files `names`, every key to another than the one before.

  Without names there is one file and no index.
  """
  folder.mkdir()
  (folder / config_name).write_text(json.dumps(config))
  tokenizer_lib.load("tiny").save(folder)
  if names is None:
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    return folder
  # Unevenly: the last file gets what is left after one tensor each.
  where = {key: names[min(i, len(names) - 1)] for i, key in enumerate(arrays)}
  for name in names:
    held = {key: arrays[key] for key in arrays if where[key] == name}
    safetensors.numpy.save_file(held, folder / name, {"format": "pt"})
  write_index(folder, where)
  return folder


def write_index(folder: pathlib.Path, where: dict[str, str]) -> None:
  index = {"metadata": {"total_size": 0}, "weight_map": where}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """All tensors that an index names, by the library's own reader."""
  index = json.loads((folder / "model.safetensors.index.json").read_text())
  found = {}
  for name in sorted(set(index["weight_map"].values())):
    found |= safetensors.numpy.load_file(folder / name)
  return found


def qwen2_5(folder: pathlib.Path, *, tied: bool, dtype=torch.bfloat16) -> pathlib.Path:
  """transformers' own Qwen2 with random weights, and a tokenizer of its numbering."""
  torch.manual_seed(1)
  config = transformers.Qwen2Config(**QWEN_TEXT, tie_word_embeddings=tied)
  transformers.Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
  document = json.loads(tokenizer_lib.load("tiny").document)
  names = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}
  document["added_tokens"] = [
    {"id": i, "content": names.get(i, f"<|qwen_{i}|>"), "special": True}
    | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i in range(151643, 151665)
  ]
  (folder / "tokenizer.json").write_text(json.dumps(document))
  return folder


def qwen2_audio(folder: pathlib.Path, dtype=torch.bfloat16) -> pathlib.Path:
  """transformers' own Qwen2-Audio, whose decoder must be left alone."""
  torch.manual_seed(2)
  config = transformers.Qwen2AudioConfig(
    audio_config=QWEN_AUDIO,
    text_config={**QWEN_TEXT, "vocab_size": 64, "model_type": "qwen2"},
  )
  model = transformers.Qwen2AudioForConditionalGeneration(config)
  for weight in model.parameters():  # no bias stays 0
    torch.nn.init.normal_(weight, std=0.1)
  model.to(dtype).save_pretrained(folder)
  return folder
