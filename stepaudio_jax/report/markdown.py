"""report.md: what report.json says, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.evals.parts import standings, tables
from stepaudio_jax.pages import words

Row = dict[str, Any]
UNLIKE = "≠"


def markdown(found: Row) -> str:
  """The whole page.

  Args:
    found: what command.contents returns.
  """
  parts = ["# Checkpoints beside the published table", *_standings(found)]
  parts += ["## Counts and intervals", *_counts(found["benchmarks"])]
  parts += _pairs(found["pairs"])
  parts += _grounding(found["benchmarks"])
  parts += _budgets(found["benchmarks"])
  parts += _samples(found["benchmarks"])
  parts += _talks(found["talks"])
  parts += ["## Where it comes from", *_sources(found["checkpoints"])]
  return "\n\n".join(parts) + "\n"


def _standings(found: Row) -> list[str]:
  columns = found["published"]["columns"]
  head = ["checkpoint", standings.AVERAGE, *columns]
  rows = []
  for model, row in found["published"]["rows"].items():
    numbers = [words.number(row[name], 2) for name in head[1:]]
    rows.append([f"{tables.cell(model)} (published)", *numbers])
  for row in found["standings"]:
    rows.append([f"**{tables.cell(row['name'])}**", average(row), *_means(row, "mean")])
    if any(cell and cell["official"] for cell in row["cells"].values()):
      rows.append(
        [f"{tables.cell(row['name'])}, official rule", "–", *_means(row, "official")]
      )
  lines = [
    f"Percent. Published rows: {found['published']['source']}. Ours count every item: "
    "one that failed or gave no readable answer is wrong. The official rule is that of "
    f"the benchmark's own scorer. {UNLIKE}: made in another way than the published "
    f"rows. {standings.AVERAGE} only where all {len(columns)} columns are there.",
    tables.table(head, rows),
  ]
  below = [
    f"{row['name']}: no {standings.AVERAGE}, {lacking(row)}"
    for row in found["standings"]
    if row["lacking"]
  ]
  return [*lines, *_listed([*below, *notes(found["standings"])])]


def lacking(row: Row) -> str:
  """Which columns a checkpoint lacks."""
  if not any(row["cells"].values()):
    return "nothing of the table was asked"
  return f"{', '.join(row['lacking'])} lacking"


def average(row: Row) -> str:
  """A row's average in percent, or a dash."""
  mark = f" {UNLIKE}" if row["unlike"] and row["average"] is not None else ""
  return words.percent(row["average"], 2) + mark


def _means(row: Row, key: str) -> list[str]:
  return [_mean(cell, key) for cell in row["cells"].values()]


def _mean(cell: Row | None, key: str) -> str:
  if cell is None or cell[key] is None:
    return words.DASH
  value = cell["mean"] if key == "mean" else cell["official"]["mean"]
  return words.percent(value, 2) + (f" {UNLIKE}" if cell["unlike"] else "")


def notes(rows: Sequence[Row]) -> list[str]:
  """What the table cannot show, and why cells are marked, one line a reason."""
  lines = [
    f"{row['name']}: the table has no column {column!r}, that of {benchmark}"
    for row in rows
    for benchmark, column in row["elsewhere"].items()
  ]
  marked: dict[str, dict[str, list[str]]] = {}
  for row in rows:
    for column, cell in row["cells"].items():
      for reason in cell["unlike"] if cell else ():
        marked.setdefault(reason, {}).setdefault(column, []).append(row["name"])
  for reason, columns in marked.items():
    alike: dict[str, list[str]] = {}
    for column, names in columns.items():
      alike.setdefault(", ".join(names), []).append(column)
    lines += [
      f"{UNLIKE} {reason}: {', '.join(found)} ({names})"
      for names, found in alike.items()
    ]
  return lines


def _counts(benchmarks: Mapping[str, Row]) -> list[str]:
  head = "benchmark|checkpoint|metric|n|failed|unparsed|of all, 95 %|of answered"
  rows = []
  for benchmark, checkpoint, one in reached(benchmarks):
    ruled = official(one)  # of the first metric
    for metric, mean in one["metrics"].items():
      counts = [asked(one), *(str(one[key]) for key in ("n_failed", "n_unparsed"))]
      answered = words.percent(mean.get("answered"))
      cells = [benchmark, checkpoint, metric, *counts, words.interval(mean), answered]
      rows.append([*cells, ruled, words.percent(benchmarks[benchmark]["chance"])])
      ruled = words.DASH
  note = [
    f"- {name}: simulated; nobody was asked"
    for name, one in benchmarks.items()
    if one["simulated"]
  ]
  table = tables.table([*head.split("|"), "official rule", "chance"], _cells(rows))
  return [table, *(["\n".join(note)] if note else [])]


