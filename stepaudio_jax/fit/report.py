"""Rows as JSON and as Markdown that a person reads."""

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from stepaudio_jax.core import files

_GIB = 2**30
_DEAREST = 8
_HEAD = """\
# {title}

Everything here is *predicted*: programs were compiled for the slice on a machine
without a TPU ({versions}) and priced; nothing was run.
*floor*: every operation at the roofline, nothing exposed. *expected*: fusions by the
compiler's cost model (what HBM bounds, at 80 % of its bandwidth where that is less),
attention kernels by their products, collectives and copies where the schedule waits
for them. *pessimistic*: the raw cost model, every collective exposed. MFU counts the
model's own flops over the expected seconds.
"""
_COLUMNS = (
  "program | mesh | HBM GiB of {limit} | fits | floor s | expected s | pessimistic s | "
  "MFU | collectives exposed + overlapped s | unpriced | compile s"
)


def write(
  folder: epath.PathLike,
  title: str,
  rows: Sequence[dict[str, Any]],
  notes: Sequence[str],
) -> None:
  """`title`.json and `title`.md in the folder."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  name = title.replace(":", "-").replace(" ", "-")
  for suffix, text in (
    ("json", json.dumps(list(rows), indent=1) + "\n"),
    ("md", markdown(title, rows, notes)),
  ):
    with files.aside(folder / f"{name}.{suffix}") as partial:
      partial.write_text(text)


def markdown(title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
  versions = ", ".join(f"{name} {v}" for name, v in rows[0]["versions"].items())
  limit = f"{rows[0]['hbm_limit_bytes'] / _GIB:.2f}"
  columns = _COLUMNS.format(limit=limit)
  bars = " | ".join("---" for _ in columns.split(" | "))
  parts = [
    _HEAD.format(title=title, versions=versions),
    "\n".join([f"| {columns} |", f"| {bars} |", *map(_line, rows)]),
    *notes,
    *(_details(row) for row in rows if row["seconds_expected"] is not None),
  ]
  return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _line(row: dict[str, Any]) -> str:
  mesh = ", ".join(f"{axis} {n}" for axis, n in row["mesh"].items())
  cells = [row["program"], mesh, f"{row['hbm_peak_bytes'] / _GIB:.1f}"]
  cells.append("yes" if row["fits"] else "**no**")
  if row["seconds_expected"] is None:
    cells += ["–"] * 6
  else:
    times = ("seconds_floor", "seconds_expected", "seconds_pessimistic")
    cells += [f"{row[name]:.4g}" for name in times]
    cells.append(f"{row['mfu_expected']:.1%}")
    exposed, hidden = row["collectives_exposed_s"], row["collectives_overlapped_s"]
    cells += [f"{exposed:.3g} + {hidden:.3g}", f"{row['unpriced_share']:.2%}"]
  cells.append(f"{row['compile_s']:.0f}")
  return f"| {' | '.join(cells)} |"


def _details(row: dict[str, Any]) -> str:
  """Memory by kind and the dearest operations of a program."""
  kinds = row["hbm_bytes_by_kind"]
  memory = ", ".join(f"{kind} {n / _GIB:.2f}" for kind, n in kinds.items())
  seconds = ", ".join(f"{k} {s:.3g}" for k, s in row["seconds_by_kind"].items())
  lines = [
    f"## {row['program']}",
    f"HBM in GiB: {memory}.",
    f"Expected seconds: {seconds}.",
  ]
  if "expected_over_streamed" in row:
    lines.append(
      f"A step reads {row['streamed_bytes'] / _GIB:.2f} GiB of weights and caches on "
      f"each chip; expected takes {row['expected_over_streamed']:.2f} times as long as "
      "HBM's bandwidth needs for that."
    )
  if row["unpriced"]:
    lines.append(f"**Not priced**: {', '.join(row['unpriced'])}.")
  early = [loop for loop in row["loops"] if loop["may_end_earlier"]]
  if early:
    loops = ", ".join(f"{loop['name']} at most {loop['rounds']}" for loop in early)
    lines.append(f"Loops that may end earlier: {loops}.")
  lines.append(_table(row["dearest"][:_DEAREST]))
  return "\n\n".join(lines)


def _table(dearest: Sequence[dict[str, Any]]) -> str:
  head = (
    "| share | of peak | runs | kind | operation | from |\n|---|---|---|---|---|---|"
  )
  lines = []
  for op in dearest:
    peak = f"{op['of_peak']:.0%}" if op["of_peak"] else ""
    source = op["from"].replace("|", "¦")
    cells = (f"{op['share']:.1%}", peak, str(op["runs"]), op["kind"], op["operation"])
    lines.append(f"| {' | '.join(cells)} | `{source[-90:]}` |")
  return "\n".join([head, *lines])
