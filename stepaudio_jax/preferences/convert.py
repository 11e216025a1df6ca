r"""Preferences of others' formats as rows of pref/1.

  python -m stepaudio_jax.preferences convert --from pairwise dpo.jsonl --out a.jsonl
  python -m stepaudio_jax.preferences convert --from helpsteer hs.jsonl --out b.jsonl

pairwise: {"prompt", "chosen", "rejected"} as TRL has it, plain or conversational; the
strength of the choice is not known and becomes 1. helpsteer: HelpSteer and HelpSteer2
(rows of one prompt that follow each other are compared; scores 0–4 become 1–5, and
their differences, at most 3, the dimensions and, of helpfulness, the choice), the
preferences of HelpSteer2, and HelpSteer3 (one row for each of its annotators, whose
names "…-1", "…-2" are places in a list, not persons).

Which reply comes first is drawn from the seed, unless the source says which was shown
first: an odd `order_seed` has turned the source's order, 0 has kept it. Rows that no
comparison can be made of are left out, counted and told.
"""

import argparse
import collections
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.data.jsonl import Row
from stepaudio_jax.preferences import files, helpsteer, lines, pairwise
from stepaudio_jax.preferences.compared import Compared, LeftOut, Rating

FORMATS = {"helpsteer": helpsteer, "pairwise": pairwise}
SHOWN = 20  # of the rows left out, or wrong


def flags(out: argparse.ArgumentParser) -> None:
  add = out.add_argument
  add("--from", required=True, choices=[*FORMATS], dest="kind", help="its format")
  add("path", metavar="IN", help="JSON Lines")
  add("--out", required=True, metavar="FILE", help="a new file")
  add("--seed", type=int, default=0, metavar="N", help="of the order; else %(default)s")


def run(path: epath.PathLike, *, kind: str, out: epath.PathLike, seed: int = 0) -> int:
  """Writes the rows and tells what was left out.

  Raises:
    ValueError: a row that is not of the format, nothing to convert, or there is
      something at `out`.
  """
  files.refuse(out)
  if str(path).endswith(".gz"):
    raise ValueError(f"{path} is compressed; `gunzip` it first")
  entries, left_out = converted(path, kind, seed)
  if not entries:
    raise ValueError(f"{path}: no row makes a comparison; {left_out[0]}")
  files.write((out, entries))
  for one in left_out[:SHOWN]:
    print(f"left out {one.at}: {one.why}")
  counted = collections.Counter(one.kind for one in left_out)
  told = ", ".join(f"{count} {why}" for why, count in counted.items()) or "nothing"
  pairs = len({entry.sample.id.partition("/")[0] for entry in entries})
  print(f"wrote {out}: {len(entries)} rows, {pairs} comparisons; left out: {told}")
  return 0


def converted(
  path: epath.PathLike, kind: str, seed: int
) -> tuple[list[files.Entry], list[LeftOut]]:
  """The rows of a file, and what could not be one.

  Raises:
    ValueError: rows that are not of the format, the first of them and how many.
  """
  source = jsonl.Rows(path)
  stem = f"{kind}-{epath.Path(path).name.split('.')[0]}"
  entries, left_out, problems = [], [], []
  number = 0
  for one in FORMATS[kind].comparisons(source, problems):
    if isinstance(one, LeftOut):
      left_out.append(one)
      continue
    number += 1
    for value in _rows(one, f"{stem}-{number:06d}", seed):
      row = Row(value, one.at, one.folder)
      sample, wrong = lines.read(row)
      problems += wrong
      if sample is not None:
        entries.append(files.Entry(row, sample))
  if problems:
    more = "".join(f"\n  {told}" for told in problems[1:SHOWN])
    rest = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise ValueError(f"{problems[0]} ({len(problems)} problems in all){more}{rest}")
  return entries, left_out


def _rows(one: Compared, name: str, seed: int) -> Iterator[dict[str, Any]]:
  """One for each rating; an only one has the comparison's name."""
  order_seed = 0 if one.shown else _number(seed, name)
  turned = order_seed % 2 == 1
  replies = one.replies[::-1] if turned else one.replies
  context = json.dumps(one.context, sort_keys=True)
  shared = {
    "schema": schema.PREFERENCE_SCHEMA,
    "task_id": f"{name.split('-')[0]}-{_digest(context).hex()}",
    "context": one.context,
    "candidates": [
      {"cid": cid, "text": text, "model": "unknown"}
      for cid, text in zip("ab", replies, strict=True)
    ],
    "ts": 0,  # nobody knows when
    "order_seed": order_seed,
  }
  for place, rating in enumerate(one.ratings, 1):
    own = name if len(one.ratings) == 1 else f"{name}/{place}"
    yield shared | {"id": own, "rater": rating.rater} | _labels(rating, turned)


def _labels(rating: Rating, turned: bool) -> dict[str, Any]:
  sign = -1 if turned else 1
  out: dict[str, Any] = {
    "overall": sign * rating.overall,
    "dims": {k: None if v is None else sign * v for k, v in rating.dims.items()},
  }
  if any(rating.scores):
    scores: Sequence = rating.scores[::-1] if turned else rating.scores
    out["scores"] = dict(zip("ab", scores, strict=True))
  return out


def _number(*parts: object) -> int:
  return int.from_bytes(_digest(*parts)[:4], "big")


def _digest(*parts: object) -> bytes:
  text = json.dumps([str(part) for part in parts])
  return hashlib.blake2b(text.encode(), digest_size=8).digest()
