"""Replies judged and scored: the rows of NAME.items.jsonl."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from etils import epath

from stepaudio_jax.core import processes, progress
from stepaudio_jax.evals.parts import controls, totals
from stepaudio_jax.evals.parts.items import Item, Score
from stepaudio_jax.evals.parts.journal import Journal
from stepaudio_jax.judges.questions import Judge, Question

JUDGED_AT_ONCE = 64  # replies whose judgements are kept together
METRICS = {"accuracy": lambda score: score.value}

Row = dict[str, Any]
Run = tuple[str, int | None]  # condition, budget
Key = tuple[str, int | None, str, int]
_KEY = ("condition", "budget", "id", "sample")


def judged(
  module: ModuleType,
  items: Sequence[Item],
  replies: Sequence[Row],
  judge: Judge,
  journal: Journal,
) -> dict[Key, Row]:
  """{key: {"templates", "verdicts"}} of the replies that can be judged."""
  by_id = {item.id: item for item in items}
  asked = {
    key_of(row): module.questions(by_id[row["id"]], row["reply"])
    for row in replies
    if row["reply"] is not None
  }
  kept = _kept(journal.rows(), asked)
  missing = [key for key in asked if key not in kept or _silent(kept[key])]
  mine = processes.every(missing)
  with progress.bar(None, "judging", "reply", total=len(mine)) as bar:
    for start in range(0, len(mine), JUDGED_AT_ONCE):
      some = mine[start : start + JUDGED_AT_ONCE]
      answers = iter(judge.answers([q for key in some for q in asked[key]]))
      journal.add(
        {
          **dict(zip(_KEY, key, strict=True)),
          "asked": _wording(asked[key]),
          "templates": sorted({question.template for question in asked[key]}),
          "verdicts": [next(answers) for _ in asked[key]],
        }
        for key in some
      )
      bar.update(len(some))
  processes.barrier("all is judged")
  return _kept(journal.rows(), asked)


def _kept(
  rows: Sequence[Row], asked: Mapping[Key, Sequence[Question]]
) -> dict[Key, Row]:
  """Of these very questions the rows with the fewest that no judge answered.

  Those are asked again, perhaps by another process, so several rows may be there.
  """
  kept: dict[Key, Row] = {}
  for row in rows:
    key = key_of(row)
    if key in asked and row["asked"] == _wording(asked[key]):
      kept[key] = min(kept.get(key, row), row, key=_silent)
  return kept


def _silent(row: Row) -> int:
  """How many questions the judge left without a reply."""
  return row["verdicts"].count(None)


def _wording(questions: Sequence[Question]) -> str:
  return digest([[question.system, question.text] for question in questions])


def scored(
  module: ModuleType,
  items: Sequence[Item],
  replies: Sequence[Row],
  verdicts: dict[Key, Row],
  clips: epath.Path,
) -> list[Row]:
  """The rows of NAME.items.jsonl."""
  by_id = {item.id: item for item in items}
  hearing = {
    condition: controls.heard(condition, items, clips)
    for condition in {"audio", *(row["condition"] for row in replies)}
  }
  rows = []
  for reply in replies:
    item, given = by_id[reply["id"]], verdicts.get(key_of(reply))
    score = Score(None)
    if reply["failed"] is None:
      raw = given and given["verdicts"]
      score = module.score(item, reply["reply"], raw)
    # What could not be heard is shown as it was shipped.
    shown = hearing["audio" if reply["failed"] else reply["condition"]](item.talk)
    rows.append(
      {
        **reply,
        "groups": dict(item.groups),
        "messages": shown.row["messages"],
        "gold": item.gold,
        "choices": list(item.choices),
        "extracted": score.extracted,
        "score": score.value,
        "metrics": {
          name: None if score.value is None else float(value(score))
          for name, value in metrics_of(module).items()
        },
        "detail": {**score.detail, **({"judge": given["verdicts"]} if given else {})},
      }
    )
  _add_official(module, items, rows)
  return rows


def _add_official(
  module: ModuleType, items: Sequence[Item], rows: Sequence[Row]
) -> None:
  """The published rule's number of every run's first samples."""
  if not hasattr(module, "official"):
    return
  runs: dict[Run, list[Row]] = {}
  for row in rows:
    if row["sample"] == 0:
      runs.setdefault((row["condition"], row["budget"]), []).append(row)
  for some in runs.values():
    values = module.official(items, [row["reply"] or "" for row in some])
    for row, value in zip(some, values, strict=True):
      row["official"] = value


def metrics_of(module: ModuleType) -> totals.Metrics:
  return getattr(module, "METRICS", METRICS)


def described(judge: Judge | None, verdicts: dict[Key, Row]) -> Row:
  """What has judged, by which wordings, and how many questions it left unanswered."""
  if judge is None:
    return {"kind": "rule"}
  templates = {one for row in verdicts.values() for one in row["templates"]}
  silent = sum(map(_silent, verdicts.values()))
  return {**judge.describe(), "templates": sorted(templates), "unanswered": silent}


def key_of(row: Row) -> Key:
  return tuple(row[name] for name in _KEY)


def digest(value: Any) -> str:
  content = json.dumps(value, sort_keys=True, ensure_ascii=False)
  return hashlib.sha256(content.encode()).hexdigest()[:16]
