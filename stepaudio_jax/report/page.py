"""report.html: what report.json says, with plots; no scripts, nothing to fetch."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepaudio_jax.pages import charts, templates
from stepaudio_jax.pages.charts import Axis, Point
from stepaudio_jax.report import markdown

HERE = pathlib.Path(__file__).parent
SCORES = (1, 2, 3, 4, 5)
COLOURS = 7  # of base.css; more checkpoints begin again

Row = dict[str, Any]


def html(found: Row) -> str:
  """The page.

  Args:
    found: what command.contents returns.
  """
  names = [one["name"] for one in found["checkpoints"]]
  benchmarks = found["benchmarks"]
  return templates.render(
    HERE,
    "page.html",
    **found,
    colours={name: k % COLOURS for k, name in enumerate(names)},
    average=markdown.average,
    lacking=markdown.lacking,
    official=markdown.official,
    notes=markdown.notes(found["standings"]),
    drops=drops(benchmarks),
    thinking=thinking(benchmarks),
    samples=samples(benchmarks),
    turns=turns(found["talks"]),
    simulated_talks=any(
      one["simulated"] for talk in found["talks"].values() for one in talk.values()
    ),
    scored=markdown.scored,
    groups={name: groups(entry) for name, entry in benchmarks.items()},
    opponents=opponents(found["pairs"]),
    marks=markdown.marks,
    apart=markdown.apart(found["pairs"]),
    asked=markdown.asked,
    failures=markdown.failures(benchmarks),
    single_samples={
      (benchmark, name): markdown.samples(one)
      for benchmark, name, one in markdown.reached(benchmarks)
    },
  )


def groups(benchmark: Row) -> dict[str, dict[str, Row]]:
  """{"task: sound": {checkpoint: its entry}}."""
  out: dict[str, dict[str, Row]] = {}
  for checkpoint, one in benchmark["checkpoints"].items():
    for kind, found in one["groups"].items():
      for name, entry in found.items():
        out.setdefault(f"{kind}: {name}", {})[checkpoint] = entry
  return out


def opponents(pairs: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
  """{(first, second): its rows}."""
  out: dict[tuple[str, str], list[Row]] = {}
  for row in pairs:
    out.setdefault((row["first"], row["second"]), []).append(row)
  return out


def drops(benchmarks: Mapping[str, Row]) -> Row | None:
  """Rows of dots: for each benchmark and condition all items, then the groups.

  Returns:
    {"axis", "rows": [{"benchmark", "condition", "all": line, "groups": [line]}]} with a
    line {"name", "drops": {checkpoint: drop}}; None where no condition was asked.
  """
  rows: dict[tuple[str, str], dict[str, Row]] = {}
  for benchmark, checkpoint, one in markdown.reached(benchmarks):
    for condition, entry in one["conditions"].items():
      lines = rows.setdefault((benchmark, condition), {})
      metric = benchmarks[benchmark]["metric"]
      for group, _, drop in markdown.drops(entry, metric):
        if drop:
          lines.setdefault(group, {})[checkpoint] = drop
  shown = [
    {
      "benchmark": benchmark,
      "condition": condition,
      "all": lines.pop("all"),
      "groups": lines,
    }
    for (benchmark, condition), lines in rows.items()
    if "all" in lines
  ]
  if not shown:
    return None
  ends = [0.0]
  for row in shown:
    for line in (row["all"], *row["groups"].values()):
      ends += [drop[end] for drop in line.values() for end in ("low", "high")]
  return {"axis": charts.linear(ends), "rows": shown}


def thinking(benchmarks: Mapping[str, Row]) -> list[Row]:
  """Panels: accuracy against the mean length of thoughts, a line a checkpoint."""
  out = []
  for benchmark, entry in benchmarks.items():
    series = {
      name: _points(markdown.thinking(one, entry["metric"]))
      for name, one in entry["checkpoints"].items()
    }
    out += _panel(benchmark, series, charts.lengths)
  return out


def _points(rows: Sequence[tuple[Any, float | None, Row]]) -> list[Point]:
  return [
    Point(length, mean["mean"], mean["low"], mean["high"], apart=budget == "free")
    for budget, length, mean in rows
    if length is not None
  ]


def samples(benchmarks: Mapping[str, Row]) -> list[Row]:
  """Panels: pass@k against k, a line a checkpoint."""
  out = []
  for benchmark, entry in benchmarks.items():
    series = {
      name: [
        Point(int(k), mean["mean"], mean["low"], mean["high"])
        for k, mean in ((one["samples"] or {}).get("pass") or {}).items()
      ]
      for name, one in entry["checkpoints"].items()
    }
    out += _panel(benchmark, series, charts.counts)
  return out


def turns(talks: Mapping[str, Mapping[str, Row]]) -> list[Row]:
  """Panels: a dimension's mean from 1 to 5 against the turn, a line a checkpoint."""
  lines: dict[str, dict[str, list[Point]]] = {}
  for found in talks.values():
    for checkpoint, summary in found.items():
      for name, one in summary["dimensions"].items():
        lines.setdefault(name, {})[checkpoint] = [
          Point(turn["turn"], turn["mean"], turn["low"], turn["high"])
          for turn in one["turns"]
        ]
  return [
    charts.panel(name, series, charts.linear, SCORES, lambda mean: f"{mean:.2f}")
    for name, series in lines.items()
  ]


def _panel(
  title: str,
  series: Mapping[str, Sequence[Point]],
  along: Callable[[Sequence[float]], Axis],
) -> list[Row]:
  kept = {name: points for name, points in series.items() if points}
  return [charts.panel(title, kept, along)] if kept else []
