"""The small files of an export: configs, chat template, model card, remote code."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
from etils import epath

from stepaudio_jax.core import lengths
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text.tokenizer import Special, Tokenizer

REMOTE = pathlib.Path(__file__).parent / "remote"
CODE = (
  "configuration_step_audio_2.py",
  "modeling_step_audio_2.py",
  "processing_step_audio_2.py",
)
CARD_KEYS = ("name", "license", "languages", "summary", "data", "scores", "command")

# What the modeling file assumes where config.json is silent, as published ones are.
_PUBLISHED = {
  "adapter_hidden": 2048,
  "audio_start_id": 151688,
  "audio_end_id": 151689,
  "audio_patch_id": 151690,
}


def config(size: Size, special: Special, dtype: str) -> dict[str, Any]:
  """config.json: the published keys, and more only where a value is not published.

  Raises:
    ValueError: a width that config.json has no key for.
  """
  if size.head_width * size.heads != size.width:
    raise ValueError(
      f"size {size.name}: config.json has no key for heads of {size.head_width} in a "
      f"width of {size.width} with {size.heads} heads"
    )
  auto_map = {
    "AutoConfig": "configuration_step_audio_2.StepAudio2Config",
    "AutoModelForCausalLM": "modeling_step_audio_2.StepAudio2ForCausalLM",
  }
  out = {
    "architectures": ["StepAudio2ForCausalLM"],
    "auto_map": auto_map,
    "model_type": "step_audio_2",
    "text_config": _text_config(size, special, dtype),
    "audio_encoder_config": _audio_encoder_config(size),
  }
  own = {
    "adapter_hidden": size.adaptor_width,
    "audio_start_id": special.audio_start,
    "audio_end_id": special.audio_end,
    "audio_patch_id": special.audio_patch,
  }
  if own != _PUBLISHED:
    out["audio_encoder_config"]["adapter_hidden"] = own.pop("adapter_hidden")
    out |= own
  return out


def _text_config(size: Size, special: Special, dtype: str) -> dict[str, Any]:
  return {
    "hidden_size": size.width,
    "intermediate_size": size.ffn_width,
    "num_attention_heads": size.heads,
    "num_attention_groups": size.kv_heads,
    "num_key_value_heads": size.kv_heads,
    "num_hidden_layers": size.layers,
    "max_seq_len": size.max_positions,
    "vocab_size": size.vocabulary,
    "rms_norm_eps": size.norm_eps,
    "eos_token_id": special.eos,
    "pad_token_id": special.pad,
    "rope_theta": size.rope_theta,
    "max_position_embeddings": size.max_positions,
    "rope_scaling": None,
    "torch_dtype": dtype,
  }


def _audio_encoder_config(size: Size) -> dict[str, Any]:
  return {
    "n_mels": size.mel_bins,
    "n_audio_ctx": size.audio_positions,
    "n_audio_state": size.encoder_width,
    "n_audio_head": size.encoder_heads,
    "n_audio_layer": size.encoder_layers,
    "n_codebook_size": 4096,
    "llm_dim": size.width,
    "kernel_size": 3,
    "adapter_stride": 2,
  }


def generation_config(special: Special) -> dict[str, Any]:
  """Ends where our own sampler does; ids in ascending order, as published."""
  return {"eos_token_id": sorted(special.stop), "pad_token_id": special.pad}


def preprocessor_config() -> dict[str, Any]:
  return {
    "auto_map": {"AutoProcessor": "processing_step_audio_2.StepAudio2Processor"},
    "processor_class": "StepAudio2Processor",
    "sampling_rate": lengths.SAMPLE_RATE,
    "hop_length": lengths.HOP,
    "n_fft": 400,
    "feature_size": 128,
    "chunk_samples": lengths.CHUNK_SAMPLES,
  }


def chat_template() -> str:
  return (REMOTE / "chat_template.jinja").read_text(encoding="utf-8")


def model_card(
  card: Mapping[str, Any],
  size: Size,
  special: Special,
  count: int,
  rewards: Mapping[str, Any] | None = None,
) -> str:
  """README.md. `card` has exactly CARD_KEYS; `scores` maps names to numbers.

  Args:
    rewards: of a reward model, {"dimensions", "dims_on_thought"}.
  """
  wrong = sorted(set(card) ^ set(CARD_KEYS))
  if wrong:
    raise ValueError(f"card keys missing or unknown: {wrong}; wanted {CARD_KEYS}")
  source = (REMOTE / "model_card.md").read_text(encoding="utf-8")
  environment = jinja2.Environment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
  )
  # A string of JSON is one of YAML too, whatever is in it.
  environment.filters["scalar"] = lambda text: json.dumps(text, ensure_ascii=False)
  environment.filters["line"] = lambda text: " ".join(text.split())
  environment.filters["code"] = lambda text: f"`{text}`"
  return environment.from_string(source).render(
    card=card, size=size, special=special, count=count, rewards=rewards
  )


def write(
  folder: epath.Path,
  size: Size,
  tokenizer: Tokenizer,
  dtype: str,
  card: Mapping[str, Any],
  count: int,
  rewards: Mapping[str, Any] | None = None,
) -> None:
  """Everything but the weights.

  Args:
    count: of parameters.
    rewards: see `model_card`.
  """
  special = tokenizer.special
  tokenizer.save(folder)
  named = json.loads((folder / "tokenizer_config.json").read_text())
  documents = {
    "config.json": config(size, special, dtype),
    "generation_config.json": generation_config(special),
    "preprocessor_config.json": preprocessor_config(),
    # A template that came with the tokenizer would contradict chat_template.jinja.
    "tokenizer_config.json": {**named, "chat_template": chat_template()},
  }
  for name, document in documents.items():
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / name).write_text(text)
  (folder / "chat_template.jinja").write_text(chat_template())
  (folder / "README.md").write_text(model_card(card, size, special, count, rewards))
  for name in CODE:
    (folder / name).write_text((REMOTE / name).read_text(encoding="utf-8"))
