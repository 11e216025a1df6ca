"""A benchmark's summary as Markdown and as a picture."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepaudio_jax.evals.parts import tables

Row = dict[str, Any]


def page(result: Row) -> str:
  """The summary of parts/suite.py in Markdown."""
  name, samples = result["benchmark"], result["settings"].get("samples", 1)
  parts = [
    f"# {name}",
    f"Checkpoint `{result['checkpoint']}`.",
    "Over all items, unparsed and failed ones counted as 0, with 95 % intervals "
    "(Wilson of shares, else bootstrap over items; where all are equal, Wilson's bound "
    "of those that may not be); of answered: without those.",
    _metrics_table({"all": result}, samples),
  ]
  silent = (result["settings"].get("judge") or {}).get("unanswered")
  if silent:
    parts.append(
      f"**Questions that the judge left without a reply: {silent}.** They count as "
      "unparsed or not met; the same command asks them again."
    )
  if result["official"]:
    ruled = result["official"]
    mean = tables.percent(ruled["mean"])
    parts.append(
      f"The published rule: {mean} of {ruled['n']} items; it leaves out "
      f"{ruled['left_out']}."
    )
  if result["chance"] is not None:
    parts.append(f"Guesses among the choices: {tables.percent(result['chance'])}.")
  for kind, groups in result["groups"].items():
    parts += [f"## By {kind}", _metrics_table(groups, samples)]
  if result["conditions"]:
    parts += ["## What is heard", _controls_table(result)]
  if result["samples"]:
    parts += ["## Several replies to each item", _samples_table(result["samples"])]
  if result["budgets"]:
    parts += ["## Thoughts cut short", _budget_table(result)]
  return "\n\n".join([*parts, f"Settings: {tables.told(result['settings'])}."]) + "\n"


def _metrics_table(entries: dict[str, Row], samples: int) -> str:
  """Where there are several samples, replies and not items are unparsed or failed."""
  names = [*next(iter(entries.values()))["metrics"]]
  head = ["", "n", *(f"{name}|of answered" for name in names), "unparsed", "failed"]
  rows = [
    [tables.cell(label), f"{entry['n']}{f' × {samples}' if samples > 1 else ''}"]
    + [cell for name in names for cell in _cells(entry["metrics"][name])]
    + [str(entry["n_unparsed"]), str(entry["n_failed"])]
    for label, entry in entries.items()
  ]
  return tables.table("|".join(head).split("|"), rows)


def _cells(metric: Row) -> list[str]:
  return [_interval(metric), tables.percent(metric["answered"])]


def _interval(metric: Row) -> str:
  return tables.percent(metric["mean"], metric["low"], metric["high"])


def _controls_table(result: Row) -> str:
  """Each control over all and by group: what is left, and what is lost."""
  main = next(iter(result["metrics"]))
  rows = []
  for control, entry in result["conditions"].items():
    rows.append([control, "all", *_lost(entry, main), _points(entry["drop"])])
    for kind, drops in entry["group_drops"].items():
      found = entry["groups"][kind]
      rows += [
        [control, tables.cell(group), *_lost(found[group], main), _points(drop)]
        for group, drop in drops.items()
      ]
  head = ["instead", "items", "unparsed", "failed", main, "lost, points"]
  return tables.table(head, rows)


def _points(drop: Row | None) -> str:
  if drop is None:
    return "–"
  low, high = (100 * drop[key] for key in ("low", "high"))
  return f"{100 * drop['mean']:+.1f} [{low:+.1f}, {high:+.1f}]"


def _samples_table(samples: Row) -> str:
  rows = [[f"pass@{k}", _interval(one)] for k, one in samples["pass"].items()]
  if samples["majority"]:
    rows.append([f"majority of {samples['k']}", _interval(samples["majority"])])
  return tables.table(["", "share"], rows)


def _budget_table(result: Row) -> str:
  main = next(iter(result["metrics"]))
  rows = [
    [str(one["budget"]), _tokens(one["think_tokens"]), *_lost(one, main)]
    for one in result["budgets"]
  ]
  rows.append(["none", _tokens(result["thinking"]), *_lost(result, main)])
  head = ["thought tokens at most", "on average", "unparsed", "failed", main]
  return tables.table(head, rows)


def _lost(one: Row, main: str) -> list[str]:
  """Unparsed, failed and what is left.

  Longer budgets leave less room, and silence may be answered with babble: neither must
  look like a wrong answer.
  """
  counts = [str(one[key]) for key in ("n_unparsed", "n_failed")]
  return [*counts, _interval(one["metrics"][main])]


def _tokens(thinking: Row | None) -> str:
  return f"{thinking['mean']:.1f}" if thinking else "–"


def plot(result: Row) -> Figure:
  """The first metric of all and of each group, beside the controls."""
  main = next(iter(result["metrics"]))
  entries = {"all": (result, dict(result["conditions"]))}
  kind = next(iter(result["groups"]), None)
  for group, entry in result["groups"].get(kind, {}).items():
    controls = {n: c["groups"][kind][group] for n, c in result["conditions"].items()}
    entries[group] = (entry, controls)
  shown = ["audio", *result["conditions"]]
  figure = Figure(figsize=(2.2 + 0.9 * len(entries), 3.8), layout="constrained")
  axes, place = figure.subplots(), np.arange(len(entries))
  width = 0.8 / len(shown)
  for n, condition in enumerate(shown):
    values = [
      _bar((entry if n == 0 else controls[condition])["metrics"][main])
      for entry, controls in entries.values()
    ]
    colour = tables.OURS if n == 0 else ("#b9bfc6", "#d8a25e", "#8fb08c")[n - 1]
    at = place - 0.4 + width * (n + 0.5)
    tables.bars(axes, at, values, colour, condition, width=0.94 * width)
  if result["chance"] is not None:
    axes.axhline(100 * result["chance"], color="#b3402f", ls="dashed", label="chance")
  axes.set_xticks(place, [*entries], rotation=30 if len(entries) > 4 else 0)
  axes.set_ylim(0, 100)
  axes.set_ylabel(f"{main}, %")
  axes.set_title(result["benchmark"], loc="left", fontsize=10)
  axes.spines[["top", "right"]].set_visible(False)
  figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
  return figure


def _bar(metric: Row) -> Row:
  return {"accuracy": metric["mean"], "low": metric["low"], "high": metric["high"]}
