"""Big Bench Audio (Artificial Analysis 2024): spoken Big Bench Hard; 4 × 250 questions.

A folder of audio with metadata.jsonl, or Parquet files with "audio":

  {"id": 0, "file_name": "data/question_0.mp3", "category": "formal_fallacies",
   "official_answer": "invalid"}

The publisher judges with a language model; our rule reads the last valid or invalid,
yes or no, or number of the answer. The wording of the instruction and of the judge's
question is ours.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from etils import epath

from stepaudio_jax.evals.parts import judgements, numbers, reading, shipped
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry
from stepaudio_jax.judges import parsing
from stepaudio_jax.judges.questions import Question, Template
from stepaudio_jax.rewards.parts import answers, numerals

COLUMN = "Big Bench Audio"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 4096, "batch_size": 16}
JUDGES = ("rule", "judge")
FILES = ("metadata.jsonl", "data/metadata.jsonl", *shipped.PARQUET, "*.jsonl", "*.json")
PROMPT = Template(
  'Answer the question with only "valid" or "invalid", "yes" or "no", or a number.'
)
JUDGE = Template(
  system="You compare a reply with the official answer to the same question.",
  text=(
    "The question ({category}) was asked aloud and is not shown. Decide only whether "
    "the reply's final answer is the official answer; wording and explanations do not "
    "matter, and a number may be written in words.\n\n"
    "Official answer: {official}\n\n"
    "Reply: {reply}\n\n"
    "Answer with one word, CORRECT or INCORRECT."
  ),
)
CATEGORIES = {
  "formal_fallacies": ("valid", "invalid"),
  "navigate": ("yes", "no"),
  "object_counting": None,  # a number
  "web_of_lies": ("yes", "no"),
}
_VALID = re.compile(
  r"(?P<no>\b(?:not|isn't|never)\s+(?:\w+ly\s+)?)?\b(?P<in>in)?valid\b"
)
_YES_NO = re.compile(r"\b(?:yes|no)\b")


def read(folder: epath.PathLike) -> list[Item]:
  """All questions.

  Raises:
    ValueError: all that is wrong with the files.
  """
  return reading.items(folder, FILES, _item, numbered=True)


def questions(item: Item, answer: str | None) -> list[Question]:
  """One question for the judge; none about a reply that has no answer."""
  if not judgements.given(answer):
    return []
  category = item.groups["category"].replace("_", " ")
  return [JUDGE.ask(category=category, official=item.gold, reply=answer)]


def score(
  item: Item, answer: str | None, verdicts: Sequence[str | None] | None = None
) -> Score:
  """The judge's verdict where there is one that can be read, without a judge the rule.

  None: no answer is read, or the judge's reply is no verdict.
  """
  found = None if answer is None else extracted(item.groups["category"], answer)
  if verdicts is not None:
    right = parsing.correct(judgements.only(verdicts))
    return Score(None if right is None else float(right), found)
  return Score(None if found is None else float(found == item.gold), found)


def extracted(category: str, answer: str) -> str | None:
  """The answer of the kind that the category asks for: the last one that is named."""
  text = numerals.plain(answers.unwrapped(answer))
  if category == "object_counting":
    value = numbers.last(text)
    return None if value is None else numbers.shown(value)
  if category != "formal_fallacies":
    return (_YES_NO.findall(text) or [None])[-1]
  *_, last = [None, *_VALID.finditer(text)]
  if last is None:
    return None
  return "invalid" if bool(last["no"]) != bool(last["in"]) else "valid"


def _item(entry: Entry) -> Item | None:
  category = entry.text("category")
  gold = entry.number_or_text("official_answer")
  if category and category not in CATEGORIES:
    entry.fault(f"'category' is {category!r}, not one of {sorted(CATEGORIES)}")
  elif category and gold:
    gold = _gold(entry, gold, CATEGORIES[category])
  audio = entry.audio("audio" if "audio" in entry.row.value else "file_name")
  content = [audio, {"type": "text", "text": PROMPT.ask().text}]
  return entry.item(content, gold, groups={"category": category})


def _gold(entry: Entry, answer: str, known: tuple[str, ...] | None) -> str:
  """The official answer as it is extracted."""
  plain = answers.key(answer)
  if known is None and (number := numbers.worked_out(plain)) is not None:
    return numbers.shown(Fraction(number))
  if known is None or plain not in known:
    entry.fault(f"'official_answer' is {answer!r}, not {known or 'a number'}")
  return plain
