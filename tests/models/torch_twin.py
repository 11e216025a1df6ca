"""Torch modules of transformers carrying our parameters, for parity tests."""

import numpy as np
import torch
import transformers
from torch.nn import functional

from stepaudio_jax.core.tree import named_leaves
from stepaudio_jax.core.types import Params
from stepaudio_jax.models.sizes import Size


def encoder(params: Params, size: Size) -> transformers.Qwen2AudioEncoder:
  config = transformers.Qwen2AudioEncoderConfig(
    num_mel_bins=size.mel_bins,
    d_model=size.encoder_width,
    encoder_layers=size.encoder_layers,
    encoder_attention_heads=size.encoder_heads,
    encoder_ffn_dim=4 * size.encoder_width,
    max_source_positions=size.audio_positions,
    attn_implementation="eager",
  )
  weights = {
    **_conv("conv1", params["conv1"]),
    **_conv("conv2", params["conv2"]),
    "embed_positions.weight": params["positions"],
    **_norm("layer_norm", params["after_norm"]),
  }
  for i in range(size.encoder_layers):
    block = _layer(params["blocks"], i)
    attn, mlp = block["attn"], block["mlp"]
    weights |= {
      **_linear(f"layers.{i}.self_attn.q_proj", attn["query"]),
      **_linear(f"layers.{i}.self_attn.k_proj", attn["key"]),
      **_linear(f"layers.{i}.self_attn.v_proj", attn["value"]),
      **_linear(f"layers.{i}.self_attn.out_proj", attn["out"], inputs=2),
      **_linear(f"layers.{i}.fc1", mlp["up"]),
      **_linear(f"layers.{i}.fc2", mlp["down"]),
      **_norm(f"layers.{i}.self_attn_layer_norm", block["attn_norm"]),
      **_norm(f"layers.{i}.final_layer_norm", block["mlp_norm"]),
    }
  return _loaded(transformers.Qwen2AudioEncoder(config), weights)


def decoder(params: Params, size: Size) -> transformers.Qwen2ForCausalLM:
  config = transformers.Qwen2Config(
    vocab_size=size.vocabulary,
    hidden_size=size.width,
    intermediate_size=size.ffn_width,
    num_hidden_layers=size.layers,
    num_attention_heads=size.heads,
    num_key_value_heads=size.kv_heads,
    head_dim=size.head_width,
    max_position_embeddings=size.max_positions,
    rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
    rms_norm_eps=size.norm_eps,
    tie_word_embeddings=False,
    attn_implementation="eager",
  )
  weights = {
    "model.embed_tokens.weight": params["embed"]["embedding"],
    **_norm("model.norm", params["norm"]),
    **_linear("lm_head", params["head"]),
  }
  for i in range(size.layers):
    layer, name = _layer(params["layers"], i), f"model.layers.{i}"
    attn, mlp = layer["attn"], layer["mlp"]
    weights |= {
      **_linear(f"{name}.self_attn.q_proj", attn["query"]),
      **_linear(f"{name}.self_attn.k_proj", attn["key"]),
      **_linear(f"{name}.self_attn.v_proj", attn["value"]),
      **_linear(f"{name}.self_attn.o_proj", attn["out"], inputs=2),
      **_linear(f"{name}.mlp.gate_proj", mlp["gate"]),
      **_linear(f"{name}.mlp.up_proj", mlp["up"]),
      **_linear(f"{name}.mlp.down_proj", mlp["down"]),
      **_norm(f"{name}.input_layernorm", layer["attn_norm"]),
      **_norm(f"{name}.post_attention_layernorm", layer["mlp_norm"]),
    }
  return _loaded(transformers.Qwen2ForCausalLM(config), weights)


@torch.no_grad()
def encode_alone(
  twin: transformers.Qwen2AudioEncoder, mel_LM: np.ndarray, heard: int
) -> torch.Tensor:
  """The tower on one unpadded clip of any length: [U, E].

  The class's own forward insists on 3000 frames, so its parts are called in turn.
  """
  x_1EL = functional.gelu(twin.conv1(torch.tensor(mel_LM.T[None])))
  x_1LE = functional.gelu(twin.conv2(x_1EL)).mT
  x_1LE = x_1LE + twin.embed_positions.weight[: x_1LE.shape[1]]
  mask = key_mask(x_1LE.shape[1], heard)
  for layer in twin.layers:
    x_1LE = layer(x_1LE, mask)
  return twin.layer_norm(twin.avg_pooler(x_1LE.mT).mT)[0]


def key_mask(length: int, heard: int) -> torch.Tensor:
  mask = torch.zeros(1, 1, length, length)
  mask[..., heard:] = torch.finfo(torch.float32).min
  return mask


@torch.no_grad()
def adapt(params: Params, frames_UE: torch.Tensor) -> torch.Tensor:
  """The adaptor on one clip, in plain torch: [A, D]."""
  p = {name: torch.tensor(np.asarray(leaf)) for name, leaf in named_leaves(params)}
  kernel = p["conv/kernel"].permute(2, 1, 0)
  x = functional.conv1d(frames_UE.mT, kernel, p["conv/bias"], stride=2, padding=1)
  x = functional.gelu(x).mT
  x = torch.relu(x @ p["linear1/kernel"] + p["linear1/bias"])
  return x @ p["linear2/kernel"] + p["linear2/bias"]


def _layer(stacked: Params, i: int) -> Params:
  if isinstance(stacked, dict):
    return {key: _layer(value, i) for key, value in stacked.items()}
  return stacked[i]


def _linear(name: str, p: Params, inputs: int = 1) -> Params:
  kernel = p["kernel"]
  rows = int(np.prod(kernel.shape[:inputs]))
  out = {f"{name}.weight": kernel.reshape(rows, -1).T}
  if "bias" in p:
    out[f"{name}.bias"] = p["bias"].reshape(-1)
  return out


def _conv(name: str, p: Params) -> Params:
  return {f"{name}.weight": p["kernel"].transpose(2, 1, 0), f"{name}.bias": p["bias"]}


def _norm(name: str, p: Params) -> Params:
  out = {f"{name}.weight": p["scale"]}
  return out | ({f"{name}.bias": p["bias"]} if "bias" in p else {})


def _loaded(module: torch.nn.Module, weights: Params) -> torch.nn.Module:
  tensors = {
    name: torch.tensor(np.ascontiguousarray(value)) for name, value in weights.items()
  }
  module.load_state_dict(tensors, strict=True)
  return module.eval()
