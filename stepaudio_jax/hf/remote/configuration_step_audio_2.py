"""Configuration of Step-Audio-2 checkpoints (independent code, Apache-2.0).

Copied into every export, where transformers loads it with trust_remote_code=True.
"""

from transformers import PretrainedConfig, Qwen2Config


class StepAudio2EncoderConfig(PretrainedConfig):
  """Audio encoder and adapter. `n_codebook_size` is in published files, unused."""

  model_type = "step_audio_2_encoder"

  def __init__(
    self,
    n_mels=128,
    n_audio_ctx=1500,
    n_audio_state=1280,
    n_audio_head=20,
    n_audio_layer=32,
    n_codebook_size=4096,
    llm_dim=3584,
    kernel_size=3,
    adapter_stride=2,
    adapter_hidden=2048,
    **kwargs,
  ):
    self.n_mels = n_mels
    self.n_audio_ctx = n_audio_ctx
    self.n_audio_state = n_audio_state
    self.n_audio_head = n_audio_head
    self.n_audio_layer = n_audio_layer
    self.n_codebook_size = n_codebook_size
    self.llm_dim = llm_dim
    self.kernel_size = kernel_size
    self.adapter_stride = adapter_stride
    self.adapter_hidden = adapter_hidden
    super().__init__(**kwargs)


class StepAudio2Config(PretrainedConfig):
  """`text_config` is a Qwen2Config, so engines can serve the decoder as Qwen2.

  The audio ids default to those of the published checkpoints; sizes with another
  tokenizer write theirs into config.json.
  """

  model_type = "step_audio_2"
  sub_configs = {  # noqa: RUF012  (an annotation would make it a field)
    "text_config": Qwen2Config,
    "audio_encoder_config": StepAudio2EncoderConfig,
  }

  def __init__(
    self,
    text_config=None,
    audio_encoder_config=None,
    audio_start_id=151688,
    audio_end_id=151689,
    audio_patch_id=151690,
    **kwargs,
  ):
    if not isinstance(text_config, Qwen2Config):
      fields = {**(text_config or {}), "architectures": ["Qwen2ForCausalLM"]}
      text_config = Qwen2Config(**fields)
    if not isinstance(audio_encoder_config, StepAudio2EncoderConfig):
      audio_encoder_config = StepAudio2EncoderConfig(**(audio_encoder_config or {}))
    # Old releases mask by a window that published files name and never use.
    if not text_config.use_sliding_window:
      text_config.sliding_window = None
    self.text_config = text_config
    self.audio_encoder_config = audio_encoder_config
    self.audio_start_id = audio_start_id
    self.audio_end_id = audio_end_id
    self.audio_patch_id = audio_patch_id
    # Old releases tie lm_head to the embeddings unless told otherwise.
    kwargs["tie_word_embeddings"] = False
    super().__init__(**kwargs)

  @property
  def sliding_window(self):
    """The decoder's; where old releases make the mask of a static cache."""
    return self.text_config.sliding_window
