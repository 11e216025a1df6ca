"""Asks the questions of a benchmark, keeps every reply, and sums up.

Replies and judgements are kept in journals as they come (OUT/journal): a run that was
killed goes on where it was, and several processes share the windows of a benchmark
without knowing of each other. What is written at the end follows from the journals.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Protocol

from absl import logging
from etils import epath

from stepaudio_jax.audio.decoder import AudioError
from stepaudio_jax.core import files, processes, progress
from stepaudio_jax.data.schema import Audio, Dialogue
from stepaudio_jax.evals.parts import controls, marks, totals
from stepaudio_jax.evals.parts import hearing as hearing_lib
from stepaudio_jax.evals.parts import replies as replies_lib
from stepaudio_jax.evals.parts.items import Item, not_asked
from stepaudio_jax.evals.parts.journal import Journal
from stepaudio_jax.judges import choice
from stepaudio_jax.judges.questions import Judge
from stepaudio_jax.text import messages as messages_lib

Row = dict[str, Any]

_SOUND = "sound"  # of a row in the journal: a hash of the recordings it was heard from


@dataclasses.dataclass(frozen=True)
class Options(replies_lib.Options):
  """How a benchmark is asked.

  Attributes:
    controls: names of controls.py beside the sound itself.
    budgets: thoughts of so many tokens at most, each beside the free run.
  """

  controls: tuple[str, ...] = ()
  budgets: tuple[int, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    known = controls.names()[1:]
    wrong = [name for name in self.controls if name not in known]
    if wrong:
      raise ValueError(f"unknown controls {wrong}; the choices are {known}")
    if self.samples > 1 and self.temperature == 0:
      raise ValueError(
        f"samples={self.samples} at temperature 0 are one reply, told over again"
      )
    if any(budget < 0 for budget in self.budgets):
      raise ValueError(f"budgets={self.budgets}: no budget is under 0")
    for name in ("controls", "budgets"):
      given = getattr(self, name)
      if len({*given}) < len(given):
        raise ValueError(f"{name}={given}: one is there twice")


class Speaker(Protocol):
  """Whoever answers; parts/speaker.py is a checkpoint."""

  def window(self, options: Options) -> int: ...

  def answers(
    self,
    talks: Sequence[Dialogue],
    options: Options,
    wanted: set[str],
    budget: int | None = None,
  ) -> Iterator[list[Row]]: ...


def evaluate(
  module: ModuleType,
  speaker: Speaker,
  data: epath.Path,
  *,
  out: epath.Path,
  options: Options,
  judge: Judge | None = None,
  limit: int | None = None,
  known: Row | None = None,
) -> tuple[Row, list[Row]]:
  """The summary of a benchmark and its items, on every process.

  Args:
    module: a file of evals/ that defines `read` and `score`.
    data: the folder that `read` takes.
    out: of journals and clips; results of other settings stay there, unread.
    judge: None is the benchmark's rule.
    limit: only the first so many items.
    known: what else decides the replies, such as the checkpoint's step.

  Raises:
    ValueError: all that is wrong with the data, or a judge that is lacking.
  """
  check_judge(module, judge)
  hearing_lib.content_key.cache_clear()  # files may be others than at a call before
  items = module.read(data)[:limit]
  drawn = {**dataclasses.asdict(options), **(known or {}), "items": _hash_of(items)}
  # Neither changes a reply: with more of them what is there stays.
  settings = {key: drawn[key] for key in drawn if key not in ("controls", "budgets")}
  place = out / "journal" / module.__name__.rpartition(".")[2]
  journal = Journal(place / "replies", marks.digest(settings))
  # All of them before anything is asked: a control may be impossible.
  conditions = ("audio", *options.controls)
  hearing = {name: controls.heard(name, items, out / "clips") for name in conditions}
  sounds = {name: _sounds(name, items) for name in conditions}
  kept = _kept(journal.rows(), sounds)
  done = {_run_of(row) for row in kept.values() if row["failed"] is None}
  for run in _runs(options):
    heard = hearing[run[0]], sounds[run[0]]
    _ask(speaker, items, *heard, options, journal, run, done)
  processes.barrier("all is answered")
  replies = _ordered(_kept(journal.rows(), sounds), items, options)
  verdicts: dict[marks.Key, Row] = {}
  if judge is not None:
    settings |= {"judge": judge.describe()}
    verdicts = marks.judged(
      module, items, replies, judge, Journal(place / "verdicts", marks.digest(settings))
    )
  rows = marks.scored(module, items, replies, verdicts, out / "clips")
  said = totals.summary(rows, marks.metrics_of(module), options.samples)
  told = {**drawn, "limit": limit, "judge": marks.described(judge, verdicts)}
  if hasattr(module, "PROMPT"):
    told["prompt"] = module.PROMPT.hash
  return {"column": module.COLUMN, "settings": told, **said}, rows


def check_judge(module: ModuleType, judge: Judge | None) -> None:
  """Whether the benchmark can be scored so.

  Raises:
    ValueError: it needs a judge, or can use none.
  """
  kind = "rule" if judge is None else "judge"
  if kind not in module.JUDGES:
    name = module.__name__.rpartition(".")[2]
    scored = f"is scored by {' or '.join(module.JUDGES)}, not by {kind}"
    wanted = f"; name a judge: {choice.WHO}" if judge is None else ""
    raise ValueError(f"benchmark {name!r} {scored}{wanted}")


def _runs(options: Options) -> list[marks.Run]:
  """Conditions without a budget, then the budgets with the sound itself."""
  free = [(condition, None) for condition in ("audio", *options.controls)]
  return free + [("audio", budget) for budget in options.budgets]


def _ask(
  speaker: Speaker,
  items: Sequence[Item],
  hear: controls.Hear,
  sounds: dict[str, str],
  options: Options,
  journal: Journal,
  run: marks.Run,
  done: set[tuple],
) -> None:
  """Asks what is not `done`, of this process's share of the windows."""
  size = speaker.window(options)
  windows = [items[start : start + size] for start in range(0, len(items), size)]
  condition, budget = run
  what = condition if budget is None else f"thoughts of {budget} tokens"
  mine = processes.every(windows)
  with progress.bar(None, what, "item", total=sum(map(len, mine))) as bar:
    for window in mine:
      wanted = {item.id for item in window if (*run, item.id) not in done}
      bar.update(len(window) - len(wanted))
      if not wanted:
        continue
      talks, lost = _heard(window, hear, wanted, options.samples)
      said = speaker.answers(talks, options, wanted, budget)
      for rows in itertools.chain([lost], said):
        if rows:
          told = {"condition": condition, "budget": budget}
          journal.add({**told, _SOUND: sounds[row["id"]], **row} for row in rows)
          bar.update(len({row["id"] for row in rows}))


