"""How published harnesses take a letter, or yes and no, out of a reply.

For comparison only: our own rule is rewards/parts/options.py. Where these harnesses
would draw at random, the answer here is None.
"""

import re

_MARKED_START = re.compile(r"<[123]>\s*")
# VoiceBench: what must stand before and after a letter, the text in lower case.
_ROUND = (
  re.compile(r"(?:answer|option|choice) is:? ?\*{0,2}['\"(]?(?P<letter>[abcd])"),
  re.compile(r"(?:select|choose) (?:option )?(?P<letter>[abcd])\b"),
  re.compile(r"答案(?:应该)?是(?:选项)?\s?(?P<letter>[abcd])"),
  re.compile(r"\((?P<letter>[abcd])\)"),
  re.compile(r"\boption (?P<letter>[abcd])\b"),
)
_START = re.compile(r"\**(?P<letter>[abcd])(?:[.,:)]|$)")
_TRUTH = (
  ("yes", re.compile(r"\btells? the truth\b")),
  ("no", re.compile(r"\b(?:lies|lying|lie|does not tell the truth)\b")),
)
_YES_NO = re.compile(r"\b(yes|no)\b")
_LISTED = re.compile(r" (?P<letter>[abcd])[.,]")


def voicebench(reply: str) -> str | None:
  """VoiceBench's letter A–D (MCQEvaluator): a stated or leading one.

  Of a text's first fitting pattern the letter that is first in the alphabet counts.
  """
  text = _MARKED_START.sub("", reply.lower(), count=1)
  start = _START.match(text)
  if start:
    return start["letter"].upper()
  for pattern in (*_ROUND, _LISTED):
    found = {one["letter"] for one in pattern.finditer(text)}
    if found:
      return min(found).upper()
  return None


def lmms_eval(reply: str) -> str | None:
  """lmms-eval's letter A–D for MMAU: "(A)", else " A ", else "A."; of several the last.

  An article counts ("A man" is A): that is the rule.
  """
  text = " " + reply.strip(",.!?;:'") + " "
  for before, after in (("(", ")"), (" ", " "), ("", ".")):
    places = {one: text.rfind(f"{before}{one}{after}") for one in "ABCD"}
    last = max(places, key=lambda one: places[one])
    if places[last] >= 0:
      return last
  return None


def voicebench_yes_no(task: str, reply: str) -> str | None:
  """VoiceBench's yes or no for Big Bench's navigate and web_of_lies (BBHEvaluator).

  The word, where only one of the two is said; for web_of_lies else who "tells the
  truth" is a yes, who "lies" a no.

  Raises:
    ValueError: another task.
  """
  if task not in ("navigate", "web_of_lies"):
    raise ValueError(f"task {task!r} is not in ('navigate', 'web_of_lies')")
  text = reply.lower()
  said = set(_YES_NO.findall(text))
  if not said and task == "web_of_lies":
    said = {word for word, pattern in _TRUTH if pattern.search(text)}
    said = {"no"} if "no" in said else said
  return said.pop() if len(said) == 1 else None
