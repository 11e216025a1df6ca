"""Each rater beside the others: agreement, habits, and who looks careless.

  python -m stepaudio_jax.preferences raters all.jsonl
  python -m stepaudio_jax.preferences raters all.jsonl --drop-flagged --out rest.jsonl

A rater agrees where they take the side that the mean of all others takes, in the choice
and in the dimensions; by chance that is 50 %. Flagged is whose interval (95 %, a
bootstrap over dialogues) holds chance, or lies below it, as a scale read backwards
does. Nobody is dropped unless --drop-flagged says so.
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import agreement
from stepaudio_jax.data.panels import Judged, Panel
from stepaudio_jax.evals.parts import intervals
from stepaudio_jax.pages import words
from stepaudio_jax.preferences import files, lines, tables

FEWEST = 20  # dialogues shared with others, below which nobody is flagged
STRONGEST = 3
CHANCE = 0.5
FLAGS = ("chance", "against")  # "few" and "alone" say that nothing can be said

Row = dict[str, Any]


def flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("path", metavar="FILE", help="of preferences, JSON Lines")
  add("--json", metavar="OUT", dest="report", help="the table, as JSON")
  add("--drop-flagged", action="store_true", help="write the rows of the others")
  add("--out", metavar="FILE", help="for these rows; a new file")


def run(
  path: epath.PathLike,
  *,
  report: epath.PathLike | None = None,
  drop_flagged: bool = False,
  out: epath.PathLike | None = None,
) -> int:
  """Prints a row a rater; with `drop_flagged` writes the rows of those not flagged.

  Raises:
    ValueError: wrong rows, one of `drop_flagged` and `out` alone, something at `out`,
      or nobody would be left.
  """
  if drop_flagged != (out is not None):
    raise ValueError("--drop-flagged and --out go together: the rest is written to it")
  if out is not None:
    files.refuse(out)
  entries = files.read([path])
  found = measured(Panel([entry.sample for entry in entries]))
  print(told(found))
  if report:
    files.write_json(report, found)
  if out is not None:
    gone = [name for name, one in found.items() if one["flag"] in FLAGS]
    rest = [entry for entry in entries if entry.sample.rater not in gone]
    if not rest:
      raise ValueError(f"{path}: every rater is flagged, {gone}; nothing would be left")
    files.write((out, rest))
    went = ", ".join(gone) or "nobody"
    print(f"wrote {out}: {len(rest)} of {len(entries)} rows; dropped: {went}")
  return 0


def measured(panel: Panel) -> dict[str, Row]:
  """What is known of each rater.

  `n`: comparisons. `shared`: dialogues in which both the rater and others take sides.
  `agreement`: in all labels, `choice`: in the overall one. `alpha_without`: ordinal α
  of the others' choices. `first`, `longer`: the share of choices that fall on the reply
  shown first, on the longer one. `ties`: of choices. `extremes`: labels of ±3, of all.
  `seconds`: between one row and the next, the median. `flag`: "chance", "against",
  "few", "alone" or None. Shares with intervals are {"mean", "low", "high", "n"}.
  """
  label_CNJ = np.stack([panel.labels(name) for name in panel.dimensions])
  right_CNJ = np.stack([agreement.with_others(label_NJ) for label_NJ in label_CNJ])
  out = {}
  for number, name in enumerate(panel.raters):
    own = [one for one in panel.judged if one.rater == number]
    others = np.delete(label_CNJ[0], number, axis=1)
    agreed = _share(right_CNJ[:, :, number], panel.dialogues)
    told_N = ~np.isnan(right_CNJ[:, :, number]).all(0)
    shared = len({d for d, told in zip(panel.dialogues, told_N, strict=True) if told})
    out[name] = {
      "n": len(own),
      "shared": shared,
      "agreement": agreed,
      "choice": _share(right_CNJ[:1, :, number], panel.dialogues),
      "alpha_without": agreement.alpha(others),
      **_habits(own, panel),
      "extremes": _extremes(label_CNJ[:, :, number]),
      "seconds": _seconds([lines.seconds(one.row.ts) for one in own]),
      "flag": _flag(agreed, shared),
    }
  return out


def _share(value_CN: np.ndarray, dialogues: Sequence[str]) -> Row | None:
  """The mean of the 0s and 1s that are there, with its interval over dialogues."""
  given_CN = ~np.isnan(value_CN)
  if not given_CN.any():
    return None
  total_N, count_N = np.nansum(value_CN, axis=0), given_CN.sum(0)
  used = count_N > 0
  clusters = np.asarray(dialogues)[used]
  low, high = intervals.share(total_N[used], count_N[used], clusters)
  total, count = float(total_N.sum()), int(count_N.sum())
  return {"mean": total / count, "low": low, "high": high, "n": count}


def _habits(own: Sequence[Judged], panel: Panel) -> Row:
  """Of one rater's choices: first ones, longer ones, ties."""
  dialogues = [panel.dialogues[one.comparison] for one in own]
  first, longer = [], []
  for one in own:
    choice = one.row.overall
    sizes = [len(reply.text) for reply in one.row.candidates]
    first.append(float(choice < 0) if choice else np.nan)
    decided = choice and sizes[0] != sizes[1]
    longer.append(float((choice < 0) == (sizes[0] > sizes[1])) if decided else np.nan)
  return {
    "first": _share(np.asarray([first]), dialogues),
    "longer": _share(np.asarray([longer]), dialogues),
    "ties": sum(one.row.overall == 0 for one in own) / len(own),
  }


def _extremes(label_CN: np.ndarray) -> float:
  given = label_CN[~np.isnan(label_CN)]
  return float((np.abs(given) == STRONGEST).mean())


def _seconds(times: Sequence[float]) -> float | None:
  """The median wait between rows; None where all say the same time."""
  times = sorted(times)
  waits = [b - a for a, b in itertools.pairwise(times)]
  return statistics.median(waits) if any(waits) else None


def _flag(agreed: Row | None, shared: int) -> str | None:
  if agreed is None:
    return "alone"
  if shared < FEWEST:
    return "few"
  if agreed["high"] < CHANCE:
    return "against"
  return "chance" if agreed["low"] <= CHANCE else None


def told(found: dict[str, Row]) -> str:
  """The table, and what its flags mean."""
  head = "rater|n|shared|agreement, %|in the choice, %|α without|first, %|longer, %"
  head += "|ties, %|±3, %|seconds|flag"
  rows = [
    [
      name,
      one["n"],
      one["shared"],
      words.interval(one["agreement"]),
      words.interval(one["choice"]),
      words.number(one["alpha_without"], 2),
      words.interval(one["first"]),
      words.interval(one["longer"]),
      words.percent(one["ties"]),
      words.percent(one["extremes"]),
      words.number(one["seconds"]),
      one["flag"] or "",
    ]
    for name, one in found.items()
  ]
  meant = {
    "chance": "agrees with the others no better than chance, as far as can be seen",
    "against": "takes the other side more often than not; a scale read backwards?",
    "few": f"shares fewer than {FEWEST} dialogues with others: too few to tell",
    "alone": "shares no comparison with others: nothing can be told",
  }
  seen = {one["flag"] for one in found.values()}
  notes = [f"- {flag}: {what}" for flag, what in meant.items() if flag in seen]
  table = tables.table(head.split("|"), rows)
  return "\n\n".join([table, *(["\n".join(notes)] if notes else [])])
