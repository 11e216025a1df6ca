"""Every model size, one row each (Step-Audio-2-mini and R1 after their config.json)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Size:
  """Widths and depths of encoder, adaptor and decoder.

  `norm_eps` of real checkpoints differs between releases: an import reads it from
  the checkpoint's config.json and overrides the row.
  """

  name: str
  mel_bins: int
  audio_positions: int
  encoder_width: int
  encoder_heads: int
  encoder_layers: int
  adaptor_width: int
  width: int
  ffn_width: int
  heads: int
  kv_heads: int
  head_width: int
  layers: int
  vocabulary: int
  max_positions: int
  rope_theta: float
  norm_eps: float


_WHISPER_LARGE = {
  "mel_bins": 128,
  "audio_positions": 1500,
  "encoder_width": 1280,
  "encoder_heads": 20,
  "encoder_layers": 32,
  "adaptor_width": 2048,
}

_ROWS = (
  Size(
    name="tiny",
    mel_bins=128,
    audio_positions=1500,
    encoder_width=128,
    encoder_heads=2,
    encoder_layers=2,
    adaptor_width=256,
    width=128,
    ffn_width=384,
    heads=4,
    kv_heads=2,
    head_width=32,
    layers=4,
    vocabulary=1024,
    max_positions=2048,
    rope_theta=1e4,
    norm_eps=1e-6,
  ),
  Size(
    name="small",
    mel_bins=128,
    audio_positions=1500,
    encoder_width=384,
    encoder_heads=6,
    encoder_layers=6,
    adaptor_width=1024,
    width=512,
    ffn_width=1408,
    heads=8,
    kv_heads=2,
    head_width=64,
    layers=12,
    vocabulary=1024,
    max_positions=4096,
    rope_theta=1e5,
    norm_eps=1e-6,
  ),
  Size(
    name="step_audio_2_mini",
    **_WHISPER_LARGE,
    width=3584,
    ffn_width=18944,
    heads=28,
    kv_heads=4,
    head_width=128,
    layers=28,
    vocabulary=158720,
    max_positions=16384,
    rope_theta=1e6,
    norm_eps=1e-6,
  ),
  Size(
    name="step_audio_r1",
    **_WHISPER_LARGE,
    width=5120,
    ffn_width=27648,
    heads=40,
    kv_heads=8,
    head_width=128,
    layers=64,
    vocabulary=158720,
    max_positions=65536,
    rope_theta=1e6,
    norm_eps=1e-5,
  ),
)

SIZES = {row.name: row for row in _ROWS}


def size(name: str) -> Size:
  """The row called `name`; an unknown name raises and lists the rows."""
  if name not in SIZES:
    raise ValueError(f"unknown size {name!r}; the sizes are {sorted(SIZES)}")
  return SIZES[name]
