"""Messages with audio → model inputs for Step-Audio-2 (independent code, Apache-2.0).

  processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
  question = {"type": "audio", "path": "question.wav"}
  inputs = processor([{"role": "human", "content": [question]}])
  model.generate(**inputs, max_new_tokens=256)

`wavs` [K, 128, frames] are the log-mels of all clips of the batch, zeros beyond each
clip; `wav_lens` [K] are valid frames L = ceil(samples / 160). A clip's spectrogram has
L + 2 frames: two more come from its padding and belong to it.
"""

import base64
import io
import json
import os
import re

import numpy as np
import tokenizers
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.audio_utils import mel_filter_bank

try:
  import soundfile
  import soxr
except ImportError:  # only files need them; arrays do not
  soundfile = soxr = None

SAMPLE_RATE = 16_000
CHUNK_SAMPLES = 400_000  # 25 s: longer audio is cut into clips of their own
SHORTEST_SAMPLES = 321  # fewer give no audio token
HOP, WINDOW, MEL_BINS = 160, 400, 128
CLIP = "<audio_patch>"  # what the chat template prints for a clip
MARKERS = ("<|BOT|>", "<|EOT|>", "<audio_start>", "<audio_end>", CLIP)
# Markers that somebody typed pass the chat template as Unicode noncharacters.
HIDDEN = {marker: chr(0xFDD0 + i) for i, marker in enumerate(MARKERS)}
AUDIO_TYPES = ("audio", "input_audio")
SOURCES = ("path", "bytes", "audio")  # of a part of type "audio"
SPAN_SLACK_S = 0.01  # a span may end so far past the file: annotations are rounded
# What a reply starts from is tokenised apart from the reply, here as in generation.
OPENING = re.compile("(assistant\n<think>\n(?:\n</think>\n)?)")


def log_mel(samples):
  """Whisper-like log-mel [128, L + 2] of one clip (its own maximum and padding)."""
  padded = np.pad(np.asarray(samples, np.float64), (0, 479))
  padded = np.pad(padded, WINDOW // 2, mode="reflect")
  frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:-1]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
  power = np.abs(np.fft.rfft(frames * hann)) ** 2
  bank = mel_filter_bank(
    WINDOW // 2 + 1, MEL_BINS, 0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney"
  )
  mel = np.log10(np.maximum(power @ bank, 1e-10))
  return ((np.maximum(mel, mel.max() - 8) + 4) / 4).T.astype(np.float32)


def clips(samples, name="audio"):
  """Clips of at most 25 s; a last one too short for a token is left out."""
  if len(samples) < SHORTEST_SAMPLES:
    raise ValueError(
      f"{name} has {len(samples)} samples; fewer than {SHORTEST_SAMPLES} give no token"
    )
  cut = [samples[i : i + CHUNK_SAMPLES] for i in range(0, len(samples), CHUNK_SAMPLES)]
  return cut if len(cut[-1]) >= SHORTEST_SAMPLES else cut[:-1]


