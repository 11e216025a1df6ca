"""Hugging Face tokenizer files: read, made from merges, and given Step's tokens."""

import json
from typing import Any

from etils import epath

# Where Step's tokenizer continues Qwen2.5's; <|BOT|> is our choice.
_STEP_IDS = {
  151665: "<|EOT|>",
  151666: "<|BOT|>",
  151688: "<audio_start>",
  151689: "<audio_end>",
  151690: "<audio_patch>",
  151693: "<tts_start>",
  151694: "<tts_end>",
  151695: "<tts_pad>",
}
EOS = "<|endoftext|>"
_QWEN_EOS_ID = 151643

# Qwen2.5's split: single digits, and punctuation glued to the newlines after it.
_SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONFIG = {
  "tokenizer_class": "PreTrainedTokenizerFast",
  "eos_token": EOS,
  "pad_token": EOS,
  "clean_up_tokenization_spaces": False,
}


def byte_level_document(
  vocabulary: dict[str, int],
  merges: list[list[str]],
  added: list[dict[str, Any]],
  normalizer: dict[str, Any] | None,
) -> dict[str, Any]:
  """tokenizer.json of a byte-level BPE that splits text as Qwen2.5 does."""
  byte_level = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
  }
  split = {
    "type": "Split",
    "pattern": {"Regex": _SPLIT},
    "behavior": "Isolated",
    "invert": False,
  }
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": added,
    "normalizer": normalizer,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
    "post_processor": None,
    "decoder": byte_level,
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": None,
      "continuing_subword_prefix": None,
      "end_of_word_suffix": None,
      "fuse_unk": False,
      "byte_fallback": False,
      "ignore_merges": False,
      "vocab": vocabulary,
      "merges": merges,
    },
  }


def added_token(token_id: int, content: str, special: bool = True) -> dict[str, Any]:
  """A row of tokenizer.json's added_tokens."""
  flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
  return {"id": token_id, "content": content, **flags, "special": special}


def read(folder: epath.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """(tokenizer.json, tokenizer_config.json) of a directory, parsed."""
  config_file = folder / "tokenizer_config.json"
  config = _json(config_file) if config_file.exists() else CONFIG
  if (folder / "tokenizer.json").exists():
    document = _json(folder / "tokenizer.json")
    if not isinstance(document.get("added_tokens"), list):
      raise ValueError(f"{folder / 'tokenizer.json'} has no list of added_tokens")
  elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
    document = _from_merges(folder, config)
  else:
    raise FileNotFoundError(
      f"no tokenizer {str(folder)!r}: it is neither 'tiny' nor a directory with "
      "tokenizer.json, or with vocab.json and merges.txt"
    )
  rows = {row["id"]: row for row in document["added_tokens"]}
  for key, row in config.get("added_tokens_decoder", {}).items():
    row = added_token(int(key), row["content"], row.get("special", False))
    known = rows.setdefault(row["id"], row)
    if known["content"] != row["content"]:
      raise ValueError(
        f"{folder}: id {key} is {known['content']!r} in tokenizer.json but "
        f"{row['content']!r} in tokenizer_config.json"
      )
  return {**document, "added_tokens": [rows[i] for i in sorted(rows)]}, config


def _json(path: epath.Path) -> dict[str, Any]:
  """Raises ValueError: the file, named, is no JSON object."""
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is no JSON: {error}") from error
  if not isinstance(found, dict):
    raise ValueError(f"{path} is no JSON object")
  return found


def _from_merges(folder: epath.Path, config: dict[str, Any]) -> dict[str, Any]:
  """tokenizer.json made from Qwen2's older pair of files."""
  kind = config.get("tokenizer_class")
  if kind not in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
    raise ValueError(
      f"{folder}: vocab.json and merges.txt do not say how a {kind!r} splits text; "
      "only Qwen2Tokenizer is known: save it with a tokenizer.json"
    )
  lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
  merges = [line.split(" ") for line in lines if line and line[:8] != "#version"]
  vocabulary = _json(folder / "vocab.json")
  return byte_level_document(vocabulary, merges, [], {"type": "NFC"})


def extend_qwen(document: dict[str, Any], folder: epath.Path) -> dict[str, Any]:
  """Step's special tokens at Step's ids, reserved names between."""
  rows = document["added_tokens"]
  names = {row["id"]: row["content"] for row in rows}
  first = min(_STEP_IDS)
  taken = {i: names[i] for i in sorted(names) if i >= first}
  if names.get(_QWEN_EOS_ID) != EOS or taken:
    raise ValueError(
      f"{folder}: extend_qwen wants a plain Qwen2.5 tokenizer, with <|endoftext|> at "
      f"{_QWEN_EOS_ID} and nothing from {first} on; here {_QWEN_EOS_ID} is "
      f"{names.get(_QWEN_EOS_ID)!r} and taken are {dict(list(taken.items())[:5])}"
    )
  new = range(first, max(_STEP_IDS) + 1)
  ours = [added_token(i, _STEP_IDS.get(i, f"<|reserved_{i}|>")) for i in new]
  return {**document, "added_tokens": [*rows, *ours]}
