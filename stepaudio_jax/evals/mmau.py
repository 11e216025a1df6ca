"""MMAU (Sakshi et al. 2024): sounds, music and speech; test-mini, 1,000 questions.

A sample of mmau-test-mini.json, a list beside test-mini-audios/:

  {"id": "3fe64f3d", "audio_id": "./test-mini-audios/3fe64f3d.wav",
   "question": "Identify the source of the speaking voice.",
   "choices": ["Man", "Woman", "Child", "Robot"], "answer": "Man", "task": "sound",
   "sub-category": "Acoustic Source Inference", "difficulty": "medium", …}

The published rule (MMAU's evaluation.py, in parts/words.py) looks for the words of the
right option, so a bare letter is wrong there; ours reads letters too.
"""

from collections.abc import Sequence

from etils import epath

from stepaudio_jax.evals.parts import choosing, reading, shipped, words
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry

COLUMN = "MMAU"
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 2048, "batch_size": 16}
JUDGES = ("rule",)
FILES = ("mmau-test-mini.json", "mmau-test.json", "*.json", "*.jsonl", *shipped.PARQUET)


def read(folder: epath.PathLike) -> list[Item]:
  """The test-mini list, or without one the full test list (with its answers).

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
    entry.audio("audio_id"),
    entry.groups(("task", "difficulty", "sub-category")),
  )
