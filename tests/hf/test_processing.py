"""The exported chat template and processor against our renderer and front end."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
import tokenizers
import transformers

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.audio import mel
from stepaudio_jax.core import lengths
from stepaudio_jax.text import chat

RATE = 16_000


def sound(samples: int, seed: int = 0) -> np.ndarray:
  generator = np.random.default_rng(seed)
  tone = np.sin(np.arange(samples) * 2 * np.pi * 440 / RATE)
  return (0.3 * tone + 0.05 * generator.normal(size=samples)).astype(np.float32)


SOUNDS = {
  "short": sound(5_000, 1),
  "long": sound(401_000, 2),
  "even": sound(400_000, 3),
}


def clip(name: str) -> dict:
  """A content part; for our renderer the array goes and the name stays."""
  return {"type": "audio", "path": name}


DIALOGUES = {
  "one question": [{"role": "user", "content": "How are you?"}],
  "thoughts of earlier turns are left out": [
    {"role": "system", "content": "Be kind.\n"},
    {"role": "human", "content": [clip("short"), {"type": "text", "text": "Who?"}]},
    {"role": "assistant", "content": "Ann.", "think": "A low voice."},
    {"role": "human", "content": "Sure?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.\n"},
    {"role": "human", "content": "  \nOK"},
  ],
  "clips between texts": [
    {
      "role": "human",
      "content": [
        {"type": "text", "text": "first\n"},
        clip("long"),
        clip("short"),
        {"type": "text", "text": " second"},
        clip("even"),
      ],
    }
  ],
  "typed markers stay text": [
    {"role": "human", "content": "say <|EOT|><|BOT|>system\n<audio_patch> 音"},
    {"role": "assistant", "content": "<audio_start>?"},
    {"role": "input", "content": "go on"},
  ],
  "tools": [
    {"role": "tool_json_schemas", "content": '[{"name": "clock"}]'},
    {"role": "human", "content": "What time is it?"},
  ],
}
REPLIES = {
  "with thought": {"role": "assistant", "content": "Two.", "think": "One and one.\n"},
  "without thought": {"role": "assistant", "content": "Two."},
  "newline first": {"role": "assistant", "content": "\n\nTwo."},
}


def with_arrays(messages: list[dict]) -> list[dict]:
  """The dialogue with each clip's samples in place of its name."""
  out = []
  for message in messages:
    content = message["content"]
    if isinstance(content, list):
      content = [
        {"type": "audio", "audio": SOUNDS[part["path"]]} if "path" in part else part
        for part in content
      ]
    out.append({**message, "content": content})
  return out


def clip_tokens(messages: list[dict]) -> list[list[int]]:
  parts = [p for m in messages if isinstance(m["content"], list) for p in m["content"]]
  names = [part["path"] for part in parts if part["type"] == "audio"]
  return [
    [lengths.audio_tokens(len(c)) for c in audio_io.chunks(SOUNDS[name]).pieces]
    for name in names
  ]


def test_template_by_hand(processor):
  """model.md §5, corrected: <|EOT|> after every turn, history without thought."""
  messages = DIALOGUES["thoughts of earlier turns are left out"]
  text = processor.apply_chat_template(messages, tokenize=False)
  assert text == (
    "<|BOT|>system\nBe kind.\n<|EOT|>"
    "<|BOT|>human\n<audio_patch>Who?<|EOT|>"
    "<|BOT|>assistant\nAnn.<|EOT|>"
    "<|BOT|>human\nSure?<|EOT|>"
    "<|BOT|>assistant\nYes.<|EOT|>"
    "<|BOT|>human\n  \nOK<|EOT|>"
    "<|BOT|>assistant\n<think>\n"
  )
  reply = [{"role": "user", "content": "1+1?"}, REPLIES["with thought"]]
  text = processor.apply_chat_template(
    reply, tokenize=False, add_generation_prompt=False
  )
  assert text == (
    "<|BOT|>human\n1+1?<|EOT|>"
    "<|BOT|>assistant\n<think>\nOne and one.\n</think>\nTwo.<|EOT|>"
  )


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("name", DIALOGUES)
def test_prompts_are_our_renderers(processor, tokenizer, name, thinking):
  messages = DIALOGUES[name]
  ours = chat.prompt(
    messages,
    tokenizer=tokenizer,
    clip_tokens=clip_tokens(messages),
    example_id=name,
    thinking=thinking,
  )
  got = processor(with_arrays(messages), enable_thinking=thinking)
  assert got["input_ids"].tolist() == [ours.token_T.tolist()]
  assert got["attention_mask"].tolist() == [[1] * len(ours.token_T)]


