"""Which of several options an answer names (evaluation.md, answer extraction)."""

import functools
import re
import string
from collections.abc import Sequence

from stepaudio_jax.rewards.parts import answers, numerals

_WORD = numerals.WORD
_IN_WORD = re.compile(_WORD)
_GONE = "\ufffc"  # stands where the text of an option was
_ALONE = re.compile(r"\(?([A-Z])[).:]*", re.I)
_LABELLED = re.compile(r"\(?([A-Z])[).:]\s*(.+)", re.S)
_LEADING = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])(?:[).:,;]|\s*\n|\s+[-–—]\s))")
_ANOTHER = re.compile(r"[\s,/&]*(?:or|and)?\s*\(?([A-Z])(?=[).:,;\s]|$)")
_STATED = re.compile(
  r"(?:(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?: is)?:? ?|(?:答案|选项?|选择)[是为:]* ?)"
  rf"([A-Z])(?!{_WORD}|'|\s*{_GONE})"
)
# In prose "A" and "I" are words; "A" is a letter where it ends a clause.
_IN_TEXT = re.compile(
  rf"\(([A-Z])\)|(?<!{_WORD}|')(?:([B-HJ-Z])(?!{_WORD}|['#♯♭+])"
  r"|(A)(?=\s*(?:[.,;:!?)。、]|$)| (?:or|and) ))"
)

# "B. " before the text of an option, as where options are told over again.
_TOLD = re.compile(rf"(?<!{_WORD})\(?([A-Z])[).:]+\s*{_GONE}")
_NOT = r"\b(?:not|isn't|never)\s+(?:(?:the|an?|option|choice)\s+)?"
_DENIED_LETTER = re.compile(rf"{_NOT}\(?([A-Z])(?!{_WORD})")
_DENIED_TEXT = re.compile(rf"{_NOT}{_GONE}")


def choice(answer: str, choices: Sequence[str]) -> str | None:
  """The one of `choices` that an answer names, or None; never drawn at random.

  It equals the choice; else it leads with a letter, or holds one letter, and names no
  other choice alone; else it contains exactly one choice. Where several choices are
  told over again with their letters, what else is said counts. Two letters or choices,
  what it is not, a refusal and nothing at all are None.
  """
  text = answers.unwrapped(answer)
  if not answers.key(text):
    return None
  letters, texts = _labelled(choices)
  equal = [
    one
    for one, bare in zip(choices, texts, strict=True)
    if answers.key(text) in (answers.key(one), answers.key(bare))
  ]
  if len(equal) == 1:
    return equal[0]
  label = _LABELLED.fullmatch(text)
  if label:
    place = string.ascii_uppercase.index(label[1])
    if place < len(texts) and answers.key(label[2]) == answers.key(texts[place]):
      return choices[place]
  places, rest = _found(text, texts)
  if answers.refuses(rest):
    return None
  chosen = {letters.index(letter) for letter in _letters(rest) if letter in letters}
  if len(chosen) == 1 and (not places or chosen <= set(places)):
    return choices[chosen.pop()]
  one = len(places) == 1 and not chosen and not _DENIED_TEXT.search(rest)
  return choices[places[0]] if one else None


def named(text: str, choices: Sequence[str]) -> list[str]:
  """The choices that a text contains as whole words; numerals are words.

  Of two choices, one inside the other, "dark red" names the longer one only.
  """
  return [choices[place] for place in _found(text, choices)[0]]


def _found(text: str, texts: Sequence[str]) -> tuple[list[int], str]:
  """Places of the texts that are contained, and what is left without them."""
  text = numerals.spelt(answers.normal(text))
  places = []
  for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
    pattern = _pattern(texts[place])
    if pattern is None or not pattern.search(text):
      continue
    rest = _without(text, pattern)
    places += [place] if rest != text else []
    text = rest
  return sorted(places), text


@functools.lru_cache(maxsize=1 << 12)
def _pattern(text: str) -> re.Pattern[str] | None:
  """The words of a text, wherever they stand; None of a letter, or of no word."""
  words = numerals.spelt(answers.normal(text)).split()
  if _is_letter(text) or not words:
    return None
  pattern = r"\s+".join(map(re.escape, words))
  return re.compile(rf"(?<!\d[.,]){pattern}(?![.,]\d)", re.I)


def _without(text: str, pattern: re.Pattern[str]) -> str:
  """The text with a mark in the place of these words, unless inside a longer one."""

  def mark(found: re.Match[str]) -> str:
    beside = text[max(found.start() - 1, 0) : found.start()]
    beside += text[found.end() : found.end() + 1]
    return found[0] if _IN_WORD.search(beside) else f" {_GONE} "

  return pattern.sub(mark, text)


def _letters(rest: str) -> set[str]:
  """Letters that answer, in a text without the options."""
  if len({*_TOLD.findall(rest)}) > 1:
    rest = _TOLD.sub(" ", rest)
  alone = _ALONE.fullmatch(rest.strip(" .!?,;:。"))
  if alone:
    return {alone[1].upper()}
  lead = _LEADING.match(rest)
  if lead:
    another = _ANOTHER.match(rest, lead.end())
    return {lead[1] or lead[2]} | ({another[1]} if another else set())
  found = {*_STATED.findall(rest), *sum(_IN_TEXT.findall(rest), ())} - {""}
  return set() if found <= {*_DENIED_LETTER.findall(rest)} else found


def _labelled(choices: Sequence[str]) -> tuple[list[str | None], list[str]]:
  """The letter that stands for each choice, and the choices without such a label.

  Letters go by place ("(A) low", "(B) high" or without labels), unless they could be
  taken for choices that are letters: these stand for themselves, the others have none.
  """
  alphabet = [*string.ascii_uppercase, *[None] * len(choices)][: len(choices)]
  labels = [_LABELLED.fullmatch(answers.normal(one).strip()) for one in choices]
  if all(labels) and [label[1] for label in labels] == alphabet:
    return alphabet, [label[2] for label in labels]
  if any(_is_letter(one) and one.strip().upper() in alphabet for one in choices):
    letters = [one.strip().upper() if _is_letter(one) else None for one in choices]
    return letters, list(choices)
  return alphabet, list(choices)


def _is_letter(text: str) -> bool:
  return len(text.strip()) == 1 and text.strip() in string.ascii_letters
