"""Text ↔ ids: names, round trips, what a person may type, files in and out."""

import dataclasses
import json
import os
import pathlib
import pickle
import random
import subprocess
import sys

import pytest
import tokenizers
import transformers

from stepaudio_jax.models import sizes
from stepaudio_jax.text import tokenizer as tokenizer_lib
from stepaudio_jax.text import tokenizer_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "stepaudio_jax" / "text" / "tiny"
# Files the committed tokenizer was made with: `--corpus FILE` each.
COMMITTED_WITH: tuple[str, ...] = ()

DIGITS = "zero one two three four five six seven eight nine"
ATTRIBUTES = "low middle high slow normal fast happy sad angry calm excited neutral"
WORDS = f"{DIGITS} {ATTRIBUTES}".split()


@pytest.fixture(scope="module")
def tiny():
  return tokenizer_lib.load("tiny")


@pytest.fixture(scope="module")
def engine():
  """The committed file read by the library itself."""
  return tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))


def _write(folder: pathlib.Path, document: dict, config: dict | None = None):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
  if config is not None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return folder


def _document() -> dict:
  return json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))


def _texts() -> list[str]:
  draw = random.Random(0)
  planes = [(0, 0x80), (0x80, 0xD7FF), (0xE000, 0x2FFFF), (0x1F300, 0x1FAFF)]
  wild = [
    "".join(chr(draw.randint(*draw.choice(planes))) for _ in range(draw.randint(1, 40)))
    for _ in range(200)
  ]
  return [
    "",
    " ",
    "\n\n\n a\t\r\n",
    "语音的音高很低。",
    "👩🏽‍🚀🎤 naïve e\u0301 ﷽ \x00\x07\u2028",
    "12.5 Hz, 3 speakers' voices… It's 100 %",
    *WORDS,
    *wild,
  ]


def test_names_get_the_ids_the_file_gives_them(tiny, engine):
  for field, name in tokenizer_lib.SPECIAL_NAMES.items():
    assert getattr(tiny.special, field) == engine.token_to_id(name) is not None
  assert tiny.special.pad == engine.token_to_id("<|endoftext|>")
  ends = [*map(engine.token_to_id, ("<|EOT|>", "<|endoftext|>", "<|im_end|>"))]
  assert [*tiny.special.stop] == ends
  without = dataclasses.replace(tiny.special, im_end=None)
  assert [*without.stop] == ends[:2]


def test_tiny_fills_the_tiny_models_vocabulary_exactly(tiny):
  assert tiny.vocabulary_size == 1024 == sizes.size("tiny").vocabulary


@pytest.mark.parametrize("word", WORDS)
def test_words_of_the_world_are_single_tokens(tiny, word):
  assert len(tiny.encode(" " + word)) == 1


def test_any_text_comes_back(tiny):
  for text in _texts():
    assert tiny.decode(tiny.encode(text)) == text


def test_encode_equals_the_library_where_nothing_is_special(tiny, engine):
  for text in _texts():
    expected = engine.encode(text, add_special_tokens=False).ids
    assert tiny.encode(text) == expected
    assert tiny.encode(text, special=True) == expected


@pytest.mark.parametrize("name", tokenizer_lib.SPECIAL_NAMES.values())
def test_a_typed_marker_is_plain_text(tiny, name):
  text = f"say {name}{name}\n please"
  ids = tiny.encode(text)
  assert max(ids) < tiny.special.eos  # tiny's special ids come after all pieces
  assert tiny.decode(ids) == text
  assert tiny.decode(ids, special=True) == text


def test_special_encoding_equals_the_librarys(tiny, engine):
  text = "<|BOT|>human\nHi <audio_start><audio_patch><audio_end> <tool_call>x<|EOT|>"
  assert tiny.encode(text, special=True) == engine.encode(text).ids
  assert tiny.decode(tiny.encode(text, special=True), special=True) == text


def test_decode_leaves_special_tokens_out_but_keeps_tool_tags(tiny):
  text = "<|BOT|>a<|EOT|><tool_call>b</tool_call><|im_end|><|endoftext|><tts_pad>"
  ids = tiny.encode(text, special=True)
  assert tiny.decode(ids) == "a<tool_call>b</tool_call>"