def asked(one: Row) -> str:
  """Items; of several samples times their number, for replies fail or are unparsed."""
  samples = one["settings"].get("samples") or 1
  return str(one["n"]) + (f" × {samples}" if samples > 1 else "")


def reached(benchmarks: Mapping[str, Row]) -> list[tuple[str, str, Row]]:
  """(benchmark, checkpoint, what it reached) of all."""
  return [
    (benchmark, checkpoint, one)
    for benchmark, entry in benchmarks.items()
    for checkpoint, one in entry["checkpoints"].items()
  ]


def official(one: Row) -> str:
  """The published scorer's number, with what it left out of its denominator."""
  if one["official"] is None:
    return words.DASH
  left_out = one["official"].get("left_out")
  text = words.percent(one["official"]["mean"])
  return f"{text} ({left_out} left out)" if left_out else text


def _pairs(pairs: Sequence[Row]) -> list[str]:
  if not pairs:
    return []
  head = "benchmark|second − first|items|unmatched|better|worse|p|difference, points"
  rows = [
    [
      f"{row['benchmark']}{marks(row)}",
      f"{row['second']} − {row['first']}",
      str(row["n"]),
      str(sum(row["unmatched"])),
      str(row["better"]),
      str(row["worse"]),
      words.chance(row["p"]),
      words.gap(row["difference"]),
    ]
    for row in pairs
  ]
  note = (
    "The same items, matched by id. p: McNemar's exact test (the sign test where "
    "scores are not 0 and 1), two-sided, not corrected for the number of comparisons. "
    "Difference: paired bootstrap over items, 95 %; where all items differ alike, "
    "Wilson's bound of those that may not. A failed or unreadable item is 0; "
    "of several samples the mean is taken."
  )
  if not all(row["of_the_table"] for row in pairs):
    note += " †: of the items' scores, whose mean is not the table's metric."
  table = tables.table(head.split("|"), _cells(rows))
  return ["## Item by item", note, table, *_listed(apart(pairs))]


def marks(pair: Row) -> str:
  """Behind a pair's benchmark: † scores are not the metric, ≠ not asked alike."""
  return " †" * (not pair["of_the_table"]) + f" {UNLIKE}" * bool(pair["unlike"])


def apart(pairs: Sequence[Row]) -> list[str]:
  """Why pairs of results differ by more than their checkpoints."""
  return [
    f"{UNLIKE} {row['benchmark']}, {row['second']} − {row['first']}: "
    + "; ".join(row["unlike"])
    for row in pairs
    if row["unlike"]
  ]


def _grounding(benchmarks: Mapping[str, Row]) -> list[str]:
  rows = [
    [benchmark, checkpoint, condition, group, words.interval(mean), words.gap(drop)]
    for benchmark, checkpoint, one in reached(benchmarks)
    for condition, entry in one["conditions"].items()
    for group, mean, drop in drops(entry, benchmarks[benchmark]["metric"])
  ]
  if not rows:
    return []
  head = ["benchmark", "checkpoint", "audio", "group", "of all, 95 %", "drop, points"]
  note = (
    "What is lost when the same items are asked with changed audio. A drop is over the "
    "items that could be asked both ways."
  )
  table = tables.table(head, _cells(rows))
  return ["## Audio grounding", note, table, *_listed(failures(benchmarks)[0])]


def failures(benchmarks: Mapping[str, Row]) -> tuple[list[str], list[str]]:
  """Replies that failed or say nothing, condition by condition and budget by budget.

  A model that babbles in silence loses points without having heard anything before.
  """
  changed, cut = [], []
  for benchmark, checkpoint, one in reached(benchmarks):
    for condition, entry in one["conditions"].items():
      changed += _lost([benchmark, checkpoint, condition], entry)
    for entry in one["budgets"] or ():
      cut += _lost([benchmark, checkpoint, f"budget {entry['budget']}"], entry)
  return changed, cut


def _lost(names: Sequence[str], entry: Row) -> list[str]:
  counts = {what: entry.get(f"n_{what}") for what in ("failed", "unparsed")}
  told = [f"{count} {what}" for what, count in counts.items() if count]
  return [f"{', '.join(names)}: {' and '.join(told)}, counted as wrong"] * bool(told)