def _heard(
  window: Sequence[Item], hear: controls.Hear, wanted: set[str], samples: int
) -> tuple[list[Dialogue], list[Row]]:
  """What is asked, and rows of those whose recordings cannot even be changed."""
  talks, lost = [], []
  for item in window:
    try:
      talks.append(hear(item.talk))
    except AudioError as error:
      logging.warning("item %r cannot be heard: %s", item.id, error)
      if item.id in wanted:
        lost += [not_asked(item.id, str(error), sample) for sample in range(samples)]
  return talks, lost


def _sounds(condition: str, items: Sequence[Item]) -> dict[str, str]:
  """By the id of each item a hash of the recordings from which it is heard."""
  return {
    name: marks.digest([_named(audio) for audio in clips])
    for name, clips in controls.sources(condition, items).items()
  }


def _named(audio: Audio) -> str | None:
  """A clip by its content; one in a bucket by its place, where reading takes long."""
  if isinstance(audio.source, str) and files.is_remote(audio.source):
    return f"{audio.source}|{audio.start_s}|{audio.end_s}"
  try:
    return hearing_lib.content_key(audio)
  except AudioError:
    return None


def _kept(
  rows: Sequence[Row], sounds: dict[str, dict[str, str]]
) -> dict[marks.Key, Row]:
  """The rows that still hold: of the same recordings, and answered rather than failed.

  What failed is asked again, so several rows may be there, in no telling order.
  """
  kept: dict[marks.Key, Row] = {}
  for row in rows:
    condition, _, name = _run_of(row)
    key, now = marks.key_of(row), sounds.get(condition, {}).get(name)
    if row.get(_SOUND, "") == now and (key not in kept or row["failed"] is None):
      kept[key] = row
  return kept


def _ordered(
  found: dict[marks.Key, Row], items: Sequence[Item], options: Options
) -> list[Row]:
  """One row of every reply that was asked for, run by run, in the order of the files.

  Raises:
    RuntimeError: replies are lacking: another process has not done its share.
  """
  keys = [
    (condition, budget, item.id, sample)
    for condition, budget in _runs(options)
    for item in items
    for sample in range(options.samples)
  ]
  lacking = [key for key in keys if key not in found]
  if lacking:
    raise RuntimeError(f"{len(lacking)} replies are lacking, such as {lacking[0]}")
  rows = [found[key] for key in keys]
  return [{name: row[name] for name in row if name != _SOUND} for row in rows]


def _run_of(row: Row) -> tuple:
  return row["condition"], row["budget"], row["id"]


def _hash_of(items: Sequence[Item]) -> str:
  """Of the questions as the model reads them, their choices and answers."""
  return marks.digest(
    [
      [item.id, item.gold, *item.choices, *map(messages_lib.text_of, _turns(item))]
      for item in items
    ]
  )


def _turns(item: Item) -> list[Row]:
  return item.talk.row["messages"]
