"""Text ↔ token ids, for any tokenizer in the Hugging Face file format.

Special tokens are resolved by name, never by number, and `encode` knows none of them:
a person who types "<|EOT|>" or "<audio_patch>" gets plain pieces. Only the renderer
of chat.py sets special ids, and it takes them from `Tokenizer.special`.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import tokenizers
from etils import epath

from stepaudio_jax.text import tokenizer_files

_TINY = pathlib.Path(__file__).parent / "tiny"

_REQUIRED = {
  "bot": "<|BOT|>",
  "eot": "<|EOT|>",
  "eos": "<|endoftext|>",
  "audio_start": "<audio_start>",
  "audio_end": "<audio_end>",
  "audio_patch": "<audio_patch>",
}
_OPTIONAL = {
  "im_start": "<|im_start|>",
  "im_end": "<|im_end|>",
  "tool_call": "<tool_call>",
  "tool_call_end": "</tool_call>",
  "tts_start": "<tts_start>",
  "tts_end": "<tts_end>",
  "tts_pad": "<tts_pad>",
}
SPECIAL_NAMES = _REQUIRED | _OPTIONAL


@dataclasses.dataclass(frozen=True)
class Special:
  """Ids of the tokens with a meaning; None where the tokenizer has no such token."""

  bot: int
  eot: int
  eos: int
  audio_start: int
  audio_end: int
  audio_patch: int
  im_start: int | None
  im_end: int | None
  tool_call: int | None
  tool_call_end: int | None
  tts_start: int | None
  tts_end: int | None
  tts_pad: int | None

  @property
  def pad(self) -> int:
    return self.eos

  @property
  def stop(self) -> tuple[int, ...]:
    """Generation ends on any, here and where an export is loaded."""
    return (self.eot, self.eos, *(() if self.im_end is None else (self.im_end,)))


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Made by `load`. Pickles as its two files' text; engines are built on first use.

  Attributes:
    name: what was given to `load`.
    document: text of tokenizer.json.
    config: text of tokenizer_config.json.
  """

  name: str
  document: str = dataclasses.field(repr=False)
  config: str = dataclasses.field(repr=False)

  def encode(self, text: str, special: bool = False) -> list[int]:
    """Ids of `text`; with `special`, markers such as "<|EOT|>" become their tokens.

    Never set `special` on text that a person or a model wrote.
    """
    if not special:
      return self._plain.encode(text, add_special_tokens=False).ids
    ids = []
    for piece in self._marker_pattern.split(text):
      ids += [self._markers[piece]] if piece in self._markers else self.encode(piece)
    return ids

  def decode(self, ids: Iterable[int], special: bool = False) -> str:
    """Text of `ids`; special tokens are left out, or with `special` shown by name.

    Broken UTF-8 (a character cut in half) becomes U+FFFD. Ids beyond the tokenizer,
    which a padded embedding table can sample, are left out or shown as unknown.
    """
    parts = []
    runs = itertools.groupby((int(i) for i in ids), key=self._is_text)
    for is_text, run in runs:
      if is_text:
        parts.append(self._plain.decode(list(run), skip_special_tokens=False))
      else:
        parts += [self._marker_text(i, special) for i in run]
    return "".join(parts)

  def save(self, folder: str | epath.PathLike) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(self.document, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(self.config, encoding="utf-8")

  @functools.cached_property
  def special(self) -> Special:
    missing = [name for name in _REQUIRED.values() if name not in self._markers]
    if missing:
      raise ValueError(
        f"tokenizer {self.name!r} lacks the special tokens {missing}: name a folder "
        "whose tokenizer has them (convert: --tokenizer DIR); a plain Qwen2.5's gets "
        "them where Qwen2.5 itself is imported"
      )
    return Special(**{k: self._markers.get(n) for k, n in SPECIAL_NAMES.items()})

  @functools.cached_property
  def vocabulary_size(self) -> int:
    """Largest id + 1 (a model's embedding table may be padded beyond it)."""
    return 1 + max(self.vocabulary.values())

  @functools.cached_property
  def vocabulary(self) -> dict[str, int]:
    """Every token's text and id, markers included."""
    return {**self._plain.get_vocab(), **self._markers}

  def __getstate__(self) -> dict[str, str]:
    return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

  def _is_text(self, token_id: int) -> bool:
    if token_id in self._marker_names:
      return False
    return self._plain.id_to_token(token_id) is not None

  def _marker_text(self, token_id: int, special: bool) -> str:
    if special:
      return self._marker_names.get(token_id, f"<|unknown_{token_id}|>")
    return self._shown.get(token_id, "")

  @functools.cached_property
  def _added(self) -> list[dict[str, Any]]:
    return json.loads(self.document)["added_tokens"]

  @functools.cached_property
  def _markers(self) -> dict[str, int]:
    return {row["content"]: row["id"] for row in self._added}

  @functools.cached_property
  def _marker_names(self) -> dict[int, str]:
    return {row["id"]: row["content"] for row in self._added}

  @functools.cached_property
  def _shown(self) -> dict[int, str]:
    """Added tokens that are part of a reply's text, such as <tool_call>."""
    hidden = set(_REQUIRED.values())
    rows = [row for row in self._added if not row["special"]]
    return {row["id"]: row["content"] for row in rows if row["content"] not in hidden}

  @functools.cached_property
  def _marker_pattern(self) -> re.Pattern:
    longest_first = sorted(self._markers, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

  @functools.cached_property
  def _plain(self) -> tokenizers.Tokenizer:
    """The engine without any added token, and without the file's truncation."""
    document = json.loads(self.document)
    document |= {"added_tokens": [], "truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(document))


def load(name: str | epath.PathLike, *, extend_qwen: bool = False) -> Tokenizer:
  """The tokenizer called "tiny" or the one in a Hugging Face directory.

  Args:
    name: "tiny" or a directory with tokenizer.json, or with Qwen2's vocab.json and
      merges.txt; tokens of tokenizer_config.json's added_tokens_decoder are added.
    extend_qwen: give a plain Qwen2.5 tokenizer Step's special tokens at Step's ids,
      <|BOT|> at 151666 and <|reserved_ID|> at the ids between.

  Raises:
    FileNotFoundError: no tokenizer there.
    ValueError: required special tokens are missing (all are listed), two tokens
      claim one id, or plain text could turn into a special token.
  """
  folder = epath.Path(_TINY if str(name) == "tiny" else name)
  document, config = tokenizer_files.read(folder)
  if extend_qwen:
    document = tokenizer_files.extend_qwen(document, folder)
    config = tokenizer_files.CONFIG
  tokenizer = Tokenizer(
    str(name), json.dumps(document, ensure_ascii=False), json.dumps(config, indent=2)
  )
  _check(tokenizer)
  return tokenizer


def _check(tokenizer: Tokenizer) -> None:
  """Raises unless every required token is there and none can be typed."""
  required = set(dataclasses.astuple(tokenizer.special))
  for name in SPECIAL_NAMES.values():
    typed = required & set(tokenizer.encode(name))
    if typed:
      raise ValueError(
        f"tokenizer {tokenizer.name!r}: the plain text {name!r} turns into the "
        f"special ids {sorted(typed)}"
      )
