r"""How good a judge of pairs is, and what its levels are worth.

  python -m experiments.judge_pairs --judge runs/judge \
    --preferences runs/world/preferences-heldout.jsonl --out results/judge --silence

Asks about every pair of a file (schema pref/1) in both orders and writes to DIR:

  judge.json   accuracy beside the raters' choices (95 % intervals by bootstrap over
               dialogues), order-swap consistency, how often what comes first wins, the
               share of judgements without a level; with --silence the same where every
               sound is silence of equal length, and what that costs
  items.jsonl  each pair with labels, levels and what the judge said
  phi.json     what each level is worth by these pairs: rewards.preference.calibration
               of a policy gradient. Measure it on other pairs than those you report.

JUDGE is a checkpoint or https://HOST/v1#MODEL, whose replies are kept under DIR/cache.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.audio import io as audio_io
from stepaudio_jax.core import errors, files, levels
from stepaudio_jax.data import panels
from stepaudio_jax.data.corpus import Corpus
from stepaudio_jax.data.schema import Preference
from stepaudio_jax.evals.parts import hearing, intervals, judging
from stepaudio_jax.judges import calibration, reliability, worth
from stepaudio_jax.judges.comparing import Both, Comparer, Pair
from stepaudio_jax.judges.questions import Judge

Row = dict[str, Any]
Context = list[Row]


def run(
  judge: Judge,
  preferences: epath.PathLike,
  out: epath.PathLike,
  *,
  limit: int | None = None,
  expected: bool = False,
  silence: bool = False,
) -> Row:
  """Asks `judge`, writes the three files, and returns what judge.json holds.

  Args:
    limit: the first so many rows of the file, which are a rater's each.
    expected: φ is the mean under the judge's probabilities of the levels.

  Raises:
    ValueError: the file is wrong, or the judge tells no probabilities.
  """
  out, rows = epath.Path(out), read(preferences)[:limit]
  comparer = Comparer(judge, expected=expected)
  heard = asked(comparer, rows)
  result = {"judge": judge.describe(), "rows": len(rows), "expected": expected}
  result["heard"] = summary(heard, rows)
  if silence:
    quiet = asked(comparer, rows, silenced)
    result["silence"] = summary(quiet, rows)
    result["drop"] = drop(heard, quiet, rows)
  named = [both.forward.level for both in heard]
  named += [both.backward.level for both in heard]
  label = [row.overall for row in rows] + [-row.overall for row in rows]
  if any(named):
    phi_6 = calibration.fitted(named, label)
    worth.save(out / "phi.json", phi_6, judge.describe(), len(rows))
    result["phi"] = phi_6.tolist()
  _write(out / "judge.json", json.dumps(result, indent=1))
  _write(out / "items.jsonl", "".join(map(item, rows, heard)))
  return result


def read(path: epath.PathLike) -> list[Preference]:
  """The rows of one file, all of it checked."""
  literal = str(path).replace("{", "{{").replace("}", "}}")
  options = {"preference": {"path": literal}}
  corpus = Corpus({"preference": 1.0}, options, "heldout", Preference)
  return [corpus.sample(*place) for place in corpus.places()]


def asked(
  comparer: Comparer,
  rows: Sequence[Preference],
  change: Callable[[Context], Context] = list,
) -> list[Both]:
  """Both orders of each row's pair; raters of one pair share its judgements.

  Args:
    change: of the contexts that the judge reads.
  """
  pairs = [
    Pair(change(row.context), *(one.text for one in row.candidates), row.rubric)
    for row in rows
  ]
  return comparer.both(pairs)


def silenced(context: Context) -> Context:
  """The same with silence of equal length in the place of every sound."""

  def quiet(block: Row) -> Row:
    if block["type"] != "audio":
      return block
    source = block["path"] if "path" in block else block["bytes"]
    samples_N = audio_io.read(source, block.get("start_s"), block.get("end_s"))
    return {"type": "audio", "bytes": hearing.silence(len(samples_N)).source}

  return [
    {**message, "content": [quiet(block) for block in message["content"]]}
    for message in context
  ]


def summary(found: Sequence[Both], rows: Sequence[Preference]) -> Row:
  """reliability.summary, with the interval of the accuracy."""
  told = reliability.summary(found, [row.overall for row in rows])
  out: Row = {name: _plain(value) for name, value in told.items()}
  return out | {"interval": _interval(_right(found, rows), rows)}


def drop(
  heard: Sequence[Both], quiet: Sequence[Both], rows: Sequence[Preference]
) -> Row:
  """What silence costs in accuracy, pair by pair."""
  lost_N = _right(heard, rows) - _right(quiet, rows)
  known = lost_N[np.isfinite(lost_N)]
  mean = float(known.mean()) if known.size else float("nan")
  interval = _interval(lost_N, rows)
  return {"accuracy": _plain(mean), "pairs": known.size, "interval": interval}


def item(row: Preference, both: Both) -> str:
  """A line of items.jsonl."""
  said = {
    name: {"level": one.level, "value": _plain(one.value), "raw": one.raw}
    for name, one in zip(("ab", "ba"), both, strict=True)
  }
  known = {"id": row.id, "task_id": row.task_id, "rater": row.rater}
  told = {**known, "label": row.overall, "value": _plain(both.value), **said}
  return json.dumps(told, ensure_ascii=False) + "\n"


def table(result: Row) -> str:
  """The result in words."""
  lines = [f"{result['rows']} rows; judge {result['judge']}"]
  for name in ("heard", "silence"):
    if name in result:
      one = result[name]
      lines.append(
        f"  {name:8s} accuracy {_number(one['accuracy'])} {_told(one['interval'])} on "
        f"{one['decided']} decided rows; one order alone "
        f"{_number(one['accuracy_one_order'])}; orders agree "
        f"{_number(one['consistency'])} of {one['read_both']}; what comes first wins "
        f"{_number(one['first_share'])}; without a level {_number(one['unread'])} of "
        f"{one['judgements']}"
      )
  if "drop" in result:
    lost = result["drop"]
    lines.append(
      f"  silence costs {_number(lost['accuracy'])} {_told(lost['interval'])} on "
      f"{lost['pairs']} rows"
    )
  if "phi" in result:
    pairs = zip(levels.SYMBOLS, result["phi"], strict=True)
    lines.append("  phi " + ", ".join(f"{name} {x:+.2f}" for name, x in pairs))
  return "\n".join(lines)


def _right(found: Sequence[Both], rows: Sequence[Preference]) -> np.ndarray:
  value_N = np.asarray([both.value for both in found])
  return reliability.correct(value_N, [row.overall for row in rows])


def _interval(value_N: np.ndarray, rows: Sequence[Preference]) -> list[float] | None:
  known_N = np.isfinite(value_N)
  if not known_N.any():
    return None
  dialogues = [
    panels.dialogue_of(row.task_id)
    for row, known in zip(rows, known_N, strict=True)
    if known
  ]
  return [*intervals.clustered(value_N[known_N], np.ones(known_N.sum()), dialogues)]


def _told(interval: list[float] | None) -> str:
  return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _plain(value: float) -> float | None:
  """As JSON has it."""
  return None if np.isnan(value) else value


def _number(value: float | None) -> str:
  return "–" if value is None else f"{value:.3f}"


def _write(path: epath.Path, text: str) -> None:
  with files.aside(path) as partial:
    partial.write_text(text)


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.judge_pairs",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--judge", required=True, metavar="WHO")
  parser.add_argument("--judge_key", help="environment variable with the key")
  parser.add_argument("--preferences", required=True, metavar="FILE")
  parser.add_argument("--out", required=True, metavar="DIR")
  parser.add_argument(
    "--limit", type=int, metavar="N", help="the first N rows, each a rater's"
  )
  parser.add_argument(
    "--max_tokens",
    type=int,
    default=judging.Asking().max_tokens,
    metavar="N",
    help="of what a judge says; default %(default)s",
  )
  parser.add_argument("--hears", action="store_true", help="an endpoint takes sounds")
  parser.add_argument(
    "--expected", action="store_true", help="levels weighed by their probabilities"
  )
  parser.add_argument(
    "--silence", action="store_true", help="ask again about silence of equal length"
  )
  args = parser.parse_args()
  with errors.readable("judge_pairs"):
    weighs = args.expected and args.judge.lower().startswith("http")
    how = judging.Asking(max_tokens=args.max_tokens, hears=args.hears, weighs=weighs)
    cache = epath.Path(args.out) / "cache"
    judge = judging.judge(args.judge, args.judge_key, cache, how)
    known = {name: getattr(args, name) for name in ("limit", "expected", "silence")}
    print(table(run(judge, args.preferences, args.out, **known)))


if __name__ == "__main__":
  main()
