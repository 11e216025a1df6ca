"""Numbers out of replies: the published cleaning for GSM8K, and our own reading."""

import math
import re
from fractions import Fraction

from stepaudio_jax.rewards.parts import answers, numerals

NOTHING = "empty"  # what the published scorer compares where there is no number
_TRIGGERS = re.compile(r"The answer is:|[Tt]he answer is|####")
_PUBLISHED = re.compile(r"-?\d+/?\.?\d*")

_NUMERAL = re.compile(
  r"(?<![\w.])(?P<sign>-?)\$?(?P<minus>-?)(?P<value>\d{1,30}(?:,\d{3})*(?:\.\d{1,30})?)"
  r"(?:/(?P<divisor>\d{1,30}))?(?!\d|[.,/]\d|(?:st|nd|rd|th)\b)"
)
_STATED = re.compile(r"(?:answer|result)\s*(?:is|:|=)[\s:=]*|####\s*|答案[是为:]+\s*")
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
  text = numerals.plain(answers.unwrapped(answer))
  stated = [text[one.end() :] for one in _STATED.finditer(text)]
  if stated:
    found = {value for one in stated for value in _first(one)}
    if found:
      return found.pop() if len(found) == 1 else None
  return None if answers.refuses(text) else last(text)


def last(text: str) -> Fraction | None:
  """The last number of a text."""
  values = [value for value, _, _ in _numbers(text)]
  return values[-1] if values else None


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


def _first(text: str) -> list[Fraction]:
  """The first number, and the one that is offered beside it ("3 or 4")."""
  (value, _, end), *others = _numbers(text) or [(None, 0, 0)]
  if value is None:
    return []
  beside = [other for other, start, _ in others if _beside(text[end:start])]
  return [value, *beside]


def _beside(between: str) -> bool:
  return bool(_ALTERNATIVE.fullmatch(between))


def _numbers(text: str) -> list[tuple[Fraction, int, int]]:
  """(value, start, end) of the numerals, or, where there are none, of number words."""
  found = [(_value(one), *one.span()) for one in _NUMERAL.finditer(text)]
  named = found or [(_named(one[0]), *one.span()) for one in _NAMES.finditer(text)]
  return [one for one in named if one[0] is not None]


def _value(numeral: re.Match[str]) -> Fraction | None:
  value = Fraction(numeral["value"].replace(",", ""))
  divisor = int(numeral["divisor"] or 1)
  negative = numeral["sign"] or numeral["minus"]
  return None if not divisor else (-value if negative else value) / divisor


def _named(words: str) -> Fraction | None:
  """Of "one hundred and twenty-three" 123; None of what is no number: "two five"."""
  total, part = 0, 0
  for word in re.findall(_NAME, words):
    if word in _SCALES:
      part = max(part, 1) * _SCALES[word]
      if word != "hundred":
        total, part = total + part, 0
    elif part % (10 if word in _UNITS and _UNITS[word] < 10 else 100):
      return None
    else:
      part += _UNITS.get(word, _TENS.get(word, 0))
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
  return plain(number.rstrip(".").rstrip("/")) or NOTHING


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
