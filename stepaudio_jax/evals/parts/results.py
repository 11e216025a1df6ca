"""A folder that `evaluate` has left, read back in one form and checked.

One form: that of the benchmarks that parts/suite.py sums up. `world` is brought to it.
Others that go their own way have no share of right replies, and no place in it.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.data import fields, jsonl
from stepaudio_jax.evals.parts import pairs

Row = dict[str, Any]

HEARD = "audio"  # the condition in which a model hears what was recorded
COUNTS = ("n", "n_failed", "n_unparsed")
_NEEDED = ("benchmark", "checkpoint", "settings", *COUNTS, "metrics")
_ABSENT = {
  "column": None,
  "simulated": False,
  "official": None,
  "groups": {},
  "conditions": {},
}
_ABSENT |= {"samples": None, "budgets": None, "chance": None}
_ITEM_NEEDED = ("id", "condition", "messages", "score")
_ITEM_ABSENT = {"sample": 0, "budget": None, "groups": {}, "gold": None, "choices": []}
_ITEM_ABSENT |= dict.fromkeys(("think", "reply", "raw", "think_tokens", "extracted"))
_ITEM_ABSENT |= {"truncated": False, "official": None, "detail": {}, "failed": None}
_ITEM_ABSENT |= {"metrics": {}, "replaced": False}
_LISTED = 20  # problems that one error names


@dataclasses.dataclass(frozen=True)
class Results:
  """A benchmark of a checkpoint.

  Attributes:
    folder: where its files lie.
    summary: NAME.json; what may be missing there is None or empty.
    items: NAME.items.jsonl, the same. Their messages name what was heard, unless they
      are "replaced": then something else was heard in the place of those clips.
  """

  folder: epath.Path
  summary: Row
  items: tuple[Row, ...]

  @property
  def metric(self) -> str:
    """The one of the table."""
    return next(iter(self.summary["metrics"]))

  def free(self) -> list[Row]:
    """Items as the benchmark asks them: with sound, thoughts as long as they get."""
    return [
      row for row in self.items if row["condition"] == HEARD and row["budget"] is None
    ]

  def scores(self) -> dict[str, float]:
    """{id: mean over its samples} of the table's metric, of the score without one.

    What failed or cannot be read counts as 0.
    """
    found: dict[str, list[float]] = {}
    for row in self.free():
      value = row["metrics"].get(self.metric, row["score"])
      found.setdefault(row["id"], []).append(value or 0.0)
    return {name: sum(scores) / len(scores) for name, scores in found.items()}

  def think_tokens(self) -> float | None:
    """Mean length of the free thoughts; None where nobody counted."""
    counts = [row["think_tokens"] for row in self.free()]
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if known else None


@dataclasses.dataclass(frozen=True)
class Folder:
  """What lies in one results folder.

  Attributes:
    results: by benchmark.
    talks: {benchmark: NAME.json} of those that score long dialogues turn by turn.
    unshown: {benchmark: why nothing of it can be shown}.
  """

  path: epath.Path
  results: Mapping[str, Results]
  talks: Mapping[str, Row]
  unshown: Mapping[str, str]


def folder(path: epath.PathLike) -> Folder:
  """All benchmarks of a results folder.

  Raises:
    ValueError: there is no such folder, no result in it, or with all that is wrong in
      the files.
  """
  path = epath.Path(path)
  summaries = {name: _summary(path, name) for name in names(path)}
  unshown = {
    name: f"its summary has another form; its own page is {path / name}.md"
    for name, summary in summaries.items()
    if _is_other(summary) and not _is_talk(summary)
  }
  talks = {name: one for name, one in summaries.items() if _is_talk(one)}
  for name, summary in talks.items():
    _refuse(_talk_problems(summary, str(path / f"{name}.json")))
  left = [name for name in summaries if name not in {**unshown, **talks}]
  return Folder(path, {name: benchmark(path, name) for name in left}, talks, unshown)


def names(path: epath.PathLike) -> list[str]:
  """Benchmarks of which a folder holds a summary.

  Raises:
    ValueError: there are none.
  """
  path = epath.Path(path)
  if not path.is_dir():
    raise ValueError(f"there is no folder {path} with results")
  files = sorted(file.name for file in path.iterdir())
  known = [n.removesuffix(".items.jsonl") for n in files if n.endswith(".items.jsonl")]
  found = [name for name in known if f"{name}.json" in files]
  if not found:
    raise ValueError(
      f"{path} holds no results (NAME.json beside NAME.items.jsonl, which evaluate "
      f"writes at its end); it holds {files[:_LISTED]}"
    )
  return found


def benchmark(path: epath.PathLike, name: str) -> Results:
  """One benchmark of a results folder.

  Raises:
    ValueError: it is not there, cannot be shown, or with all that is wrong in it.
  """
  path, known = epath.Path(path), names(path)
  if name not in known:
    raise ValueError(f"{path} has no results of {name!r}; it has those of {known}")
  summary = _summary(path, name)
  if _is_other(summary):
    raise ValueError(
      f"{path}: the summary of {name!r} has another form; its own page is {name}.md"
    )
  rows = [*jsonl.Rows(path / f"{name}.items.jsonl")]
  if "overall" in summary:
    return _of_world(path, summary, [_item(row, _world_item(row)) for row in rows])
  summary = _ABSENT | {k: v for k, v in summary.items() if v is not None}
  at = str(path / f"{name}.json")
  items = [_item(row, row.value) for row in rows]
  _refuse(_summary_problems(summary, at) + _item_problems(items, rows))
  return Results(path, summary, tuple(items))


def _summary(path: epath.Path, name: str) -> Row:
  file = path / f"{name}.json"
  try:
    summary = json.loads(file.read_text())
  except ValueError as error:
    raise ValueError(f"{file}: not JSON ({error})") from error
  if not isinstance(summary, dict):
    raise ValueError(f"{file}: a {type(summary).__name__} where an object is wanted")
  return summary


def _is_other(summary: Row) -> bool:
  """Whether a benchmark goes its own way, and not the way of world either."""
  return not {"metrics", "n", "overall"} & set(summary)


def _is_talk(summary: Row) -> bool:
  """Whether dimensions are scored turn by turn, as evals/interaction.py does."""
  return "turns" in summary and "dimensions" in summary


def _talk_problems(summary: Row, at: str) -> list[str]:
  lacking = [key for key in ("checkpoint", "simulated") if key not in summary]
  out = [f"{at}: lacks {lacking}; its keys are {sorted(summary)}"] if lacking else []
  for name, one in summary["dimensions"].items():
    whole = one.get("all") or {}
    out += _count_problems(whole, f"{at}: dimensions.{name}.all")
    out += _span_problems(whole, f"{at}: dimensions.{name}.all")
    for k, turn in enumerate(one.get("turns") or ()):
      out += _span_problems(turn, f"{at}: dimensions.{name}.turns[{k}]")
  return out


def _item(row: jsonl.Row, value: Row) -> Row:
  lacking = [key for key in _ITEM_NEEDED if key not in value]
  if lacking:
    raise ValueError(f"{row.at}: lacks {lacking}; its keys are {sorted(value)}")
  return (
    _ITEM_ABSENT
    | {key: v for key, v in value.items() if v is not None}
    | {"score": value["score"]}
  )


def _refuse(problems: Sequence[str]) -> None:
  if problems:
    more = f"\n… and {len(problems) - _LISTED} more" * (len(problems) > _LISTED)
    raise ValueError("\n".join(problems[:_LISTED]) + more)


def _summary_problems(summary: Row, at: str) -> list[str]:
  lacking = [key for key in _NEEDED if key not in summary]
  if lacking:
    return [f"{at}: lacks {lacking}; its keys are {sorted(summary)}"]
  out = _entry_problems(summary, at)
  for place, entry in _grouped(summary["groups"]):
    out += _entry_problems(entry, f"{at}: groups.{place}")
  for name, entry in summary["conditions"].items():
    out += _metric_problems(entry.get("metrics"), f"{at}: conditions.{name}")
    drops = {"drop": entry.get("drop")} | dict(_grouped(entry.get("group_drops") or {}))
    if "drop" not in entry:
      out.append(f"{at}: conditions.{name} lacks 'drop'; its keys are {sorted(entry)}")
    for place, drop in drops.items():
      if drop is not None:  # no item was asked both ways
        out += _span_problems(drop, f"{at}: conditions.{name}: {place}")
  for k, entry in enumerate(summary["budgets"] or ()):
    out += _metric_problems(entry.get("metrics"), f"{at}: budgets[{k}]")
  drawn = summary["samples"] or {}
  shares = {f"pass.{k}": one for k, one in (drawn.get("pass") or {}).items()}
  shares |= {"majority": drawn["majority"]} if drawn.get("majority") else {}
  for place, entry in shares.items():
    out += _span_problems(entry, f"{at}: samples.{place}")
  return out


def _grouped(groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
  return [
    (f"{kind}.{name}", one) for kind in groups for name, one in groups[kind].items()
  ]


def _entry_problems(entry: Row, at: str) -> list[str]:
  return _count_problems(entry, at) + _metric_problems(entry.get("metrics"), at)


def _count_problems(entry: Row, at: str) -> list[str]:
  lacking = [key for key in COUNTS if not isinstance(entry.get(key), int)]
  return [f"{at}: {lacking} are no counts"] if lacking else []


def _metric_problems(metrics: Any, at: str) -> list[str]:
  if not isinstance(metrics, dict) or not metrics:
    return [f"{at}: metrics is {metrics!r:.60} where {{name: mean, …}} is wanted"]
  spans = (
    _span_problems(one, f"{at}: metrics.{name}") for name, one in metrics.items()
  )
  return [problem for found in spans for problem in found]


def _span_problems(entry: Any, at: str) -> list[str]:
  """Of a mean and its interval."""
  if not isinstance(entry, dict):
    return [f"{at}: {entry!r:.60} where mean, low and high are wanted"]
  values = {key: entry.get(key) for key in ("mean", "low", "high")}
  wrong = {key: v for key, v in values.items() if not fields.is_number(v)}
  return [f"{at}: {wrong} are no finite numbers"] if wrong else []


def _item_problems(items: Sequence[Row], rows: Sequence[jsonl.Row]) -> list[str]:
  twice = {k for k, count in Counter(map(key, items)).items() if count > 1}
  out = []
  for item, row in zip(items, rows, strict=True):
    score = item["score"]
    if key(item) in twice:
      out.append(f"{row.at}: {key(item)} is there twice")
    if score is not None and not (fields.is_number(score) and 0 <= score <= 1):
      out.append(f"{row.at}: score {score!r} is neither 0 to 1 nor null")
  return out


def key(item: Row) -> tuple[str, str, int, int | None]:
  """What no two items of a benchmark share."""
  return tuple(item[name] for name in ("id", "condition", "sample", "budget"))


def _world_item(row: jsonl.Row) -> Row:
  """An item of evals/world.py in the one form."""
  value, worth = row.value, {True: 1.0, False: 0.0, None: None}
  lacking = [key for key in ("correct", "answer", "task", "scores") if key not in value]
  if lacking:
    raise ValueError(f"{row.at}: lacks {lacking}; its keys are {sorted(value)}")
  return value | {
    "score": worth[value["correct"]],
    "gold": value["answer"],
    "groups": {"task": value["task"]},
    "detail": {"gold scores, simulated": value["scores"]},
    "replaced": value.get("condition") != HEARD,
  }


def _of_world(path: epath.Path, summary: Row, items: list[Row]) -> Results:
  """The summary of evals/world.py in the one form; drops come from the items."""
  tasks, overall = summary["tasks"], summary["overall"]
  out = Results(path, _ABSENT | _counted(overall), tuple(items))
  kept = {k: summary[k] for k in ("benchmark", "checkpoint", "settings", "simulated")}
  groups = {"task": {name: _counted(task) for name, task in tasks.items()}}
  out.summary.update(kept | {"groups": groups, "chance": overall["chance"]})
  if overall["silence"] is not None:
    quiet = {"task": {name: _counted(task["silence"]) for name, task in tasks.items()}}
    silence = _counted(overall["silence"]) | {"groups": quiet, "drop": _drop(items)}
    by_task = {
      name: _drop([item for item in items if item["task"] == name]) for name in tasks
    }
    out.summary["conditions"] = {
      "silence": silence | {"group_drops": {"task": by_task}}
    }
  return out


def _counted(entry: Row) -> Row:
  mean = {"mean": entry["accuracy"], "low": entry["low"], "high": entry["high"]}
  mean |= {"answered": entry["accuracy_answered"], "n": entry["n"]}
  return {name: entry[name] for name in COUNTS} | {"metrics": {"accuracy": mean}}


def _drop(items: Sequence[Row]) -> Row | None:
  """Accuracy with sound minus that in silence, over the same dialogues."""
  heard, silent = (
    {item["id"]: item["score"] or 0.0 for item in items if item["condition"] == one}
    for one in (HEARD, "silence")
  )
  return pairs.compared(heard, silent)["difference"]
