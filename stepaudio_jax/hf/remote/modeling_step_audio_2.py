"""Step-Audio-2 for transformers: audio encoder, adapter, Qwen2 decoder.

Independent code (Apache-2.0), copied into every export. Two promises:

* Audio is never dropped. Every run of <audio_patch> ids in a prompt must be as long
  as its clip's features, in order; anything else raises. generate() hands the clips
  to the prompt's step even where a cache exists before it.
* A clip's features do not depend on what it is batched with: everything beyond a
  clip's own length is masked before each convolution, in attention and after pooling.

`wav_lens` are valid mel frames L = ceil(samples / 160); `wavs` holds at least L + 2
frames of each clip (the spectrogram's own padding), literal zeros beyond.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel, Qwen2Model
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_step_audio_2 import StepAudio2Config


def _before(lengths, size):
  """[K, size], True at positions before each length."""
  return torch.arange(size, device=lengths.device) < lengths[:, None]


class StepAudio2Attention(nn.Module):
  """Whisper's self-attention: no bias on key, softmax in float32."""

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.query = nn.Linear(width, width)
    self.key = nn.Linear(width, width, bias=False)
    self.value = nn.Linear(width, width)
    self.out = nn.Linear(width, width)

  def forward(self, x, mask):
    scale = (x.shape[-1] // self.heads) ** -0.25
    query = self._split(self.query(x)) * scale
    key = self._split(self.key(x)) * scale
    scores = (query @ key.transpose(-1, -2)).float()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(x.dtype)
    return self.out((weights @ self._split(self.value(x))).transpose(1, 2).flatten(2))

  def _split(self, x):
    return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class StepAudio2Block(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.attn = StepAudio2Attention(width, heads)
    self.attn_ln = nn.LayerNorm(width)
    hidden = 4 * width
    self.mlp = nn.Sequential(
      nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
    )
    self.mlp_ln = nn.LayerNorm(width)

  def forward(self, x, mask):
    x = x + self.attn(self.attn_ln(x), mask)
    return x + self.mlp(self.mlp_ln(x))


class StepAudio2Encoder(nn.Module):
  """Log-mel [K, n_mels, T] → 25 Hz frames [K, U, n_audio_state]."""

  def __init__(self, config):
    super().__init__()
    width = config.n_audio_state
    self.conv1 = nn.Conv1d(config.n_mels, width, 3, padding=1)
    self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
    self.positional_embedding = nn.Embedding(config.n_audio_ctx, width)
    self.blocks = nn.ModuleList(
      StepAudio2Block(width, config.n_audio_head) for _ in range(config.n_audio_layer)
    )
    self.after_norm = nn.LayerNorm(width)

  def forward(self, wavs, wav_lens):
    padding = ~_before(wav_lens + 2, wavs.shape[-1])[:, None]
    x = F.gelu(self.conv1(wavs.masked_fill(padding, 0)))
    x = F.gelu(self.conv2(x.masked_fill(padding, 0))).transpose(1, 2)
    x = x + self.positional_embedding.weight[: x.shape[1]]
    heard = (wav_lens + 1) // 2
    mask = _before(heard, x.shape[1])[:, None, None]
    for block in self.blocks:
      x = block(x, mask)
    x = self.after_norm(F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2))
    return x.masked_fill(~_before((heard + 1) // 2, x.shape[1])[..., None], 0)


class StepAudio2Adapter(nn.Module):
  """25 Hz frames → 12.5 Hz vectors of the decoder's width."""

  def __init__(self, config):
    super().__init__()
    width, taps = config.n_audio_state, config.kernel_size
    self.conv = nn.Conv1d(width, width, taps, stride=config.adapter_stride, padding=1)
    self.linear1 = nn.Linear(width, config.adapter_hidden)
    self.linear2 = nn.Linear(config.adapter_hidden, config.llm_dim)

  def forward(self, frames):
    x = F.gelu(self.conv(frames.transpose(1, 2))).transpose(1, 2)
    return self.linear2(F.relu(self.linear1(x)))


class StepAudio2ForCausalLM(PreTrainedModel, GenerationMixin):
  config_class = StepAudio2Config
  base_model_prefix = "model"
  main_input_name = "input_ids"
  supports_gradient_checkpointing = True
  _no_split_modules = ["Qwen2DecoderLayer", "StepAudio2Block"]  # noqa: RUF012
  _skip_keys_device_placement = "past_key_values"
  _supports_flash_attn = True
  _supports_flash_attn_2 = True
  _supports_sdpa = True
  _supports_cache_class = True
  _supports_static_cache = True
  _auto_class = "AutoModelForCausalLM"  # else 4.49 saves the weights without this file

  def __init__(self, config):
    super().__init__(config)
    text = config.text_config
    self.model = Qwen2Model(text)
    self.encoder = StepAudio2Encoder(config.audio_encoder_config)
    self.adapter = StepAudio2Adapter(config.audio_encoder_config)
    self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
    self.post_init()

  def get_input_embeddings(self):
    return self.model.embed_tokens

  def set_input_embeddings(self, value):
    self.model.embed_tokens = value

  def get_output_embeddings(self):
    return self.lm_head

  def set_output_embeddings(self, value):
    self.lm_head = value

  def audio_token_counts(self, wav_lens):
    """Audio tokens of each clip: floor((floor((L + 1) / 4) + 1) / 2)."""
    return ((wav_lens + 1) // 4 + 1) // 2

  def audio_features(self, wavs, wav_lens):
    """Features of all clips, one after another: [sum of token counts, hidden]."""
    self._check_clips(wavs, wav_lens)
    wavs = wavs.to(self.encoder.conv1.weight.dtype)
    features = self.adapter(self.encoder(wavs, wav_lens))
    counts = self.audio_token_counts(wav_lens)
    return features[_before(counts, features.shape[1])]

  def forward(
    self,
    input_ids=None,
    wavs=None,
    wav_lens=None,
    attention_mask=None,
    position_ids=None,
    past_key_values=None,
    inputs_embeds=None,
    labels=None,
    use_cache=None,
    logits_to_keep=0,
    sampled=0,
    return_dict=True,
    **kwargs,
  ):
    """Next-token logits.

    Args:
      input_ids: [B, T]; each clip is start, its patches, end.
      wavs: [K, n_mels, frames] log-mel of all clips in input_ids, row after row
        (with a cache: of the clips in the new tokens).
      wav_lens: [K] valid frames of each clip.
      attention_mask: [B, T], 0 in padding on either side (with a cache: all so far).
      position_ids: may be left out in padded rows too, since RoPE is relative.
      labels: [B, T], −100 where nothing is predicted; the shift happens here.
      logits_to_keep: only so many last positions (0: all).
      sampled: so many of the last input_ids are the model's own, where a patch id is a
        (strange) token as any other; generate() counts them.
    """
    if (input_ids is None) == (inputs_embeds is None):
      raise ValueError("give input_ids or inputs_embeds, one of the two")
    if inputs_embeds is None:
      # A step of one token with a cache before it is a sampled one, whoever calls.
      step = input_ids.shape[1] == 1 and wavs is None and _seen(past_key_values) > 0
      inputs_embeds = self._embed(input_ids, wavs, wav_lens, 1 if step else sampled)
    elif wavs is not None:
      raise ValueError("wavs need input_ids: inputs_embeds hide where the audio goes")
    outputs = self.model(
      inputs_embeds=inputs_embeds,
      attention_mask=attention_mask,
      position_ids=position_ids,
      past_key_values=past_key_values,
      use_cache=use_cache,
      **kwargs,
    )
    kept = logits_to_keep
    kept = slice(-kept, None) if isinstance(kept, int) else kept
    logits = self.lm_head(outputs.last_hidden_state[:, kept])
    out = CausalLMOutputWithPast(
      loss=None if labels is None else _next_token_loss(logits, labels),
      logits=logits,
      past_key_values=outputs.past_key_values,
      hidden_states=outputs.hidden_states,
      attentions=outputs.attentions,
    )
    return out if return_dict else out.to_tuple()

  def prepare_inputs_for_generation(
    self, input_ids, past_key_values=None, wavs=None, wav_lens=None, sampled=0, **kwargs
  ):
    """The stock inputs, and the clips in the step that carries the prompt.

    A cache may exist, empty, before that step, or hold earlier turns: neither says
    whether this step has audio. Newer releases say so (`is_first_iteration`); in
    older ones a step longer than one token is a prompt.

    Raises:
      ValueError: a prompt is padded on the right.
    """
    inputs = super().prepare_inputs_for_generation(
      input_ids, past_key_values=past_key_values, **kwargs
    )
    first = kwargs.get("is_first_iteration")
    if first is None:
      ids = inputs.get("input_ids")
      first = ids is not None and ids.shape[1] > 1
    if first:
      _check_padding(kwargs.get("attention_mask"))
      inputs["wavs"], inputs["wav_lens"] = wavs, wav_lens
    if sampled:
      # No more than are in this step, so that it is one number for a compiled step.
      ids = inputs.get("input_ids")
      inputs["sampled"] = sampled if ids is None else min(sampled, ids.shape[1])
    return inputs

  def _update_model_kwargs_for_generation(
    self, outputs, model_kwargs, *args, num_new_tokens=1, **kwargs
  ):
    """Counts the tokens that are no longer the prompt's."""
    updated = super()._update_model_kwargs_for_generation(
      outputs, model_kwargs, *args, num_new_tokens=num_new_tokens, **kwargs
    )
    return {**updated, "sampled": updated.get("sampled", 0) + num_new_tokens}

  def _expand_inputs_for_generation(
    self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs
  ):
    """Repeats every row with its own clips (several samples a prompt, beams)."""
    wavs, wav_lens = model_kwargs.pop("wavs", None), model_kwargs.pop("wav_lens", None)
    if wavs is not None and expand_size > 1:
      runs = self._patch_runs(input_ids)
      self._check_runs(runs, wav_lens)
      clips = torch.arange(len(wavs)).split([len(row) for row in runs])
      order = torch.cat([row.repeat(expand_size) for row in clips]).to(wavs.device)
      wavs, wav_lens = wavs[order], wav_lens[order]
    input_ids, model_kwargs = super()._expand_inputs_for_generation(
      expand_size=expand_size,
      is_encoder_decoder=is_encoder_decoder,
      input_ids=input_ids,
      **model_kwargs,
    )
    return input_ids, {**model_kwargs, "wavs": wavs, "wav_lens": wav_lens}

  def _embed(self, input_ids, wavs, wav_lens, sampled):
    embeds = self.model.embed_tokens(input_ids)
    given = input_ids.shape[1] - sampled
    runs = self._patch_runs(input_ids[:, :given])
    if wavs is None:
      if any(runs):
        raise ValueError(
          f"input_ids hold audio patches in runs of {runs} (by row) but wavs is None"
        )
      return embeds
    self._check_runs(runs, wav_lens)
    features = self.audio_features(wavs, wav_lens).to(embeds)
    patches = input_ids == self.config.audio_patch_id
    patches[:, given:] = False
    return embeds.masked_scatter(patches[..., None], features)

  def _patch_runs(self, input_ids):
    """Lengths of each row's runs of patch ids."""
    patches = F.pad((input_ids == self.config.audio_patch_id).int(), (1, 1))
    change = patches.diff(dim=1).cpu()
    ends = [row.nonzero()[:, 0] for row in change]
    return [(row[1::2] - row[::2]).tolist() for row in ends]

  def _check_runs(self, runs, wav_lens):
    if wav_lens is None:
      raise ValueError("wavs need wav_lens, the valid frames of each clip")
    places = [
      (row, run) for row, lengths in enumerate(runs) for run in range(len(lengths))
    ]
    wanted = self.audio_token_counts(wav_lens).tolist()
    for clip, ((row, run), tokens) in enumerate(zip(places, wanted, strict=False)):
      if runs[row][run] != tokens:
        raise ValueError(
          f"clip {clip} gives {tokens} audio tokens but row {row} of input_ids has "
          f"{runs[row][run]} patches for it ({_counted(wanted, runs)})"
        )
    if len(wanted) > len(places):
      raise ValueError(
        f"clip {len(places)} has no place in input_ids: {_counted(wanted, runs)}"
      )
    if len(wanted) < len(places):
      row, run = places[len(wanted)]
      raise ValueError(
        f"no clip for run {run} of row {row} of input_ids: {_counted(wanted, runs)}"
      )

  def _check_clips(self, wavs, wav_lens):
    audio = self.config.audio_encoder_config
    if wavs.ndim != 3 or wavs.shape[1] != audio.n_mels or len(wavs) != len(wav_lens):
      raise ValueError(
        f"wavs is {tuple(wavs.shape)} with {len(wav_lens)} wav_lens, "
        f"not [clips, {audio.n_mels}, frames] with as many"
      )
    lengths = wav_lens.tolist()
    bad = [length for length in lengths if not 3 <= length <= wavs.shape[-1] - 2]
    if bad:
      raise ValueError(
        f"wav_lens {bad} with wavs of {wavs.shape[-1]} frames: a clip has at least 3 "
        "valid frames (321 samples) and 2 more frames of its own padding"
      )
    if wavs.shape[-1] > 2 * audio.n_audio_ctx:
      raise ValueError(
        f"wavs has {wavs.shape[-1]} frames, more than the {2 * audio.n_audio_ctx} "
        "the encoder has positions for; cut clips at 25 s (400000 samples)"
      )


def _seen(past_key_values):
  """Tokens in the cache."""
  return 0 if past_key_values is None else int(past_key_values.get_seq_length())


def _counted(wanted, runs):
  found = sum(len(lengths) for lengths in runs)
  return (
    f"{len(wanted)} clips but {found} runs of audio patches in input_ids; patches by "
    f"row: {runs}, tokens by clip: {wanted}"
  )


def _check_padding(attention_mask):
  """The next token is read off the last position, which must not be padding."""
  if attention_mask is None or attention_mask.ndim != 2:
    return
  rows = (attention_mask[:, -1] == 0).nonzero()[:, 0].tolist()
  if rows:
    raise ValueError(
      f"rows {rows} are padded on the right; generate() needs padding on the left"
    )


def _next_token_loss(logits, labels):
  flat = logits[:, :-1].float().flatten(0, 1)
  return F.cross_entropy(flat, labels[:, 1:].flatten(), ignore_index=-100)
