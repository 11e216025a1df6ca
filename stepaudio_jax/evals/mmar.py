"""MMAR (Ma et al. 2025): reasoning on sound, music, speech, mixes; 1,000 questions.

A sample of MMAR-meta.json, a list beside audio/:

  {"id": "BV17v_00-03-05", "audio_path": "./audio/BV17v_00-03-05.wav",
   "question": "Which character is the woman?", "choices": ["Cinderella", "Snow White"],
   "answer": "Snow White", "modality": "speech", "category": "Semantic Layer",
   "sub-category": "Content Analysis", …}

The published rule is MMAU's (parts/words.py).
"""

from collections.abc import Sequence

from etils import epath

from stepaudio_jax.evals.parts import choosing, reading, shipped, words
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry

COLUMN = None
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 2048, "batch_size": 16}
JUDGES = ("rule",)
FILES = ("MMAR-meta.json", "*.json", "*.jsonl", *shipped.PARQUET)


def read(folder: epath.PathLike) -> list[Item]:
  """All questions.

  Raises:
    ValueError: all that is wrong with the files.
  """
  return reading.items(folder, FILES, _item)


def score(item: Item, answer: str | None, verdicts: None = None) -> Score:
  return choosing.score(item, answer)


def official(items: Sequence[Item], answers: Sequence[str | None]) -> list[float]:
  """The word sets, see parts/words.py; a reply without an answer is wrong."""
  return [
    float(words.match(item.row["answer"], answer or "", item.choices))
    for item, answer in zip(items, answers, strict=True)
  ]


def _item(entry: Entry) -> Item | None:
  choices = entry.texts("choices")
  return choosing.item(
    entry,
    entry.text("question"),
    choices,
    entry.one_of("answer", choices),
    entry.audio("audio_path"),
    entry.groups(("modality", "category", "sub-category")),
  )