def _listed(lines: Sequence[str]) -> list[str]:
  return ["\n".join(f"- {tables.cell(line)}" for line in lines)] if lines else []


def drops(entry: Row, metric: str) -> list[tuple[str, Row | None, Row | None]]:
  """(group or "all", its mean, its drop) of a condition, "all" first."""
  out = [("all", entry["metrics"].get(metric), entry["drop"])]
  for kind, groups in (entry.get("group_drops") or {}).items():
    for name, drop in groups.items():
      group = ((entry.get("groups") or {}).get(kind) or {}).get(name)
      out.append((f"{kind}: {name}", group and group["metrics"].get(metric), drop))
  return out


def _budgets(benchmarks: Mapping[str, Row]) -> list[str]:
  rows = [
    [benchmark, checkpoint, str(budget), words.number(length), words.interval(mean)]
    for benchmark, checkpoint, one in reached(benchmarks)
    for budget, length, mean in thinking(one, benchmarks[benchmark]["metric"])
  ]
  if not rows:
    return []
  head = ["benchmark", "checkpoint", "budget", "thought, tokens", "of all, 95 %"]
  table = tables.table(head, _cells(rows))
  below = _listed(failures(benchmarks)[1])
  return ["## Accuracy against thinking length", table, *below]


def thinking(one: Row, metric: str) -> list[tuple[Any, float | None, Row]]:
  """(budget, mean thought in tokens, mean) by budget, then without one ("free")."""
  budgets = [
    (row["budget"], (row["think_tokens"] or {}).get("mean"), row["metrics"][metric])
    for row in one["budgets"] or ()
  ]
  return [*budgets, ("free", one["think_tokens"], one["mean"])] if budgets else []


def _samples(benchmarks: Mapping[str, Row]) -> list[str]:
  rows = [
    [benchmark, checkpoint, what, words.interval(mean)]
    for benchmark, checkpoint, one in reached(benchmarks)
    for what, mean in samples(one)
  ]
  if not rows:
    return []
  head = ["benchmark", "checkpoint", "of the samples", "of all, 95 %"]
  return ["## Several samples", tables.table(head, _cells(rows))]


def samples(one: Row) -> list[tuple[str, Row]]:
  """("pass@4", mean), …, ("majority of 4", mean)."""
  if one["samples"] is None:
    return []
  out = [(f"pass@{k}", mean) for k, mean in (one["samples"].get("pass") or {}).items()]
  majority = one["samples"].get("majority")
  return out + ([(f"majority of {one['samples']['k']}", majority)] if majority else [])


def _talks(talks: Mapping[str, Mapping[str, Row]]) -> list[str]:
  rows = [
    [
      benchmark + " (simulated)" * summary["simulated"],
      checkpoint,
      words.plain(name),
      *(str(one["all"][key]) for key in ("n", "n_failed", "n_unparsed")),
      scored(one["all"]),
      words.number((one.get("slope") or {}).get("per_turn"), 2),
      scored((one.get("silence") or {}).get("all")),
    ]
    for benchmark, found in talks.items()
    for checkpoint, summary in found.items()
    for name, one in summary["dimensions"].items()
  ]
  if not rows:
    return []
  head = ["benchmark", "checkpoint", "dimension", "turns", "failed", "unparsed"]
  head += ["mean, 1 to 5", "slope a turn", "in silence"]
  return ["## Over long dialogues", tables.table(head, _cells(rows))]


def scored(part: Row | None) -> str:
  """A mean from 1 to 5 and its interval."""
  if part is None:
    return words.DASH
  mean, low, high = (words.number(part[key], 2) for key in ("mean", "low", "high"))
  return f"{mean} [{low}, {high}]"


def _sources(checkpoints: Sequence[Row]) -> list[str]:
  lines = []
  for one in checkpoints:
    made = ", ".join(f"`{name}`" for name in one["checkpoints"])
    lines.append(
      f"- {tables.cell(one['name'])}: `{one['folder']}`, made with {made or 'nothing'}"
    )
    if len(one["checkpoints"]) > 1:
      lines.append("  - **several checkpoints in one folder**")
    lines += [f"  - {name} is not shown: {why}" for name, why in one["unshown"].items()]
  return ["\n".join(lines)]


def _cells(rows: Sequence[Sequence[str]]) -> list[list[str]]:
  return [[tables.cell(text) for text in row] for row in rows]
