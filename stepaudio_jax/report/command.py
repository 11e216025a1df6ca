"""From results folders to report.json, report.md and report.html."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import files
from stepaudio_jax.evals.parts import pairs, results, standings
from stepaudio_jax.evals.parts.results import Folder, Results
from stepaudio_jax.report import markdown, page

Row = dict[str, Any]
_KEPT = ("settings", *results.COUNTS, "metrics", "official", "groups", "conditions")
_KEPT += ("samples", "budgets")


def run(
  results: Sequence[epath.PathLike],
  out: epath.PathLike,
  *,
  names: Sequence[str] | None = None,
  published: epath.PathLike = standings.PUBLISHED,
) -> epath.Path:
  """Writes the report of those folders to `out` and returns the page's path.

  Args:
    results: folders that `evaluate` wrote, one a checkpoint.
    names: of the checkpoints; None: the folders', as long as they must be to differ.
    published: a file of rows to stand beside, see `standings.published`.

  Raises:
    ValueError: results that are not there or not right, or names that do not fit.
  """
  found = contents(results, names, published)
  out = epath.Path(out)
  for ending, text in {
    "json": json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
    "md": markdown.markdown(found),
    "html": page.html(found),
  }.items():
    with files.aside(out / f"report.{ending}") as partial:
      partial.write_text(text, encoding="utf-8")
  return out / "report.html"


def contents(
  paths: Sequence[epath.PathLike],
  names: Sequence[str] | None,
  published: epath.PathLike,
) -> Row:
  """Everything the report says: report.json."""
  names = _names(paths, names)
  table = standings.published(published)
  folders = {
    name: results.folder(path) for name, path in zip(names, paths, strict=True)
  }
  return {
    "published": table,
    "checkpoints": [_checkpoint(name, folder) for name, folder in folders.items()],
    "standings": [
      standings.standing(name, folder, table["columns"])
      for name, folder in folders.items()
    ],
    "benchmarks": {
      one: _benchmark(one, folders) for one in _benchmarks(folders, table["columns"])
    },
    "pairs": _pairs(folders),
    "talks": _talks(folders),
  }


def _names(
  paths: Sequence[epath.PathLike], names: Sequence[str] | None
) -> Sequence[str]:
  """Those given, or the shortest ends of the paths that differ."""
  if names is None:
    parts = [files.absolute(path).parts for path in paths]
    longest = max(map(len, parts))
    ends = (["/".join(p[-k:]) for p in parts] for k in range(1, longest + 1))
    names = next((end for end in ends if len({*end}) == len(end)), [*map(str, paths)])
  if len(names) != len(paths):
    raise ValueError(f"{len(names)} names {[*names]} for {len(paths)} results folders")
  if len({*names}) < len(names):
    raise ValueError(f"checkpoints need names that differ, not {[*names]}")
  return names


def _checkpoint(name: str, folder: Folder) -> Row:
  summaries = [one.summary for one in folder.results.values()]
  return {
    "name": name,
    "folder": str(folder.path),
    "checkpoints": _made_with([*summaries, *folder.talks.values()]),
    "unshown": dict(folder.unshown),
  }


def _made_with(summaries: Sequence[Row]) -> list[str]:
  """The checkpoints of some results: path, step, and seal where one path had several.

  Benchmarks that go their own way know no seal.
  """
  seals: dict[str, set[str]] = {}
  for one in summaries:
    settings = one.get("settings") or {}
    step = "" if settings.get("step") is None else f", step {settings['step']}"
    seals.setdefault(f"{one['checkpoint']}{step}", set()).add(settings.get("seal"))
  out = []
  for name, known in seals.items():
    known = sorted(known - {None})
    out += [f"{name}, seal {seal}" for seal in known] if len(known) > 1 else [name]
  return out


def _benchmarks(folders: Mapping[str, Folder], columns: Sequence[str]) -> list[str]:
  """Those of any folder: first the table's, in its order."""
  place: dict[str, tuple[int, str]] = {}
  for folder in folders.values():
    for name, one in folder.results.items():
      column = one.summary["column"]
      first = columns.index(column) if column in columns else len(columns)
      place.setdefault(name, (first, name))
  return sorted(place, key=place.__getitem__)


def _benchmark(benchmark: str, folders: Mapping[str, Folder]) -> Row:
  """What the checkpoints reached in one benchmark."""
  found = {
    name: folder.results[benchmark]
    for name, folder in folders.items()
    if benchmark in folder.results
  }
  first = next(iter(found.values()))
  metrics = {name: one.metric for name, one in found.items()}
  if len({*metrics.values()}) > 1:
    raise ValueError(f"{benchmark}: the folders' first metrics differ: {metrics}")
  return {
    "column": first.summary["column"],
    "metric": first.metric,
    "chance": first.summary["chance"],
    "simulated": any(one.summary["simulated"] for one in found.values()),
    "checkpoints": {name: _reached(one) for name, one in found.items()},
  }


def _reached(one: Results) -> Row:
  return {key: one.summary[key] for key in _KEPT} | {
    "mean": one.summary["metrics"][one.metric],
    "think_tokens": one.think_tokens(),
    "unlike": standings.unlike(one.summary),
  }


def _talks(folders: Mapping[str, Folder]) -> dict[str, dict[str, Row]]:
  """{benchmark of long dialogues: {checkpoint: its summary}}."""
  out: dict[str, dict[str, Row]] = {}
  for name, folder in folders.items():
    for benchmark, summary in folder.talks.items():
      out.setdefault(benchmark, {})[name] = summary
  return out


def _pairs(folders: Mapping[str, Folder]) -> list[Row]:
  """Every two checkpoints on every benchmark that both have: later − earlier."""
  out = []
  for (name, folder), (other, later) in itertools.combinations(folders.items(), 2):
    for benchmark in folder.results:
      if benchmark in later.results:
        first, second = folder.results[benchmark], later.results[benchmark]
        pair = {"benchmark": benchmark, "first": name, "second": other}
        out.append(pair | _pair(first, second))
  return out


def _pair(first: Results, second: Results) -> Row:
  compared = pairs.compared(second.scores(), first.scores())
  # The table's metric may be another function of the score than the score itself.
  means = [one.summary["metrics"][one.metric]["mean"] for one in (first, second)]
  own = [sum(s.values()) / len(s) for s in (first.scores(), second.scores()) if s]
  same = len(own) == 2 and all(
    abs(a - b) < 1e-6 for a, b in zip(means, own, strict=True)
  )
  unlike = standings.differing(first.summary, second.summary)
  return compared | {"of_the_table": same, "unlike": unlike}
