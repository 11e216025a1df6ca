"""Which sampled replies a model learns from next: modality-grounded reasoning (MGRD).

  python -m experiments.mgrd questions --dialogues FILE --out FILE [--count N --skip M]
  python -m experiments.mgrd filter --rollouts FILE --dialogues FILE --out DIR

Step-Audio-R1 (§4.2) samples answers to questions about sound and keeps those that (1)
argue from what is heard, (2) reason coherently and (3) are right; the next SFT reads
them. `filter` does it by rules, and with --judge asks a judge about (2) besides. Of
every reply it says why it was kept or dropped; nothing is lost. experiments/mgrd.sh
runs whole iterations.
"""

import argparse
import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from experiments import mgrd_rules
from experiments.mgrd_rules import Verdict
from stepaudio_jax.core import errors, files
from stepaudio_jax.data import schema
from stepaudio_jax.data.jsonl import Rows
from stepaudio_jax.evals.parts import judging
from stepaudio_jax.judges import parsing
from stepaudio_jax.judges.questions import Judge, Template
from stepaudio_jax.text import messages as messages_lib

JUDGE = Template(
  system="You judge whether an argument holds together, and nothing else.",
  text="""Somebody listened to a recording and was asked:

{question}

This is the reasoning:

{thought}

And this the answer:

{answer}

Is the reasoning coherent, and does the answer follow from it? Do not judge whether it
is right: you have not heard the recording. Answer YES or NO and nothing else.""",
)
Row = dict[str, Any]


def filtered(
  dialogues: Mapping[str, Row], rollouts: Sequence[Row], judge: Judge | None = None
) -> tuple[list[Row], list[Row], dict[str, Any]]:
  """Kept dialogues, evidence of each reply in the order of `rollouts`, and counts.

  Args:
    dialogues: by id; messages as data/schema.py leaves them, paths from anywhere.
    rollouts: generate's rows without those of whole dialogues (`split`).
    judge: asked of what the rules keep whether it holds together.

  Raises:
    ValueError: a reply to no dialogue, or one whose prompt opened no thought.
  """
  strange = sorted({row["dialogue_id"] for row in rollouts} - set(dialogues))
  if strange:
    raise ValueError(f"replies to dialogues that are not there: {strange[:8]}")
  closed = [row["prompt_id"] for row in rollouts if not row["thinking"]]
  if closed:
    raise ValueError(f"sampled without a thought: {closed[:8]}; leave out --nothinking")
  found = [
    mgrd_rules.verdict(dialogues[row["dialogue_id"]], row["text"]) for row in rollouts
  ]
  seen: set[tuple[str, str]] = set()
  for place, row in enumerate(rollouts):
    key = (row["dialogue_id"], " ".join(row["text"].split()))
    if key in seen and not found[place].reasons:
      found[place] = dataclasses.replace(found[place], reasons=("said before",))
    seen.add(key)
  if judge is not None:
    _ask(judge, dialogues, rollouts, found)
  evidence = [
    {
      "dialogue_id": row["dialogue_id"],
      "sample": row["sample"],
      "kept": not one.reasons,
      "dropped_for": [*one.reasons],
      "features": one.features,
      "conclusion": one.conclusion,
      "answer": row["answer"],
      "judged": one.judged,
    }
    for row, one in zip(rollouts, found, strict=True)
  ]
  kept = [
    learned(dialogues[row["dialogue_id"]], row, one)
    for row, one in zip(rollouts, found, strict=True)
    if not one.reasons
  ]
  return kept, evidence, _counts(dialogues, evidence)


def learned(dialogue: Row, row: Row, one: Verdict) -> Row:
  """A reply as the last turn of its dialogue."""
  messages = [*dialogue["messages"]]
  if messages[-1]["role"] == "assistant":  # asked anew
    messages.pop()
  turn = {
    "role": "assistant",
    "content": [{"type": "text", "text": row["answer"]}],
    "think": row["think"],
  }
  meta = {**dialogue.get("meta", {}), "sample": row["sample"]}
  meta["features"] = [*one.features]
  name = f"{dialogue['id']}/{row['sample']}"
  return {**dialogue, "id": name, "messages": [*messages, turn], "meta": meta}


def _ask(
  judge: Judge,
  dialogues: Mapping[str, Row],
  rollouts: Sequence[Row],
  found: list[Verdict],
) -> None:
  """Drops what the judge finds incoherent, and what it says nothing clear about."""
  places = [place for place, one in enumerate(found) if not one.reasons]
  questions = [
    JUDGE.ask(
      question=_question(dialogues[rollouts[place]["dialogue_id"]]),
      thought=rollouts[place]["think"],
      answer=rollouts[place]["answer"],
    )
    for place in places
  ]
  for place, raw in zip(
    places, judge.answers(questions) if questions else (), strict=True
  ):
    holds = parsing.verdict(raw)
    why = {True: (), False: ("the judge: incoherent",), None: ("the judge: unread",)}
    found[place] = dataclasses.replace(
      found[place], reasons=why[holds], judged=raw or ""
    )


def _question(dialogue: Row) -> str:
  asked = [m for m in dialogue["messages"] if m["role"] == "human"]
  return messages_lib.text_of(asked[-1])


