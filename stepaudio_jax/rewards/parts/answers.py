r"""What a reply answers: the text behind its thought, out of its wrappers."""

import json
import re
import unicodedata

from stepaudio_jax.core import replies
from stepaudio_jax.rewards.parts import numerals

_END = re.compile(r"<\|(?:EOT|endoftext|im_end)\|>")
_WRAPPERS = (
  re.compile(r"<response>(.*?)</response>", re.S | re.I),
  re.compile(r"<answer>(.*?)</answer>", re.S | re.I),
  re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
)
_FENCE = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.S)
_TYPEFACE = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_QUOTES = " \n\t\"'“”`"
_FINAL = " .!?,;:。、"
_PREAMBLE = re.compile(
  r"(?:(?:so |therefore,? )?(?:the |my )?(?:final |correct )?answer(?: is|:)+:?"
  r"|答案[是为:]+)\s*"
)
_REFUSAL = re.compile(
  r"\b(cannot|can't|can not|unable|not sure|don't know|do not know|no idea)\b"
  r"|无法|不知道|不确定|听不"
)


def answer_text(reply_text: str) -> str | None:
  """What follows the last `</think>`, up to the end of the turn.

  The prompt opened the thought: one that never closes has no answer (None).
  """
  answer = replies.split_reply(reply_text)[1]
  return None if answer is None else _END.split(answer)[0].strip()


def unwrapped(answer: str) -> str:
  r"""An answer without tags, `\boxed`, fenced JSON, bold and quotes.

  Compatible characters are made one (NFKC); where two wrappers differ, both stay.
  """
  for wrapper in _WRAPPERS:
    found = dict.fromkeys(one.strip() for one in wrapper.findall(answer))
    answer = "\n".join(found) if found else answer
  fence = _FENCE.search(answer)
  answer = _TYPEFACE.sub(r"\1", _from_json(fence[1]) if fence else answer)
  return normal(answer).replace("*", "").strip(_QUOTES)


def normal(text: str) -> str:
  """Compatible characters (full-width letters) and apostrophes made one."""
  return unicodedata.normalize("NFKC", text).replace("’", "'")


def refuses(text: str) -> bool:
  """Whether it says that no answer can be given."""
  return bool(_REFUSAL.search(numerals.plain(text)))


def key(text: str) -> str:
  """What two texts share that are equal but for case, spaces and the final mark."""
  return " ".join(numerals.plain(text).split()).strip(_QUOTES).rstrip(_FINAL)


def agrees(answer: str, expected: str) -> bool:
  """Whether an answer gives `expected` where there are no choices.

  It is equal to it (key), or names its number or its digits and no others. Two
  strings of digits, a refusal or nothing at all is no answer.
  """
  text = unwrapped(answer)
  bare = key(_PREAMBLE.sub("", key(text), count=1))
  if bare and bare == key(expected):
    return True
  if refuses(text):
    return False
  same = numerals.same_number, numerals.same_digits
  return any(matches(text, expected) for matches in same)


def _from_json(text: str) -> str:
  """The "answer" of an object; "" where it is not JSON or has none."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return ""
  answer = value.get("answer")
  return "" if answer is None else str(answer)
