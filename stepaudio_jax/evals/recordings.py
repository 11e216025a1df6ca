"""A researcher's own questions about recordings: a plain list, manifest.json.

  {"id": "fsdd-0_jackson_0", "file": "fsdd/0_jackson_0.flac",
   "question": "Which digit is spoken in the recording?",
   "choices": ["six", "zero"], "answer": "zero", "speaker": "fsdd:jackson",
   "source": "…", "meta": {"set": "fsdd", "task": "digit"}}

"choices" may lack: then the answer must be equal but for case and punctuation, or be
the same number or string of digits. A row whose "answer" is null is left out. Items are
counted by "set" and "task" where "meta" has them.
"""

import re
from collections.abc import Sequence

from absl import logging
from etils import epath

from stepaudio_jax.evals.parts import choosing, reading, shipped
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.reading import Entry
from stepaudio_jax.rewards.parts import answers, numerals

COLUMN = None
DEFAULTS = {"temperature": 0.7, "max_new_tokens": 512, "batch_size": 16}
JUDGES = ("rule",)
FILES = ("manifest.json", "manifest.jsonl", "*.json", "*.jsonl", *shipped.PARQUET)
GROUPS = ("set", "task")
_WORD = re.compile(r"\w+")


def read(folder: epath.PathLike) -> list[Item]:
  """The questions whose answer is known.

  Raises:
    ValueError: all that is wrong with the files.
  """
  left_out: list[str] = []
  found = reading.items(folder, FILES, lambda entry: _item(entry, left_out))
  if left_out:
    names = ", ".join(left_out[:5])
    logging.warning(
      "%d rows have no answer and are not asked: %s", len(left_out), names
    )
  return found


def score(item: Item, answer: str | None, verdicts: None = None) -> Score:
  if item.choices:
    return choosing.score(item, answer)
  text = "" if answer is None else answers.unwrapped(answer)
  if not answers.key(text):
    return Score(None)
  right = answers.agrees(answer, item.gold) or _words(text) == _words(item.gold)
  if not right and answers.refuses(text):
    return Score(None)
  return Score(float(right), text)


def _words(text: str) -> Sequence[str]:
  return _WORD.findall(numerals.plain(text).replace("'", ""))


def _item(entry: Entry, left_out: list[str]) -> Item | None:
  question, audio = entry.text("question"), entry.audio("file")
  absent = entry.row.value.get("choices") is None
  choices = () if absent else entry.texts("choices")
  known = "answer" not in entry.row.value or entry.row.value["answer"] is not None
  gold = entry.one_of("answer", choices) if known else ""
  meta = entry.mapping("meta") if entry.row.value.get("meta") is not None else {}
  groups = {key: str(meta[key]) for key in GROUPS if meta.get(key) is not None}
  if not known:
    left_out.append(entry.name)
    return None
  if choices:
    return choosing.item(entry, question, choices, gold, audio, groups)
  return entry.item([{"type": "text", "text": question}, audio], gold, (), groups)
