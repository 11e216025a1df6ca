"""A benchmark of a few made-up questions, and speakers that answer by rule."""

import json
import pathlib
import types
from collections.abc import Callable
from typing import Any

from etils import epath

from stepaudio_jax.evals.parts import items as items_lib
from stepaudio_jax.evals.parts.items import Score
from stepaudio_jax.judges.questions import Template
from tests.evals import worlds

WORDING = Template("Is {answer} right?")
ANSWERS = ("low", "high", "high", "low", "low", "high", "low")
CHOICES = ("low", "high")


def write(folder: pathlib.Path, answers: tuple[str, ...] = ANSWERS) -> epath.Path:
  """questions.json and a clip for each, all of other lengths."""
  folder.mkdir(parents=True, exist_ok=True)
  for n, _ in enumerate(answers):
    worlds.write_noise(folder / f"{n}.wav", 4_000 + 100 * n, n)
  rows = [{"id": f"q{n}", "answer": answer} for n, answer in enumerate(answers)]
  (folder / "questions.json").write_text(json.dumps(rows))
  return epath.Path(folder)


def benchmark(**changed: Any) -> types.SimpleNamespace:
  """A module of the contract in evals/__init__.py."""
  made = {"__name__": "evals.quiz", "COLUMN": None, "JUDGES": ("rule", "judge")}
  made |= {"read": read, "score": score, "official": official, "questions": questions}
  return types.SimpleNamespace(**made | changed)


def read(folder: epath.Path) -> list[items_lib.Item]:
  rows = json.loads((folder / "questions.json").read_text())
  return [
    items_lib.Item(
      items_lib.talk(
        row["id"],
        [
          {
            "role": "human",
            "content": [
              {"type": "audio", "path": f"{n}.wav"},
              worlds.text("How high?"),
            ],
          }
        ],
        f"questions.json:{n}",
        str(folder),
      ),
      row["answer"],
      CHOICES,
      {"parity": ("even", "odd")[n % 2]},
      row,
    )
    for n, row in enumerate(rows)
  ]


def score(item: Any, answer: str | None, verdicts: Any) -> Score:
  if verdicts:
    return Score(float(verdicts[0] == "yes"), answer, {"by": "judge"})
  if answer not in CHOICES:
    return Score(None)
  return Score(float(answer == item.gold), answer)


def questions(item: Any, answer: str) -> list[Any]:
  return [WORDING.ask(answer=answer)]


def official(items: Any, answers: list[str]) -> list[float | None]:
  return [
    float(answer == item.gold) if answer else None
    for item, answer in zip(items, answers, strict=True)
  ]


class Parrot:
  """Says what `say(talk, sample, budget)` gives; two talks a batch, four a window.

  Attributes:
    asked: (id, budget) of all that it was ever asked.
    dies_after: batches, after which it raises KeyboardInterrupt.
  """

  def __init__(self, say: Callable[..., str | None], dies_after: int | None = None):
    self.say, self.dies_after = say, dies_after
    self.asked: list[tuple[str, int | None]] = []

  def window(self, options: Any) -> int:
    return 4

  def answers(self, talks, options, wanted, budget=None):
    for start in range(0, len(talks), 2):
      batch = [talk for talk in talks[start : start + 2] if talk.id in wanted]
      if not batch:
        continue
      if self.dies_after is not None and not self.dies_after:
        raise KeyboardInterrupt
      if self.dies_after:
        self.dies_after -= 1
      self.asked += [(talk.id, budget) for talk in batch]
      yield [
        row(talk.id, sample, self.say(talk, sample, budget))
        for talk in batch
        for sample in range(options.samples)
      ]


def row(name: str, sample: int, said: str | None) -> dict[str, Any]:
  """A reply whose thought has two tokens; None: it never closed."""
  parts = {"raw": f"Hm.\n</think>\n{said}", "think": "Hm.", "reply": said}
  told = {"id": name, "sample": sample, **parts, "think_tokens": 2}
  return {**told, "truncated": said is None, "failed": None}