def _counts(dialogues: Mapping[str, Row], evidence: Sequence[Row]) -> dict[str, Any]:
  first = collections.Counter(r["dropped_for"][0] for r in evidence if not r["kept"])
  every = collections.Counter(why for row in evidence for why in row["dropped_for"])
  answered = {row["dialogue_id"] for row in evidence}
  return {
    "dialogues": len(dialogues),
    "without_replies": len(dialogues) - len(answered),
    "replies": len(evidence),
    "kept": sum(row["kept"] for row in evidence),
    "dialogues_kept": len({row["dialogue_id"] for row in evidence if row["kept"]}),
    "dropped_first_for": dict(first.most_common()),
    "dropped_for": dict(every.most_common()),
  }


def split(rows: Iterable[Row]) -> tuple[list[Row], dict[str, bool]]:
  """generate's rollout rows, and {dialogue: kept} of the rows that --keep adds."""
  rollouts, bounds = [], {}
  for row in rows:
    if "prompt_id" in row:
      rollouts.append(row)
    else:
      bounds[row["id"]] = row["kept"]
  return rollouts, bounds


def read(path: epath.PathLike) -> dict[str, Row]:
  """Dialogue rows by id, with paths that are good from any folder.

  Raises:
    ValueError: a wrong row, or an id that is there twice.
  """
  found: dict[str, Row] = {}
  for raw in Rows(path):
    talk = schema.dialogue(raw)
    if talk.id in found:
      raise ValueError(f"{raw.at}: the id {talk.id!r} is there twice")
    for block in messages_lib.audio_blocks(talk.row["messages"]):
      if "path" in block and not files.is_remote(block["path"]):
        block["path"] = os.path.abspath(block["path"])
    found[talk.id] = talk.row
  return found


def write(path: Path, rows: Iterable[Row]) -> None:
  with files.aside(path) as partial, partial.open("w", encoding="utf-8") as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False) + "\n")


def questions(dialogues: str, out: Path, count: int | None, skip: int) -> int:
  """Writes `count` dialogues behind the first `skip`, around the end; how many.

  Raises:
    ValueError: more than there are.
  """
  rows = [*read(dialogues).values()]
  count = len(rows) if count is None else count
  if not 1 <= count <= len(rows):
    raise ValueError(f"count={count}: {dialogues} has {len(rows)} dialogues")
  out.parent.mkdir(parents=True, exist_ok=True)
  write(out, [rows[(skip + k) % len(rows)] for k in range(count)])
  return count


def run(
  rollouts: str, dialogues: str, out: Path, judge: Judge | None = None
) -> dict[str, Any]:
  """Writes kept.jsonl, evidence.jsonl, counts.json and, of --keep, prompts-train.jsonl.

  Raises:
    ValueError: nothing is kept, after all is written; or rows that do not fit.
  """
  known = read(dialogues)
  replies, bounds = split(row.value for row in Rows(rollouts))
  kept, evidence, counts = filtered(known, replies, judge)
  if bounds:
    counts["prompts"] = sum(bounds.values())
  if judge is not None:
    counts["judge"] = {**judge.describe(), "wording": JUDGE.hash}
  out.mkdir(parents=True, exist_ok=True)
  write(out / "kept.jsonl", kept)
  write(out / "evidence.jsonl", evidence)
  if bounds:
    write(
      out / "prompts-train.jsonl",
      [known[name] for name, good in bounds.items() if good],
    )
  with files.aside(out / "counts.json") as partial:
    partial.write_text(json.dumps(counts, indent=1, ensure_ascii=False))
  if not kept or (bounds and not counts["prompts"]):
    raise ValueError(
      f"of {len(replies)} replies {len(kept)} are kept and of {len(bounds)} dialogues "
      f"{counts.get('prompts')} as prompts; {out / 'evidence.jsonl'} says why: "
      f"{counts['dropped_first_for']}"
    )
  return counts


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.mgrd",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  known = parser.add_subparsers(dest="what", required=True)
  add = known.add_parser("questions", allow_abbrev=False).add_argument
  add("--dialogues", required=True, metavar="FILE")
  add("--out", required=True, type=Path, metavar="FILE")
  add("--count", type=int, metavar="N", help="else all")
  add("--skip", type=int, default=0, metavar="M", help="of the first; else 0")
  add = known.add_parser("filter", allow_abbrev=False).add_argument
  add("--rollouts", required=True, metavar="FILE", help="of generate --jsonl")
  add("--dialogues", required=True, metavar="FILE", help="that were asked")
  add("--out", required=True, type=Path, metavar="DIR")
  add("--judge", metavar="WHO", help="a checkpoint, or https://HOST/v1#MODEL")
  add("--judge_key", metavar="VARIABLE", help="of the environment, with the key")
  asked = vars(parser.parse_args(argv))
  with errors.readable("mgrd"):
    if asked.pop("what") == "questions":
      print(f"{questions(**asked)} dialogues: {asked['out']}")
      return
    who, key = asked.pop("judge"), asked.pop("judge_key")
    cache = epath.Path(asked["out"]) / "cache"
    judge = judging.judge(who, key, cache) if who else None
    print(json.dumps(run(**asked, judge=judge), indent=1, ensure_ascii=False))


if __name__ == "__main__":
  main()