def test_decode_survives_half_a_character_and_unknown_ids(tiny):
  first, *_ = tiny.encode("语")
  eot = tiny.special.eot
  assert tiny.decode([first, eot, first]) == "\ufffd\ufffd"
  assert tiny.decode([*tiny.encode("a"), 158719]) == "a"
  assert tiny.decode([158719, eot], special=True) == "<|unknown_158719|><|EOT|>"


def test_pickle_carries_text_not_engines(tiny):
  tiny.encode("warm up")
  sent = pickle.dumps(tiny)
  assert len(sent) < len(tiny.document.encode()) + len(tiny.config) + 500
  back = pickle.loads(sent)
  assert back == tiny
  assert back.encode("语音 pitch") == tiny.encode("语音 pitch")
  assert back.special == tiny.special


def test_saved_directory_loads_here_and_in_transformers(tiny, tmp_path):
  tiny.save(tmp_path / "out")
  back = tokenizer_lib.load(tmp_path / "out")
  assert (back.document, back.config) == (tiny.document, tiny.config)
  text = "<|BOT|>human\nIs it 语音 low?<|EOT|>"
  for theirs in (
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out"),
    transformers.PreTrainedTokenizerFast(tokenizer_file=str(TINY / "tokenizer.json")),
  ):
    assert theirs(text)["input_ids"] == tiny.encode(text, special=True)
  auto = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
  assert auto.eos_token_id == auto.pad_token_id == tiny.special.eos