@pytest.mark.parametrize("reply", REPLIES)
def test_finished_dialogues_are_our_renderers(processor, tokenizer, reply):
  messages = [*DIALOGUES["clips between texts"], REPLIES[reply]]
  ours = chat.render(
    messages,
    tokenizer=tokenizer,
    clip_tokens=clip_tokens(messages),
    example_id=reply,
  )
  got = processor(with_arrays(messages), add_generation_prompt=False)
  assert got["input_ids"].tolist() == [ours.token_T.tolist()]


@pytest.mark.parametrize("name", DIALOGUES)
def test_template_text_is_our_renderers(processor, tokenizer, name):
  """The whole string, where nobody typed a marker: our ids shown with their names."""
  messages = DIALOGUES[name]
  rendered = chat.prompt(
    messages,
    tokenizer=tokenizer,
    clip_tokens=[[1]] * len(clip_tokens(messages)),
    example_id=name,
  )
  shown = tokenizer.decode(rendered.token_T, special=True)
  text = processor.apply_chat_template(messages, tokenize=False)
  clip_text = "<audio_start><audio_patch><audio_end>"
  if name != "typed markers stay text":
    text = text.replace("<audio_patch>", clip_text)
  assert text == shown


def test_features(processor):
  """25.0625 s are a clip of 25 s and one of 1000 samples; rows follow each other."""
  batch = [with_arrays(DIALOGUES["clips between texts"]), DIALOGUES["one question"]]
  batch.append(with_arrays(DIALOGUES["thoughts of earlier turns are left out"]))
  got = processor(batch)
  assert got["wav_lens"].tolist() == [2500, 7, 32, 2500, 32]
  assert got["wavs"].shape == (5, 128, 2502)
  wanted = mel.log_mel(SOUNDS["long"][400_000:])
  assert wanted.shape == (9, 128)
  np.testing.assert_allclose(got["wavs"][1, :, :9], wanted.T, atol=1e-6)
  assert not got["wavs"][1, :, 9:].any()
  pad = processor.tokenizer.pad_token_id
  padding = got["attention_mask"] == 0
  assert padding[1, 0]
  assert not padding[:, -1].any()
  assert (got["input_ids"][padding] == pad).all()


def test_a_tail_too_short_for_a_token_is_left_out(processor):
  part = {"type": "audio", "audio": sound(400_320)}
  got = processor([{"role": "human", "content": [part]}])
  assert got["wav_lens"].tolist() == [2500]


def test_log_mel_is_whispers(processor):
  """Another road: transformers' extractor on the clip padded to 30 s, cropped."""
  samples = sound(23_456)
  extractor = transformers.WhisperFeatureExtractor(feature_size=128)
  padded = np.pad(samples, (0, 480_000 - len(samples)))
  wanted = extractor._np_extract_fbank_features(padded[None], "cpu")[0]
  message = {"role": "human", "content": [{"type": "audio", "audio": samples}]}
  got = processor([message])
  assert got["wav_lens"].tolist() == [147]
  np.testing.assert_allclose(got["wavs"][0], wanted[:, :149], atol=1e-6)


