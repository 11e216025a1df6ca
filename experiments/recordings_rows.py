"""Real recordings in two halves: rows for training, changed copies, dialogues.

Rows are those of a manifest as evals/recordings.py reads it.
"""

import collections
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stepaudio_jax.evals.parts.items import Item
from stepaudio_jax.rewards.parts import numerals

Row = dict[str, Any]

# Tasks of the manifest that are trained on, and what they are called together.
KINDS = {"digit": "digits", "digit_string": "digits", "sound_event": "sounds"}
SAID = {"digits": "The voice says {}.", "sounds": "I hear {}."}
_STRING_DIGITS = (2, 6)  # of a string that is joined, both included


class Halves(NamedTuple):
  """Rows that train, rows that are held out, rows with parts on both sides, others."""

  train: list[Row]
  heldout: list[Row]
  left_out: list[Row]
  rest: list[Row]


def kind(row: Row) -> str | None:
  """ "digits", "sounds", or None of a row that is not trained on."""
  return KINDS.get(row["meta"].get("task"))


def origins(row: Row) -> tuple[str, ...]:
  """Who is heard, or else who recorded it: what must not be on both sides.

  Everything of one recordist is kept together, since clips that follow each other are
  often of one dog and one microphone. Joined recordings name all of theirs, by "+".

  Raises:
    ValueError: the row names nobody.
  """
  named = row.get("speaker") or row["meta"].get("author") or row.get("source")
  if not named:
    raise ValueError(f"{row['id']!r} has no 'speaker', 'author' or 'source'")
  return tuple(part.strip() for part in named.split("+"))


def halves(rows: Sequence[Row]) -> Halves:
  """Cuts the digit and sound rows in two that share neither speaker nor recordist.

  Origins are dealt in turn to one side and the other, label by label (that of an
  origin's first row by id), in the order of a hash of their names: no sound is looked
  at and nothing is drawn. A row with an origin on each side is left out.

  Raises:
    ValueError: a row names nobody, or a side lacks digits or sounds.
  """
  sides = _sides([row for row in rows if kind(row)])
  found = Halves([], [], [], [])
  for row in rows:
    if kind(row) is None:
      found.rest.append(row)
      continue
    places = {sides[kind(row), origin] for origin in origins(row)}
    (found.left_out if len(places) > 1 else found[places.pop()]).append(row)
  for name in ("train", "heldout"):
    lacking = {*KINDS.values()} - {kind(row) for row in getattr(found, name)}
    if lacking:
      raise ValueError(
        f"no rows about {sorted(lacking)} are left for {name!r}: a manifest needs two "
        f"speakers and two recordists, and rows of the tasks {[*KINDS]}"
      )
  return found


def _sides(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
  """{(kind, origin): 0 trains, 1 is held out}."""
  labels: dict[tuple[str, str], str] = {}
  for row in sorted(rows, key=lambda row: row["id"]):
    # Every speaker says every digit: there is nothing to balance.
    label = row["answer"] if kind(row) == "sounds" else ""
    for origin in origins(row):
      labels.setdefault((kind(row), origin), label)
  sides = {}
  for one in KINDS.values():
    dealt = [key for key in labels if key[0] == one]
    dealt.sort(key=lambda key: (labels[key], _hash(key[1])))
    sides |= {key: place % 2 for place, key in enumerate(dealt)}
  return sides


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


# ─── More rows out of those that train ────────────────────────────────────────────────


def strings(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
  """`count` strings of each speaker's digits; "files" are those to be joined.

  Asked as the training strings are; none without such a row.
  """
  asked = [row for row in rows if row["meta"].get("task") == "digit_string"]
  spoken = collections.defaultdict(list)
  for row in rows:
    if row["meta"].get("task") == "digit":
      spoken[row["speaker"]].append(row)
  if not asked:
    return []
  return [
    _string(asked[0], spoken[speaker], f"joined-{speaker.replace(':', '-')}-{n}", seed)
    for speaker in sorted(spoken)
    for n in range(count)
  ]


def _string(like: Row, spoken: Sequence[Row], name: str, seed: int) -> Row:
  rng = random.Random(f"{seed} {name}")
  digits = rng.choices(spoken, k=rng.randint(*_STRING_DIGITS))
  words = " ".join(row["answer"] for row in digits)
  return {
    "id": name,
    "files": [row["file"] for row in digits],
    "question": like["question"],
    "choices": None,
    "answer": " ".join(str(numerals.DIGITS.index(w)) for w in words.split()),
    "speaker": spoken[0]["speaker"],
    "meta": {"set": "joined", "task": "digit_string", "transcript": words},
  }


def variants(rows: Sequence[Row], counts: Mapping[str, int], seed: int) -> list[Row]:
  """Each row as often as its task has in `counts`, with a number, "take", from 0.

  Its options stand in another order each time. The wrong options of takes after the
  first are drawn from the answers that other training rows of the task have. What is
  done to the sound of such a take is up to whoever writes it.
  """
  answers = collections.defaultdict(set)
  for row in rows:
    answers[row["meta"]["task"]].add(row["answer"])
  made = []
  for row in rows:
    for take in range(counts[row["meta"]["task"]]):
      rng = random.Random(f"{seed} {row['id']} {take}")
      choices = _choices(row, sorted(answers[row["meta"]["task"]]), take, rng)
      name = f"{row['id']}-take{take}"
      made.append({**row, "id": name, "choices": choices, "take": take})
  return made


def _choices(
  row: Row, answers: Iterable[str], take: int, rng: random.Random
) -> list[str] | None:
  if row["choices"] is None:
    return None
  wrong = [choice for choice in row["choices"] if choice != row["answer"]]
  others = [answer for answer in answers if answer != row["answer"]]
  if take and len(others) >= len(wrong):
    wrong = rng.sample(others, len(wrong))
  return rng.sample([*wrong, row["answer"]], len(wrong) + 1)


def dialogue(item: Item) -> Row:
  """What is asked of `item` with its answer, behind a thought of what is heard.

  Strings of digits are answered in words, as in the quick start's world; the
  benchmark takes them for the same as numerals.
  """
  row = item.row
  heard = row["meta"].get("transcript") or row["answer"]
  said = SAID[KINDS[row["meta"]["task"]]].format(heard)
  reply = [{"type": "text", "text": row["answer"] if item.choices else heard}]
  turn = {"role": "assistant", "content": reply, "think": said}
  made = {"id": item.id, "messages": [*item.talk.row["messages"], turn]}
  made |= {"answer": row["answer"], "meta": {"task": row["meta"]["task"]}}
  return made | ({"choices": [*item.choices]} if item.choices else {})
