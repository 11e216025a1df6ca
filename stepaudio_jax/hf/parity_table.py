"""The parity report for people."""

from collections.abc import Mapping, Sequence
from typing import Any

LISTED = 10  # lines of a kind that are shown


def table(report: Mapping[str, Any]) -> str:
  """The report for people."""
  lines = [_side_line(name, report[name]) for name in ("a", "b")]
  for name in ("a", "b"):
    keys = report[f"only_{name}"]
    lines += _listed(f"only in {name}", keys)
  lines += [
    f"{row['a']} and {row['b']}: equal after rounding to {row['to']}: "
    f"{row['equal']} of {row['tensors']} tensors"
    for row in report["rounding"]
  ]
  rounded = {key for key, row in report["tensors"].items() if row["equal_rounded"]}
  for what in ("shape", "dtype", "config"):
    rows = report[f"{what}_differences"]
    rows = [row for row in rows if row.get("key") not in rounded]
    labels = [f"{r.get('key') or r['name']}: {r['a']} and {r['b']}" for r in rows]
    lines += _listed(f"{what} differs", labels)
  tensors = report["tensors"]
  same = sum(row["bit_equal"] for row in tensors.values())
  lines.append(f"{same} of {len(tensors)} tensors in both are bit-equal")
  if same < len(tensors):
    at = f"max |Δ| {report['max_abs']:.3g} ({report['max_abs_key']})"
    lines.append(f"{at}; first difference {report['first_difference']}")
    broken = sum(row["non_finite"] for row in tensors.values())
    lines += [f"{broken} differences are not finite"] if broken else []
  bad = {key: row["broken"] for key, row in tensors.items() if row["broken"]}
  lines += _listed("not finite", [f"{k}: {n:,} values of both" for k, n in bad.items()])
  for name, row in (report["logits"] or {}).items():
    lines.append(_logits_line(name, row))
  return "\n".join([*lines, report["verdict"]])


def _side_line(name: str, row: Mapping[str, Any]) -> str:
  dtypes = ", ".join(f"{count} {dtype}" for dtype, count in row["dtypes"].items())
  return (
    f"{name}: {row['path']} ({row['kind']}), {row['tensors']} tensors ({dtypes}), "
    f"{row['parameters']:,} parameters, {row['bytes']:,} bytes"
  )


def _listed(title: str, labels: Sequence[str]) -> list[str]:
  """A line each, the first few of them."""
  more = len(labels) - LISTED
  lines = [f"{title}: {label}" for label in labels[:LISTED]]
  return lines + ([f"{title}: {more} more"] if more > 0 else [])


def _logits_line(name: str, row: Mapping[str, Any] | str) -> str:
  left_out = row if isinstance(row, str) else row.get("left_out")
  if left_out:
    return f"logits, {name}: {left_out}"
  numbers = {k: "not finite" if v is None else f"{v:.3g}" for k, v in row.items()}
  return (
    f"logits, {name} prompt: max |Δ| {numbers['max_abs']}, KL mean "
    f"{numbers['kl_mean']}, max {numbers['kl_max']} nats, same likeliest token at "
    f"{numbers['same_argmax']} of positions"
  )
