"""Digits and numbers that a text names, as words or numerals."""

import re
import unicodedata
from decimal import Decimal

DIGITS = (
  *("zero", "one", "two", "three", "four"),
  *("five", "six", "seven", "eight", "nine"),
)
# A letter or digit of a script that sets words apart by spaces.
WORD = r"[^\W\u3040-\u30ff\u3400-\u9fff]"
_DIGIT = r"\d|\b(?:" + "|".join(DIGITS) + r")\b"
_LONE = re.compile(rf"(?<!{WORD}|\.)\d(?!{WORD}|\.\d)")
_DIGIT_STRING = re.compile(rf"(?:(?:{_DIGIT})[\s,-]*)+")
_TWO_STRINGS = re.compile(rf"(?:{_DIGIT})\W+or\W+(?:{_DIGIT})")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
# Numerals beside these are no string of digits: 4 + 2, -3, 2.5.
_ARITHMETIC = re.compile(r"[+*/=×÷^]|(?<!\w)-\d|\d\.\d")


def plain(text: str) -> str:
  """Compatible characters, cases, apostrophes and minus signs made one."""
  text = unicodedata.normalize("NFKC", text).casefold()
  return text.replace("’", "'").replace("−", "-")


def digits(text: str) -> list[str]:
  """Digits named in the text, as words and in order; "342" are three."""
  found = re.findall(_DIGIT, plain(text))
  return [DIGITS[int(one)] if one.isdigit() else one for one in found]


def offers_two(text: str) -> bool:
  """Whether two digits are offered: "three or four"."""
  return bool(_TWO_STRINGS.search(plain(text)))


def spelt(text: str) -> str:
  """Lone numerals 0 to 9 as words, so that "2" and "two" are the same."""
  return _LONE.sub(lambda found: DIGITS[int(found[0])], text)


def same_digits(text: str, expected: str) -> bool:
  """Whether `expected` is a string of digits and the text names it and no other.

  "three four two", "3 4 2" and "342" are one string.
  """
  text, expected = plain(text), plain(expected)
  if not _DIGIT_STRING.fullmatch(expected):
    return False
  if offers_two(text) or _ARITHMETIC.search(text):
    return False
  return digits(text) == digits(expected)


def same_number(text: str, expected: str) -> bool:
  """Whether `expected` is a number and the text names it and no other: 3.0 is 3."""
  wanted = _NUMBER.fullmatch(plain(expected))
  found = {_value(one) for one in _NUMBER.findall(plain(text))}
  return wanted is not None and found == {_value(wanted[0])}


def _value(numeral: str) -> Decimal:
  return Decimal(numeral.replace(",", ""))
