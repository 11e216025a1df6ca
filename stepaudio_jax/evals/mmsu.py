"""MMSU (Wang et al. 2025): understanding and reasoning in spoken language; 5,000.

A sample of question/mmsu.jsonl, beside audio/ (or a Parquet folder with "audio"):

  {"id": "42", "audio_path": "audio/42.wav", "question": "Where is the stress?",
   "choice_a": "first", "choice_b": "second", "choice_c": "third", "choice_d": "last",
   "answer_gt": "second", "task_name": "stress_perception", "category": "Perception",
   "sub-category": "Linguistics", …}
"""

from collections.abc import Sequence

from etils import epath

from stepaudio_jax.evals.parts import choosing, reading, shipped
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry

COLUMN = "MMSU"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 2048, "batch_size": 16}
JUDGES = ("rule",)
FILES = ("question/mmsu.jsonl", "mmsu.jsonl", "*.jsonl", "*.json", *shipped.PARQUET)
_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_LETTERS = "ABCD"
_GROUPS = ("sub-category", "sub-sub-category", "linguistics_sub_discipline")


def read(folder: epath.PathLike) -> list[Item]:
  """All questions.

  Raises:
    ValueError: all that is wrong with the files.
  """
  return reading.items(folder, FILES, _item)


def score(item: Item, answer: str | None, verdicts: None = None) -> Score:
  return choosing.score(item, answer)


def official(
  items: Sequence[Item], answers: Sequence[str | None]
) -> list[float | None]:
  """The published script (mmsu_evaluation.py), with its defects.

  The letter is the first character if that is one of A to D, else the second last;
  where neither is, as in "**B**", the item is left out. A reply that is empty or "None"
  is scored with the letter that was read last, of whatever item; before any letter was
  read it is left out (there the script stops).
  """
  out, letter = [], None
  for item, answer in zip(items, answers, strict=True):
    text = (answer or "").strip()
    if text not in ("", "None"):
      found = [one for one in (text[:1], text[-2:-1]) if one and one in _LETTERS]
      if not found:
        out.append(None)
        continue
      letter = found[0]
    out.append(None if letter is None else float(letter == _gold_letter(item)))
  return out


def _gold_letter(item: Item) -> str:
  return _LETTERS[item.choices.index(item.gold)]


def _item(entry: Entry) -> Item | None:
  choices = [entry.text(key) for key in _CHOICES[:2]]
  choices += [entry.text(key) for key in _CHOICES[2:] if entry.row.value.get(key)]
  key = "audio_path" if "audio_path" in entry.row.value else "audio"
  groups = entry.groups(("category", "task_name"), _GROUPS)
  if "sub-category" in groups:  # its names come again in each category
    groups["sub-category"] = f"{groups['category']}: {groups['sub-category']}"
  return choosing.item(
    entry,
    entry.text("question"),
    choices,
    entry.one_of("answer_gt", choices),
    entry.audio(key),
    groups,
  )
