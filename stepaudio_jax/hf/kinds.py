"""What kind of model a config.json describes, its widths, and its keys in our table.

Four kinds: a Step-Audio model, its text values nested or flat as in
config_origin.json; Qwen2-Audio, of which the encoder is taken (its decoder is another
one than the recipe's); Qwen2.5, the decoder. Widths are the file's, never the name's.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from stepaudio_jax.hf import table
from stepaudio_jax.models import sizes
from stepaudio_jax.models.sizes import Size

# Step pads Qwen's vocabulary to so many rows; from the first new one on Qwen's are
# padding too, which no text has trained.
PADDED_VOCABULARY = 158720
FIRST_NEW_ROW = 151665

# Our field → the names it goes by, all of which must agree.
_TEXT = {
  "width": ("hidden_size",),
  "ffn_width": ("intermediate_size",),
  "heads": ("num_attention_heads",),
  "kv_heads": ("num_key_value_heads", "num_attention_groups"),
  "layers": ("num_hidden_layers",),
  "vocabulary": ("vocab_size",),
  "max_positions": ("max_position_embeddings", "max_seq_len"),
}
_STEP_AUDIO = {
  "mel_bins": ("n_mels",),
  "audio_positions": ("n_audio_ctx",),
  "encoder_width": ("n_audio_state",),
  "encoder_heads": ("n_audio_head",),
  "encoder_layers": ("n_audio_layer",),
}
_QWEN_AUDIO = {
  "mel_bins": ("num_mel_bins",),
  "audio_positions": ("max_source_positions",),
  "encoder_width": ("d_model",),
  "encoder_heads": ("encoder_attention_heads",),
  "encoder_layers": ("encoder_layers",),
}
# What our code has built in; a config that says otherwise describes another network.
_BUILT_IN = {
  "hidden_act": "silu",
  "rope_scaling": None,
  "use_sliding_window": False,
  "kernel_size": 3,
  "adapter_stride": 2,
  "activation_function": "gelu",
  "scale_embedding": False,
}
# transformers' names of the encoder's tensors → ours of Step-Audio's.
_QWEN_AUDIO_KEYS = (
  ("positional_embedding", "embed_positions"),
  ("blocks.", "layers."),
  ("attn.query", "self_attn.q_proj"),
  ("attn.key", "self_attn.k_proj"),
  ("attn.value", "self_attn.v_proj"),
  ("attn.out", "self_attn.out_proj"),
  ("attn_ln", "self_attn_layer_norm"),
  ("mlp.0", "fc1"),
  ("mlp.2", "fc2"),
  ("mlp_ln", "final_layer_norm"),
  ("after_norm", "layer_norm"),
)
_TOWER = "audio_tower."


@dataclasses.dataclass(frozen=True)
class Kind:
  """What one directory gives.

  Attributes:
    name: for people.
    parts: of table.PARTS, those that it gives.
    fields: of Size, those that its config tells.
    key: our table's key → that directory's.
    left_out: prefixes of keys that are another model's and are left out.
    tied: no lm_head: the embedding serves.
    extended: its vocabulary is Qwen2.5's, to be padded and given new rows.
  """

  name: str
  parts: tuple[str, ...]
  fields: dict[str, Any]
  key: Callable[[str], str] = str
  left_out: tuple[str, ...] = ()
  tied: bool = False
  extended: bool = False

  @property
  def measured(self) -> bool:
    """Whether every width is known, so that shapes can be told."""
    names = {"encoder": _STEP_AUDIO, "adaptor": ("adaptor_width",), "decoder": _TEXT}
    return all({*names[part]} <= set(self.fields) for part in self.parts)


def kind(config: Mapping[str, Any], keys: Mapping[str, Any]) -> tuple[Kind, list[str]]:
  """(the kind, problems of its config). `keys` are the directory's.

  Raises:
    ValueError: it is none of the kinds.
  """
  name, problems = config.get("model_type"), []
  if name == "qwen2":
    fields = _text(config, problems)
    rows = fields.get("vocabulary", FIRST_NEW_ROW)
    if not FIRST_NEW_ROW <= rows <= PADDED_VOCABULARY:
      has = f"vocab_size {rows} is not within {FIRST_NEW_ROW}..{PADDED_VOCABULARY}"
      problems.append(f"config: {has}: no vocabulary of Qwen2.5")
    tied = bool(config.get("tie_word_embeddings", False))
    fields["vocabulary"] = PADDED_VOCABULARY
    return Kind("Qwen2.5", ("decoder",), fields, tied=tied, extended=True), problems
  if name in ("qwen2_audio", "qwen2_audio_encoder"):
    return _qwen_audio(config, keys, problems), problems
  if name == "step_audio_2" or "audio_encoder_config" in config:
    if name not in (None, "step_audio_2"):
      has = "though it has an audio_encoder_config, as only Step-Audio's have"
      problems.append(f"config: model_type is {name!r}, not 'step_audio_2', {has}")
    return Kind("Step-Audio", table.PARTS, _step_audio(config, problems)), problems
  raise ValueError(
    f"model_type {name!r} is no kind that can be imported; the kinds are 'step_audio_2'"
    ", 'qwen2_audio' and 'qwen2'"
  )


def _qwen_audio(
  config: Mapping[str, Any], keys: Mapping[str, Any], problems: list[str]
) -> Kind:
  audio = config
  if config["model_type"] == "qwen2_audio":
    audio = _room(config, "audio_config", problems)
  fields = _fields(audio, _QWEN_AUDIO, "audio_config", problems)
  wide = fields.get("encoder_width", 0) * 4
  if audio.get("encoder_ffn_dim", wide) != wide:
    problems.append(f"config: encoder_ffn_dim {audio['encoder_ffn_dim']} is not {wide}")
  # transformers 5 writes "model." before the parts; an encoder alone has no prefix.
  stems = (s for s in ("model.", "") if any(k.startswith(s + _TOWER) for k in keys))
  stem = next(stems, None)
  prefix = "" if stem is None else stem + _TOWER
  others = ("language_model.", "multi_modal_projector.", "lm_head.")
  left_out = () if stem is None else (*others, *(stem + other for other in others))

  def key(ours: str) -> str:
    out = ours.removeprefix("encoder.")
    for step, qwen in _QWEN_AUDIO_KEYS:
      out = out.replace(step, qwen)
    return prefix + out

  return Kind("Qwen2-Audio", ("encoder",), fields, key, left_out)


def _step_audio(config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
  nested = "text_config" in config
  text = _room(config, "text_config", problems) if nested else config
  audio = config
  if nested or "audio_encoder_config" in config:
    audio = _room(config, "audio_encoder_config", problems)
  found = _text(text, problems)
  found |= _fields(audio, _STEP_AUDIO, "audio_encoder_config", problems)
  if text.get("tie_word_embeddings", False):
    problems.append("config: tie_word_embeddings is true; Step-Audio's are untied")
  if "width" in found and audio.get("llm_dim", found["width"]) != found["width"]:
    problems.append(f"config: llm_dim {audio['llm_dim']} is not {found['width']}")
  wide = audio.get("adapter_hidden", 2048)
  return found | _natural("adaptor_width", wide, "adapter_hidden", problems)


def _room(
  config: Mapping[str, Any], name: str, problems: list[str]
) -> Mapping[str, Any]:
  if isinstance(config.get(name), dict):
    return config[name]
  problems.append(f"config: {name} is missing")
  return {}


def _text(config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
  found = _fields(config, _TEXT, "text_config", problems)
  if "width" in found and "heads" in found:
    found["head_width"] = found["width"] // found["heads"]
  _divide(found, "heads", "kv_heads", problems)
  _divide(found, "width", "heads", problems)
  rope = config.get("rope_parameters")
  if rope is not None and not isinstance(rope, dict):
    problems.append(f"config: rope_parameters is {rope!r}, no object")
  rope = rope if isinstance(rope, dict) else {}
  if rope.get("rope_type", "default") != "default":
    problems.append(f"config: rope_type {rope['rope_type']!r} is not 'default'")
  theta = config.get("rope_theta", rope.get("rope_theta"))
  for field, name, value in (
    ("norm_eps", "rms_norm_eps", config.get("rms_norm_eps")),
    ("rope_theta", "rope_theta", theta),
  ):
    if value is None:
      problems.append(f"config: {name} is missing")
    # JSON as Python reads it knows NaN, Infinity and integers beyond any float.
    elif type(value) not in (int, float) or not 0 < value < 1e30:
      problems.append(f"config: {name} is {_said(value)}, not a positive number")
    else:
      found[field] = float(value)
  return found


def _fields(
  config: Mapping[str, Any],
  names: Mapping[str, tuple[str, ...]],
  room: str,
  problems: list[str],
) -> dict[str, Any]:
  """Our fields; each may go by several names, at least one of which is there."""
  found = {}
  for field, aliases in names.items():
    said = {alias: config[alias] for alias in aliases if config.get(alias) is not None}
    if not said:
      problems.append(f"config: {' or '.join(aliases)} is missing from {room}")
    elif len(set(map(str, said.values()))) > 1:
      problems.append(f"config: {said} contradict each other")
    else:
      ((alias, value), *_) = said.items()
      found |= _natural(field, value, alias, problems)
  for name, value in _BUILT_IN.items():
    if name in config and config[name] != value:
      problems.append(f"config: {name} is {config[name]!r}; only {value!r} is known")
  _divide(found, "encoder_width", "encoder_heads", problems)
  return found


def _divide(
  fields: dict[str, Any], whole: str, parts: str, problems: list[str]
) -> None:
  """Notes a problem and forgets the parts where they do not divide the whole."""
  if whole in fields and parts in fields and fields[whole] % fields[parts]:
    what = f"{whole} {fields[whole]} is no multiple of {parts} {fields[parts]}"
    problems.append(f"config: {what}")
    del fields[parts]


def _natural(field: str, value: Any, name: str, problems: list[str]) -> dict[str, int]:
  """{field: value}; the limit keeps the shapes that nonsense asks for countable."""
  if type(value) is int and 0 < value < 2**24:
    return {field: value}
  problems.append(f"config: {name} is {_said(value)}, not a natural number")
  return {}


def _said(value: Any) -> str:
  return "missing" if value is None else repr(value)


def size(kinds: list[Kind], like: str) -> Size:
  """The size that the directories tell; the row `like` tells what they do not.

  It bears the name of the row that has its shapes, if there is one.
  """
  fields = {}
  for each in kinds:
    fields |= each.fields
  made = dataclasses.replace(sizes.size(like), **fields)
  shapes = table.our_shapes(made)
  same = [name for name, row in sizes.SIZES.items() if table.our_shapes(row) == shapes]
  name = f"w{made.width}l{made.layers}e{made.encoder_width}l{made.encoder_layers}"
  return dataclasses.replace(made, name=same[0] if same else name)