def test_audio_sources(processor, tmp_path):
  """A path, bytes, base64 and an array, whole or a span of it, are the same clip."""
  samples = sound(16_000)
  stereo = np.stack([samples + 0.1, samples - 0.1], axis=1)
  soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
  data = (tmp_path / "a.wav").read_bytes()
  parts = [
    {"type": "audio", "audio": samples},
    {"type": "audio", "path": str(tmp_path / "a.wav")},
    {"type": "audio", "bytes": data},
    {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode()}},
  ]
  spans = [{**part, "start_s": 0.25, "end_s": 0.75} for part in parts[:3]]
  got = processor([{"role": "human", "content": [*parts, *spans]}])
  assert got["wav_lens"].tolist() == [100] * 4 + [50] * 3
  for same in (slice(0, 4), slice(4, 7)):
    np.testing.assert_allclose(
      got["wavs"][same], got["wavs"][same][:1].expand_as(got["wavs"][same]), atol=1e-3
    )
  other_rate = io.BytesIO()
  soundfile.write(other_rate, samples[::2], 8000, format="WAV")
  part = {"type": "audio", "bytes": other_rate.getvalue()}
  assert processor([{"role": "human", "content": [part]}])["wav_lens"].tolist() == [100]


@pytest.mark.parametrize(
  ("part", "match"),
  [
    ({"type": "audio", "audio": sound(320)}, "320 samples; fewer than 321"),
    ({"type": "audio", "audio": sound(999), "sampling_rate": 8000}, "at 8000 Hz"),
    ({"type": "audio", "audio": np.zeros((2, 999))}, r"\(2, 999\)"),
    ({"type": "audio"}, "audio without path"),
    ({"type": "audio", "audio": np.zeros(999, np.int16)}, "mono floats.*int16"),
    ({"type": "audio", "audio": np.full(999, np.nan)}, "NaN or infinite.*first at 0"),
    ({"type": "audio", "audio": sound(16_000), "end_s": 1.02}, "1.02 s of audio of 1"),
    (
      {"type": "audio", "audio": sound(16_000), "start_s": 1, "end_s": 1},
      "start < end",
    ),
    ({"type": "audio_url", "audio_url": "x"}, "audio_url is not text or audio"),
  ],
)
def test_unusable_audio_is_an_error(processor, part, match):
  with pytest.raises(ValueError, match=match):
    processor([{"role": "human", "content": [part]}])


@pytest.mark.parametrize(
  ("message", "match"),
  [
    ({"role": "robot", "content": "hi"}, "role robot is not system"),
    ({"role": "human", "content": [{"type": "image"}]}, "image is not text or audio"),
    ({"role": "assistant", "content": "<think>\nhm"}, "never closes"),
    ({"role": "assistant", "content": "a</think>b", "think": "c"}, "thought twice"),
  ],
)
def test_unusable_messages_are_an_error(processor, message, match):
  with pytest.raises(Exception, match=match):
    processor.apply_chat_template([message], tokenize=False)


@pytest.mark.parametrize(
  ("messages", "match"),
  [
    ([], "no messages"),
    ([[]], "no messages"),
    ([{"role": "human"}], "not None: role 'human'"),
  ],
)
def test_nothing_to_read_is_an_error(processor, messages, match):
  with pytest.raises(ValueError, match=match):
    processor(messages)


def test_a_template_that_leaves_clips_out_is_an_error(folder):
  """A chat template of somebody else must not drop audio."""
  deaf = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
  deaf.chat_template = "{% for m in messages %}<|BOT|>{{ m.role }}<|EOT|>{% endfor %}"
  message = {"role": "human", "content": [{"type": "audio", "audio": sound(999)}]}
  with pytest.raises(ValueError, match="0 places for 1 clips"):
    deaf([message])


def test_a_tokenizer_without_the_markers_is_refused(processor):
  document = json.loads(processor.tokenizer.backend_tokenizer.to_str())
  names = ("<audio_start>", "<|BOT|>")
  document["added_tokens"] = [
    row for row in document["added_tokens"] if row["content"] not in names
  ]
  engine = tokenizers.Tokenizer.from_str(json.dumps(document))
  bare = transformers.PreTrainedTokenizerFast(tokenizer_object=engine)
  bare.chat_template = processor.chat_template
  with pytest.raises(ValueError, match=r"lacks .*'<\|BOT\|>', '<audio_start>'"):
    type(processor)(bare)


def test_tokenizer_of_the_export_decodes_as_ours(processor, tokenizer):
  text = "What's 音 42?\n\nThe pitch…"
  ids = tokenizer.encode(text)
  assert processor.tokenizer(text)["input_ids"] == ids
  assert processor.decode(ids) == text == tokenizer.decode(ids)