def mel_frames(samples):
  return -(-len(samples) // HOP)


def audio_tokens(samples):
  """floor((floor((L + 1) / 4) + 1) / 2): 13 for 1 s, 313 for 25 s."""
  return ((mel_frames(samples) + 1) // 4 + 1) // 2


def read(part):
  """Mono 16 kHz samples of a content part: path, bytes, base64 or an array.

  Several channels become their mean; a span is cut before it is resampled.

  Raises:
    ValueError: no source, not mono floats at 16 kHz in an array, samples that are not
      finite, or a span that is empty or outside the audio.
  """
  given = [part[key] for key in SOURCES if part.get(key) is not None]
  source = given[0] if given else None
  if part["type"] == "input_audio":
    source = base64.b64decode(part["input_audio"]["data"])
  rate = part.get("sampling_rate", SAMPLE_RATE)
  if isinstance(source, (str, bytes, os.PathLike)):
    samples, rate = _decoded(source)
  elif source is None:
    raise ValueError(f"audio without path, bytes, audio or input_audio: {sorted(part)}")
  else:
    samples = np.asarray(source)
    floats = np.issubdtype(samples.dtype, np.floating)
    if rate != SAMPLE_RATE or samples.ndim != 1 or not floats:
      raise ValueError(
        f"an array must be mono floats of full scale ±1 at {SAMPLE_RATE} Hz, not "
        f"{samples.dtype} {samples.shape} at {rate} Hz"
      )
    samples = samples.astype(np.float32)
  if not np.isfinite(samples).all():
    raise ValueError(f"NaN or infinite samples, the first at {_first_bad(samples)}")
  samples = _span(samples, rate, part.get("start_s"), part.get("end_s"))
  return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def _first_bad(samples):
  return int(np.argmin(np.isfinite(samples)))


def _span(samples, rate, start_s, end_s):
  """Samples from start_s to end_s; None is the audio's own start or end."""
  total_s = len(samples) / rate
  start, end = start_s or 0, total_s if end_s is None else end_s
  if not 0 <= start < end <= total_s + SPAN_SLACK_S:  # NaN is refused as well
    raise ValueError(
      f"span {start} s to {end} s of audio of {total_s} s: 0 <= start < end is needed, "
      "within it"
    )
  return samples[round(start * rate) : round(end * rate)]


def _decoded(source):
  if soundfile is None:
    raise ImportError("audio files need soundfile and soxr; or pass 16 kHz samples")
  file = io.BytesIO(source) if isinstance(source, bytes) else source
  samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
  return samples.mean(axis=1), rate


class StepAudio2Processor(ProcessorMixin):
  attributes = ["tokenizer"]  # noqa: RUF012
  tokenizer_class = "AutoTokenizer"

  def __init__(self, tokenizer=None, chat_template=None):
    super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
    vocabulary = tokenizer.get_vocab()
    missing = [name for name in MARKERS if name not in vocabulary]
    if missing:
      raise ValueError(f"the tokenizer lacks the special tokens {missing}")
    self._ids = {name: vocabulary[name] for name in MARKERS}
    # Text between markers is encoded by an engine that knows no special token, so
    # that nobody can type one.
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    document |= {"added_tokens": [], "truncation": None, "padding": None}
    self._plain = tokenizers.Tokenizer.from_str(json.dumps(document))

  def __call__(self, messages, add_generation_prompt=True, enable_thinking=True):
    """Inputs for one dialogue (a list of messages) or a batch of them (of lists).

    A message is {"role", "content"}: text, or a list of {"type": "text", "text"} and
    {"type": "audio", "path" | "bytes" | "audio": 16 kHz samples, "start_s", "end_s"}.
    Rows are padded on the left, as generate() wants them. Without `enable_thinking`
    the prompt holds an empty thought and the reply is the answer alone.

    Raises:
      ValueError: nothing to read, a message that is malformed, audio that cannot be
        used, or a chat template that leaves a clip out.
    """
    if not messages or not all(messages):
      raise ValueError("no messages: a dialogue is a list of one or more")
    batch = [messages] if isinstance(messages[0], dict) else messages
    sounds = [[clips(read(p)) for p in _audio_parts(row)] for row in batch]
    rows = [
      self._row(m, s, add_generation_prompt, enable_thinking)
      for m, s in zip(batch, sounds, strict=True)
    ]
    width = max(map(len, rows))
    pad = self.tokenizer.pad_token_id
    data = {
      "input_ids": torch.tensor([[pad] * (width - len(row)) + row for row in rows]),
      "attention_mask": torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in rows]
      ),
    }
    every = [clip for row in sounds for sound in row for clip in sound]
    if every:
      data |= _features(every)
    return BatchFeature(data)

  def apply_chat_template(
    self,
    messages,
    add_generation_prompt=True,
    enable_thinking=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
  ):
    """The prompt's text (tokenize=False; a clip is one <audio_patch>) or inputs."""
    if not tokenize:
      return self.tokenizer.apply_chat_template(
        messages,
        chat_template=self.chat_template,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
        tokenize=False,
      )
    if not return_dict or return_tensors != "pt":
      raise ValueError("inputs with audio are a dict of torch tensors")
    return self(messages, add_generation_prompt, enable_thinking)

  def decode(self, *args, **kwargs):
    return self.tokenizer.decode(*args, **kwargs)

  def batch_decode(self, *args, **kwargs):
    return self.tokenizer.batch_decode(*args, **kwargs)

  @property
  def model_input_names(self):
    return ["input_ids", "attention_mask", "wavs", "wav_lens"]

  def _row(self, messages, sounds, add_generation_prompt, enable_thinking):
    """Ids of one dialogue, each clip spelt out as start, patches, end per 25 s."""
    rendered = self.apply_chat_template(
      [_replaced(_without_audio(message), HIDDEN) for message in messages],
      add_generation_prompt,
      enable_thinking,
      tokenize=False,
    )
    pieces = re.split("(" + "|".join(map(re.escape, MARKERS)) + ")", rendered)
    if pieces.count(CLIP) != len(sounds):
      raise ValueError(
        f"the chat template has {pieces.count(CLIP)} places for {len(sounds)} clips"
      )
    waiting = iter(sounds)
    ids = []
    for piece in pieces:
      if piece == CLIP:
        ids += [i for clip in next(waiting) for i in self._clip_ids(clip)]
      elif piece in MARKERS:
        ids.append(self._ids[piece])
      else:
        ids += self._text_ids(_replaced(piece, {v: k for k, v in HIDDEN.items()}))
    return ids

  def _text_ids(self, text):
    spans = OPENING.split(text, maxsplit=1) if OPENING.match(text) else [text]
    return [
      i
      for span in spans
      for i in self._plain.encode(span, add_special_tokens=False).ids
    ]

  def _clip_ids(self, clip):
    patches = [self._ids[CLIP]] * audio_tokens(clip)
    return [self._ids["<audio_start>"], *patches, self._ids["<audio_end>"]]