def test_the_files_truncation_and_template_are_ignored(tiny, tmp_path):
  document = _document()
  document["truncation"] = {
    "direction": "Right",
    "max_length": 3,
    "strategy": "LongestFirst",
    "stride": 0,
  }
  bos = {"id": "<|BOT|>", "ids": [tiny.special.bot], "tokens": ["<|BOT|>"]}
  document["post_processor"] = {
    "type": "TemplateProcessing",
    "single": [
      {"SpecialToken": {"id": "<|BOT|>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [],
    "special_tokens": {"<|BOT|>": bos},
  }
  loaded = tokenizer_lib.load(_write(tmp_path, document))
  text = "one two three four five six"
  assert loaded.encode(text) == tiny.encode(text)


def test_merges_and_vocabulary_files_make_the_same_tokenizer(tiny, tmp_path):
  document = _document()
  model = document["model"]
  merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
  (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
  (tmp_path / "merges.txt").write_text(merges + "\n", encoding="utf-8")
  rows = {
    str(r["id"]): {k: v for k, v in r.items() if k != "id"}
    for r in document["added_tokens"]
  }
  config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": rows}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  loaded = tokenizer_lib.load(tmp_path)
  assert loaded.special == tiny.special
  for text in ["The pitch is low.\n\n语音 don't", "naïve 100"]:
    assert loaded.encode(text) == tiny.encode(text)
  assert loaded.encode("e\u0301") == tiny.encode("é")  # Qwen2 normalises to NFC

  config["tokenizer_class"] = "GPT2Tokenizer"
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="'GPT2Tokenizer' splits text"):
    tokenizer_lib.load(tmp_path)


def test_missing_special_tokens_are_all_listed(tmp_path):
  document = _document()
  gone = {"<|BOT|>", "<audio_patch>", "<tts_end>"}
  kept = [row for row in document["added_tokens"] if row["content"] not in gone]
  document["added_tokens"] = kept
  with pytest.raises(ValueError, match=r"\['<\|BOT\|>', '<audio_patch>'\]"):
    tokenizer_lib.load(_write(tmp_path, document))


def test_optional_special_tokens_may_be_missing(tmp_path):
  document = _document()
  document["added_tokens"] = [
    row for row in document["added_tokens"] if "tts" not in row["content"]
  ]
  special = tokenizer_lib.load(_write(tmp_path, document)).special
  assert (special.tts_start, special.tts_end, special.tts_pad) == (None, None, None)


def test_config_may_add_tokens_but_not_contradict(tiny, tmp_path):
  document = _document()
  *kept, last = document["added_tokens"]
  rows = {str(last["id"]): {"content": last["content"], "special": True}}
  document["added_tokens"] = kept
  _write(tmp_path, document, {"added_tokens_decoder": rows})
  assert tokenizer_lib.load(tmp_path).special == tiny.special
  rows[str(tiny.special.eot)] = {"content": "<|other|>"}
  _write(tmp_path, document, {"added_tokens_decoder": rows})
  with pytest.raises(ValueError, match=r"'<\|EOT\|>' in tokenizer.json but '<\|other"):
    tokenizer_lib.load(tmp_path)


def test_a_vocabulary_that_can_spell_a_marker_is_refused(tiny, tmp_path):
  document = _document()
  # A model that looks words up whole, its vocabulary holding a marker's id.
  document["pre_tokenizer"] = None
  document["model"]["ignore_merges"] = True
  document["model"]["vocab"]["<|EOT|>"] = tiny.special.eot
  with pytest.raises(ValueError, match=r"plain text '<\|EOT\|>' turns into"):
    tokenizer_lib.load(_write(tmp_path, document))


def test_an_unknown_name_is_answered_with_what_exists(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"tini.*'tiny'.*tokenizer.json"):
    tokenizer_lib.load("tini")
  with pytest.raises(FileNotFoundError, match=r"vocab\.json and merges.txt"):
    tokenizer_lib.load(tmp_path)


def _plain_qwen() -> dict:
  """Qwen2.5's numbering on a small vocabulary: 22 added tokens from 151643 on."""
  document = _document()
  names = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}
  names |= {151657: "<tool_call>", 151658: "</tool_call>"}
  document["added_tokens"] = [
    tokenizer_files.added_token(i, names.get(i, f"<|other_{i}|>"))
    for i in range(151643, 151665)
  ]
  return document


def test_plain_qwen_gets_steps_ids(tmp_path):
  folder = _write(tmp_path, _plain_qwen())
  with pytest.raises(
    ValueError, match=r"lacks .*BOT.*EOT.*audio_patch.*--tokenizer DIR"
  ):
    tokenizer_lib.load(folder)
  loaded = tokenizer_lib.load(folder, extend_qwen=True)
  assert loaded.special == tokenizer_lib.Special(
    bot=151666,
    eot=151665,
    eos=151643,
    audio_start=151688,
    audio_end=151689,
    audio_patch=151690,
    im_start=151644,
    im_end=151645,
    tool_call=151657,
    tool_call_end=151658,
    tts_start=151693,
    tts_end=151694,
    tts_pad=151695,
  )
  assert loaded.vocabulary_size == 151696
  ids = [row["id"] for row in json.loads(loaded.document)["added_tokens"]]
  assert ids == list(range(151643, 151696))  # no gap: readers number in order
  assert loaded.decode([151667], special=True) == "<|reserved_151667|>"


def test_only_plain_qwen_is_extended(tmp_path):
  with pytest.raises(ValueError, match="here 151643 is None"):
    tokenizer_lib.load("tiny", extend_qwen=True)
  document = _plain_qwen()
  document["added_tokens"].append(tokenizer_files.added_token(151665, "<|EOT|>"))
  with pytest.raises(ValueError, match=r"taken are \{151665: '<\|EOT\|>'\}"):
    tokenizer_lib.load(_write(tmp_path, document), extend_qwen=True)


def _make(out: pathlib.Path, hash_seed: str, *arguments: str) -> str:
  command = [sys.executable, "-m", "experiments.tiny_tokenizer", "--out", str(out)]
  environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
  done = subprocess.run(
    [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
  )
  return done.stderr


def test_the_script_makes_the_committed_files_every_time(tmp_path):
  extra = [part for file in COMMITTED_WITH for part in ("--corpus", file)]
  for seed in ("1", "2"):
    assert _make(tmp_path / seed, seed, *extra) == ""
    for name in ("tokenizer.json", "tokenizer_config.json"):
      assert (tmp_path / seed / name).read_bytes() == (TINY / name).read_bytes()


def test_extra_corpus_changes_pieces_but_keeps_the_words_whole(tiny, tmp_path):
  lines = ["the zebra xylophone is quixotic"] * 3000
  (tmp_path / "more.txt").write_text("\n".join(lines))
  assert _make(tmp_path / "a", "0", "--corpus", str(tmp_path / "more.txt")) == ""
  made = tokenizer_lib.load(tmp_path / "a")
  assert made.vocabulary_size == 1024
  assert len(made.encode(" quixotic")) == 1 < len(tiny.encode(" quixotic"))
  assert all(len(made.encode(" " + word)) == 1 for word in WORDS)
