"""Numbers out of replies: the published cleaning for GSM8K, and our own reading."""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from stepaudio_jax.rewards.parts import answers, numerals

NOTHING = "empty"  # what the published scorer compares where there is no number
_TRIGGERS = re.compile(r"The answer is:|[Tt]he answer is|####")
_PUBLISHED = re.compile(r"-?\d+/?\.?\d*")

_NUMERAL = re.compile(
  r"(?<![\w.])(?<!\d,)(?P<sign>-?)\$?(?P<minus>-?)"
  r"(?P<value>\d{1,30}(?:,\d{3}){0,9}(?:\.\d{1,30})?)"
  r"(?:/(?P<divisor>\d{1,30}))?(?!\d|[.,/]\d|(?:st|nd|rd|th)\b)"
)
_STATED = re.compile(r"(?:answer|result)\s*(?:is|:|=)[\s:=]*|####\s*|答案[是为:]+\s*")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d{1,30})\s*\}\s*\{\s*(\d{1,30})\s*\}")
_ALTERNATIVE = re.compile(r"\s*(?:or|and|或|和)\s*")
_UNITS = {
  name: value
  for value, name in enumerate(
    (
      *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight"),
      *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"),
      *("sixteen", "seventeen", "eighteen", "nineteen"),
    )
  )
}
_TENS = {
  name: 10 * value
  for value, name in enumerate(
    ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
  )
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_NAME = "|".join((*_UNITS, *_TENS, *_SCALES))
_NAMES = re.compile(rf"\b(?:(?:{_NAME})(?:[\s-]+(?:and\s+)?(?=(?:{_NAME})\b))?)+\b")


def read(answer: str) -> Fraction | None:
  """The number that an answer gives: our rule.

  The one that is announced ("the answer is", "####"), else the last one; number words
  where there are no numerals. A refusal and two different announced numbers are none.
  """
  text = _FRACTION.sub(r"\1/\2", numerals.plain(answers.unwrapped(answer)))
  found = {value for values in _announced(text) for value in values}
  if found:
    return found.pop() if len(found) == 1 else None
  return None if answers.refuses(text) else last(text)


def last(text: str) -> Fraction | None:
  """The last numeral of a text, or, where it has none, its last number in words."""
  found = _numerals(text) or _named_numbers(text)
  return found[-1].value if found else None


def worked_out(answer: str) -> str | None:
  """The number behind the last "####" of a reference, or all of it, as a numeral."""
  text = answer.split("####")[-1].strip().replace(",", "").removeprefix("$")
  try:
    Fraction(text)
  except (ValueError, ZeroDivisionError):
    return None
  return text


def shown(value: Fraction) -> str:
  """As a decimal: 29315, -1.5."""
  return str(value.numerator) if value.denominator == 1 else repr(float(value))


class _Number(NamedTuple):
  value: Fraction
  start: int
  end: int


def _announced(text: str) -> Iterator[list[Fraction]]:
  """Behind each announcement the next number, with what is offered beside it."""
  found = sorted([*_numerals(text), *_named_numbers(text)], key=lambda one: one.start)
  place = 0
  for announcement in _STATED.finditer(text):
    while place < len(found) and found[place].start < announcement.end():
      place += 1
    end = place
    while end + 1 < len(found) and _beside(text, *found[end : end + 2]):
      end += 1
    yield [one.value for one in found[place : end + 1]]


def _beside(text: str, one: _Number, other: _Number) -> bool:
  return bool(_ALTERNATIVE.fullmatch(text, one.end, other.start))


def _numerals(text: str) -> list[_Number]:
  found = [(_value(one), one) for one in _NUMERAL.finditer(text)]
  return [_Number(value, *one.span()) for value, one in found if value is not None]


def _named_numbers(text: str) -> list[_Number]:
  found = [(_named(one[0]), one) for one in _NAMES.finditer(text)]
  return [_Number(value, *one.span()) for value, one in found if value is not None]


def _value(numeral: re.Match[str]) -> Fraction | None:
  value = Fraction(numeral["value"].replace(",", ""))
  divisor = int(numeral["divisor"] or 1)
  negative = numeral["sign"] or numeral["minus"]
  return None if not divisor else (-value if negative else value) / divisor


def _named(words: str) -> Fraction | None:
  """Of "one hundred and twenty-three" 123; None of what is no number: "two five"."""
  total, part, limit = 0, 0, 10**9
  for word in re.findall(_NAME, words):
    if word in ("thousand", "million"):
      if _SCALES[word] >= limit:
        return None
      limit = _SCALES[word]
      total, part = total + max(part, 1) * limit, 0
    elif word == "hundred":
      if part >= 100:
        return None
      part = max(part, 1) * 100
    elif part % (10 if 0 < _UNITS.get(word, 0) < 10 else 100):
      return None
    else:
      part += _UNITS.get(word, 0) + _TENS.get(word, 0)
  return Fraction(total + part)


def gsm8k(reply: str) -> str:
  """The number of a reply, as AudioBench cleans it for Spoken MQA.

  Where one way to announce an answer comes twice only the text before the first blank
  line counts. The first number behind the last announcement, else the last number,
  without separators of thousands and made plain.
  """
  text = reply.strip("\n")
  if any(text.count(one) > 1 for one in _announcements(text)):
    text = text.split("\n\n")[0]
  *before, text = _TRIGGERS.split(text)
  text = text.strip("\n").rstrip(".").rstrip("/").strip(" ").replace(",", "")
  found = _PUBLISHED.findall(text)
  if not found:
    return NOTHING
  number = found[0] if before else found[-1]
  return plain(number.rstrip(".").rstrip("/"))


def gsm8k_reference(answer: str, cleaned: bool) -> str:
  """What the published scorer compares with; only reasoning tasks clean theirs.

  Elsewhere a reference of "12.0" is never met, since predictions are made plain.
  """
  if not cleaned:
    return answer or NOTHING
  if "####" in answer:
    answer = answer.split("#### ")[-1].replace(",", "")
  return plain(answer) or NOTHING


def plain(number: str) -> str:
  """ "3" of "3.0", "-1.5" of "-1.50", "29315" of "58630/2"; other texts as they are."""
  try:
    value = float(Fraction(number)) if "/" in number else float(number)
  except (ValueError, ZeroDivisionError, OverflowError):
    return number
  if not math.isfinite(value):
    return number
  return str(int(value)) if value.is_integer() else str(value)


def _announcements(text: str) -> set[str]:
  return set(_TRIGGERS.findall(text))