def _audio_parts(messages):
  contents = [_content(m) for m in messages]
  parts = [
    part for content in contents if isinstance(content, list) for part in content
  ]
  wrong = [part for part in parts if part.get("type") not in ("text", *AUDIO_TYPES)]
  if wrong:
    raise ValueError(
      f"content type {wrong[0].get('type')} is not text or audio; a clip is of type "
      f"{' or '.join(AUDIO_TYPES)}"
    )
  return [part for part in parts if part["type"] in AUDIO_TYPES]


def _content(message):
  content = message.get("content")
  if not isinstance(content, (str, list)):
    raise ValueError(
      f"the content of a message is text or a list of parts, not {content!r}: "
      f"role {message.get('role')!r}"
    )
  return content


def _without_audio(message):
  """The message as the chat template needs it: clips by type only."""
  if not isinstance(message["content"], list):
    return message
  parts = [
    {"type": part["type"]} if part["type"] in AUDIO_TYPES else part
    for part in message["content"]
  ]
  return {**message, "content": parts}


def _replaced(value, table):
  """`value` with the table's strings replaced wherever text stands in it."""
  if isinstance(value, dict):
    return {key: _replaced(inner, table) for key, inner in value.items()}
  if isinstance(value, list):
    return [_replaced(inner, table) for inner in value]
  if isinstance(value, str):
    for old, new in table.items():
      value = value.replace(old, new)
  return value


def _features(every):
  mels = [torch.from_numpy(log_mel(clip)) for clip in every]
  wavs = torch.zeros(len(mels), MEL_BINS, max(mel.shape[1] for mel in mels))
  for row, mel in zip(wavs, mels, strict=True):
    row[:, : mel.shape[1]] = mel
  return {
    "wavs": wavs,
    "wav_lens": torch.tensor([mel_frames(clip) for clip in every]),
  }
