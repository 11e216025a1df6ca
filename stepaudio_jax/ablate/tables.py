"""What an ablation found, as sections of text and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_jax.ablate import figures
from stepaudio_jax.pages.words import DASH

Row = dict[str, Any]

_METHOD = (
  "Every training run of a seed has the same start, prompts, order and random streams "
  "as that seed's control; differences are this arm less the control, on prompts that "
  "no run learnt from. The interval to judge by is Student's t over seeds (95 %): it "
  "holds what chance does to training. That over prompts (bootstrap) says how sure a "
  "difference is for these very runs alone. “Smallest” is the smallest effect that so "
  "many seeds with that spread would have found at 80 % power and 5 %, two-sided.",
  "Learned rewards are those of the model that also trained the policies: an arm that "
  "is better by them may be worse by the gold listener, which saw the truth behind the "
  "synthetic speech (simulated; no person was asked).",
)
_OFFLINE = (
  "Offline: the very same replies under another reward, by the algorithm itself. "
  "Spearman and Kendall (τ-b) are means over groups of replies to one prompt; “best "
  "changes” is the share of groups whose best replies all lose that place; cosine and "
  "length are of the policy's gradient at the start of the run, beside that of the "
  "whole reward. Intervals (95 %) are over prompts."
)


def sections(found: Row) -> list[Row]:
  """[{"level", "title", "text", "tables": [{"head", "rows"}], "figure"}]."""
  text = [
    *(_METHOD if found["runs"] else ()),
    *([_OFFLINE] if "offline" in found else ()),
  ]
  out = [
    _section(1, "Ablation of reward dimensions", text, _overview(found)),
  ]
  if found["runs"]:
    out.append(_section(2, "Runs", _told_of_runs(found), [_runs(found)]))
  if "offline" in found:
    out.append(_section(2, "Saved replies", _told_of_replies(found["offline"]), []))
  for name, question in found["questions"].items():
    out.append(_question(name, question))
  return out


def _section(
  level: int, title: str, text: Sequence[str], tables: Sequence[Row], figure: str = ""
) -> Row:
  out = {"level": level, "title": title, "text": [*text], "tables": [*tables]}
  return out | {"figure": figure}


def _overview(found: Row) -> list[Row]:
  out = []
  questions = found["questions"]
  trained = {n: q["effects"] for n, q in questions.items() if "effects" in q}
  names = [*dict.fromkeys(m for one in trained.values() for m in one["metrics"])]
  if names:
    rows = [
      [name, *(_gap(one["metrics"].get(name)) for one in trained.values())]
      for name in names
    ]
    out.append({"head": ["difference from the control", *trained], "rows": rows})
  offline = {n: q["offline"] for n, q in questions.items() if "offline" in q}
  if offline:
    rows = [[name, *_offline_cells(row)] for name, row in offline.items()]
    out.append({"head": ["offline", *_offline_head(offline)], "rows": rows})
  return out


def _gap(row: Row | None) -> str:
  """The difference with its interval over seeds; * where that excludes 0."""
  if row is None or row["mean"] is None:
    return DASH
  if row["low"] is None:
    return _signed(row["mean"])
  mark = "" if row["low"] <= 0 <= row["high"] else " *"
  return f"{_signed(row['mean'])} [{_signed(row['low'])}, {_signed(row['high'])}]{mark}"


def _told_of_runs(found: Row) -> list[str]:
  jobs = found["runs"]
  failed = [name for name, one in jobs.items() if one["state"] == "failed"]
  out = [f"{len(jobs) - len(failed)} of {len(jobs)} done."]
  if failed:
    out.append(f"FAILED, and in no table: {', '.join(failed)}.")
    out += [f"{name}: {jobs[name]['message'].splitlines()[-1]}" for name in failed]
  effects = [
    row
    for question in found["questions"].values()
    for row in question.get("effects", {}).get("metrics", {}).values()
    if row["low"] is not None
  ]
  sure = sum(not row["low"] <= 0 <= row["high"] for row in effects)
  if effects:
    out.append(
      f"Of {len(effects)} intervals over seeds {sure} exclude 0 (*); if nothing had "
      f"any effect about {0.05 * len(effects):.1f} would."
    )
  return out


def _runs(found: Row) -> Row:
  names = [
    *dict.fromkeys(m for o in found["runs"].values() for m in o.get("means", {}))
  ]
  rows = [
    [name, one["state"], f"{one['seconds']:.0f}"]
    + [_number(one.get("means", {}).get(metric)) for metric in names]
    for name, one in found["runs"].items()
    if name != "start"
  ]
  if found["start"]:
    rows.insert(0, ["start", "", "", *(_number(found["start"].get(m)) for m in names)])
  return {"head": ["run", "state", "seconds", *names], "rows": rows}


def _told_of_replies(offline: Row) -> list[str]:
  out = [
    f"{offline['groups']} groups of replies to {offline['prompts']} prompts, from "
    f"{', '.join(offline['runs'])}. Advantages under the runs' own weights differ from "
    f"those that the runs kept by {offline['agreement']:.1e} at most.",
    f"The whole reward is {_weights(offline['whole'])}, beside what the runs' rules "
    "and judges gave.",
  ]
  out += [
    f"{run} also learnt from {_weights(more)}, which weigh nothing here."
    for run, more in offline["unnamed"].items()
    if more
  ]
  if "moved" in offline:
    out.append(
      f"Gradients: {offline['gradient_groups']} groups of the first "
      f"{offline['gradient_steps']} steps, at the policy that the runs started from; "
      "the policies that gave these replies were on the mean "
      f"{_number(offline['moved'])} nats per token away from it."
    )
  return out


def _weights(known: Mapping[str, float]) -> str:
  return ", ".join(f"{name} {weight:g}" for name, weight in known.items())


def _question(name: str, question: Row) -> Row:
  how = question["normalisation"]
  text = [f"Weights: {_weights(question['weights'])}."]
  text[0] += f" Normalisation: {how}." if how else ""
  out = []
  if effects := question.get("effects"):
    seeds = ", ".join(map(str, effects["seeds"])) or "none: no pair of runs is done"
    text.append(f"Seeds of complete pairs: {seeds}.")
    rows = [[key, *_effect_cells(row)] for key, row in effects["metrics"].items()]
    out += [{"head": _EFFECTS, "rows": rows}] if rows else []
  if offline := question.get("offline"):
    text.append(
      f"Offline: {offline['groups']} groups count for Spearman; {offline['flat']} are "
      "left without an order by either reward."
    )
    head = _offline_head({name: offline})
    out.append({"head": head, "rows": [_offline_cells(offline)]})
  return _section(2, name, text, out, figure=name)


_EFFECTS = [
  *("held out", "control", "this arm", "difference", "95 % over seeds", "smallest"),
  *("95 % over prompts", "pairs", "missing"),
]


def _effect_cells(row: Row) -> list[str]:
  return [
    *(_number(row[key]) for key in ("control", "arm")),
    _signed(row["mean"]),
    _ends(row),
    _number(row["smallest"]),
    _ends(row["prompts"]),
    str(row["pairs"]),
    str(row["missing"]),
  ]


def _offline_head(offline: Mapping[str, Row]) -> list[str]:
  first = next(iter(offline.values()))
  names = [label for key, label in figures.OFFLINE.items() if key in first]
  return [*names, *(["gradient length"] if "length" in first else [])]


def _offline_cells(row: Row) -> list[str]:
  cells = [
    f"{_number(row[key]['mean'])} [{_number(row[key]['low'])}, "
    f"{_number(row[key]['high'])}]"
    for key in figures.OFFLINE
    if key in row
  ]
  return cells + ([_number(row["length"])] if "length" in row else [])


def _ends(row: Row) -> str:
  if row["low"] is None:
    return DASH
  return f"{_signed(row['low'])} to {_signed(row['high'])}"


def _number(value: float | None) -> str:
  return DASH if value is None else f"{value:.3f}".replace("-", "−")


def _signed(value: float | None) -> str:
  return DASH if value is None else f"{value:+.3f}".replace("-", "−")
