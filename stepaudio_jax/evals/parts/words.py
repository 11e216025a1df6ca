r"""The word sets of MMAU's and MMAR's published scorers (string_match of both).

Words are runs of \w in lower case. A prediction is right if it has every word of the
answer and none that is another option's alone: "The answer is text." passes where no
option says "the", a bare letter hardly ever.
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"\b\w+\b")
_LABEL = re.compile(r"\(([A-Z])\)\s+(?=\S)")


def match(answer: str, prediction: str, choices: Sequence[str]) -> bool:
  """Whether the published rule takes a prediction for the answer."""
  wanted, said = words(answer), words(prediction)
  others = set().union(*map(words, choices)) - wanted
  return bool(said) and wanted <= said and not said & others


def words(text: str) -> set[str]:
  return set(_WORD.findall(text.lower()))


def bare(choice: str) -> str:
  """An option without the "(A) " before it, which older texts of MMAU have."""
  return _LABEL.sub("", choice, count=1) if _LABEL.match(choice) else choice
