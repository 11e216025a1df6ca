"""How many frames and tokens a clip of N samples becomes (model.md §2)."""

SAMPLE_RATE = 16_000
HOP = 160  # samples between mel frames: 100 Hz
CHUNK_SAMPLES = 400_000  # 25 s: longer audio is cut here
SHORTEST_SAMPLES = 321  # fewer give no audio token
LONGEST_SAMPLES = 479_680  # more overflow the 1500 encoder positions


def mel_frames(samples):
  """Valid mel frames L = ceil(N / 160)."""
  return (samples + HOP - 1) // HOP


def padded_frames(samples):
  """Frames of the padded spectrogram, L + 2 = floor((N + 479) / 160)."""
  return (samples + 479) // HOP


def encoder_frames(samples):
  """25 Hz frames that the frozen encoder gives, floor((L + 1) / 4)."""
  return (mel_frames(samples) + 1) // 4


def adaptor_tokens(frames):
  """12.5 Hz audio tokens of so many encoder frames."""
  return (frames + 1) // 2


def audio_tokens(samples):
  """Audio tokens of one chunk of so many samples: 1 s → 13, 25 s → 313."""
  return adaptor_tokens(encoder_frames(samples))
