"""Two sides that share no dialogue, however it is shared."""

import json
import shutil

import numpy as np
import pytest

from stepaudio_jax.data import jsonl, schema
from stepaudio_jax.preferences import split
from tests.data.rows import write_rows, write_tone
from tests.preferences.told import call, pair

READ = {"role": "user", "content": "Read this."}


def human(*content):
  return {"role": "user", "content": [*content]}


def text(words):
  return {"type": "text", "text": words}


def clip(path, **span):
  return {"type": "audio", "path": path, **span}


def samples(tmp_path, rows):
  found = jsonl.Rows(write_rows(tmp_path / "rows.jsonl", rows))
  return [schema.preference(row) for row in found]


def together(tmp_path, rows):
  return split.together(samples(tmp_path, rows))


def test_what_goes_together(tmp_path):
  """Each row but the last joins row 0 by another road."""
  write_tone(tmp_path / "a.wav", 1600)
  shutil.copy(tmp_path / "a.wav", tmp_path / "copy.wav")
  write_tone(tmp_path / "other.wav", 1600, 300)
  asked = human(clip("a.wav"), text("How fast?"))
  goes_on = [asked, {"role": "assistant", "content": "Fast."}, human(text("Sure?"))]
  other_reply = [goes_on[0], {"role": "assistant", "content": "Hm."}, goes_on[2]]
  rows = [
    pair("a", task="talk", context=[asked]),
    pair("b", task="talk", context=[asked], rater="r2", replies=("One.", "Two.")),
    pair("c", task="talk#3", context=[human(text("Later?"))]),
    pair("d", task="u1", context=[human(clip("copy.wav"), text(" How fast? "))],
         replies=("Three.", "Four.")),
    pair("e", task="u2", context=goes_on),
    pair("f", task="u3", context=other_reply),
    pair("g", task="u4", context=[human(clip("other.wav"), text("How fast?"))]),
    pair("h", task="u5", context=[human(clip("a.wav", end_s=0.05), text("How fast?"))]),
    pair("i", task="u6", context=[human(clip("gone.wav"), text("How fast?"))]),
    pair("j", task="u7", context=[human(clip("gone.wav"), text("How fast?"))],
         replies=("Five.", "Six.")),
  ]  # fmt: skip
  assert together(tmp_path, rows) == [0, 0, 0, 0, 0, 5, 6, 7, 8, 8]


def test_a_shared_opening_is_no_dialogue(tmp_path):
  """Both go on from "Hi." alike, but nobody compared replies there."""
  opening = [human(text("Hi.")), {"role": "assistant", "content": "Hello."}]
  rows = [
    pair("a", task="t1", context=[*opening, human(text("One?"))]),
    pair("b", task="t2", context=[*opening, human(text("Two?"))]),
  ]
  assert together(tmp_path, rows) == [0, 1]
  compared = pair("c", task="t3", context=opening[:1], replies=("Hello.", "Ho."))
  assert together(tmp_path, [*rows, compared]) == [0, 0, 0]


def crowd(count=300):
  """Rows of few tasks and few contexts that share both at random, in chains."""
  rng = np.random.default_rng(0)
  rows = []
  for k in range(count):
    task = int(rng.integers(200))
    # A task has one context; two tasks may have the same one.
    context = [human(text(f"Question {task * 7919 % 150}?"))]
    rows.append(
      pair(f"p{k}", task=f"t{task}", context=context, replies=(f"A{k}", f"B{k}"))
    )
  return rows


def reached(rows, start):
  """Ids of the rows that hang together with one, by a search."""
  found, waiting = set(), [start]
  while waiting:
    one = waiting.pop()
    if one["id"] not in found:
      found.add(one["id"])
      for other in rows:
        same = other["task_id"] == one["task_id"] or other["context"] == one["context"]
        if same:
          waiting.append(other)
  return found


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def cut(tmp_path, rows, name, **options):
  path = write_rows(tmp_path / f"{name}.jsonl", rows)
  outs = [tmp_path / f"{name}-{side}.jsonl" for side in ("train", "heldout")]
  flags = [part for key, value in options.items() for part in (f"--{key}", value)]
  assert call(
    *("split", path, "--out-train", outs[0], "--out-heldout", outs[1]), *flags
  ) == 0  # fmt: skip
  return [read(out) for out in outs]


def test_no_dialogue_is_on_both_sides(tmp_path, capsys):
  rows = crowd()
  train, heldout = cut(tmp_path, rows, "a", heldout=0.2)
  assert [r for r in rows if r in train] == train
  assert [r for r in rows if r in heldout] == heldout
  assert len(train) + len(heldout) == len(rows)
  assert 0.19 <= len(heldout) / len(rows) <= 0.2
  ids = {row["id"] for row in heldout}
  chains = [reached(rows, row) for row in heldout]
  assert all(chain <= ids for chain in chains)
  assert max(map(len, chains)) > 3  # there is something to keep together
  # What is told is what was done.
  line = next(
    line for line in capsys.readouterr().out.splitlines() if "heldout" in line
  )
  cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
  tasks = {row["task_id"] for row in heldout}
  share = f"{100 * len(heldout) / len(rows):.2f}"
  assert cells == [str(len(heldout)), str(len(heldout)), share, str(len(tasks)), "1"]


def test_a_row_goes_where_it_goes_in_any_order(tmp_path):
  rows = crowd()
  order = np.random.default_rng(1).permutation(len(rows))
  _, first = cut(tmp_path, rows, "a")
  _, second = cut(tmp_path, [rows[k] for k in order], "b")
  _, other = cut(tmp_path, rows, "c", seed=1)
  ids = [{row["id"] for row in side} for side in (first, second, other)]
  assert ids[0] == ids[1]
  assert ids[0] != ids[2]


def test_raters_of_one_comparison_count_once(tmp_path, capsys):
  rows = [
    pair(f"p{k}-{rater}", task=f"t{k}", context=[human(text(f"{k}?"))], rater=rater)
    for k in range(10)
    for rater in ("r1", "r2", "r3", "r4", "r5")[: 5 if k % 2 else 1]
  ]
  _, heldout = cut(tmp_path, rows, "a", heldout=0.3)
  assert len({row["task_id"] for row in heldout}) == 3
  told = capsys.readouterr().out
  assert f"|   {len(heldout):2} |           3 |    30.00 |" in told


@pytest.mark.parametrize(
  ("share", "message"),
  [
    ("0", "heldout=0 is not a share between 0 and 1"),
    ("1.5", "heldout=1.5 is not"),
    ("nan", "heldout=nan is not"),
    ("0.2", "heldout=0.2 leaves one side empty: there are 1 groups"),
    ("0.9", "heldout=0.9 leaves one side empty: there are 1 groups"),
  ],
)
def test_what_cannot_be_split(tmp_path, capsys, share, message):
  path = write_rows(tmp_path / "a.jsonl", [pair("p1"), pair("p2", rater="r2")])
  outs = ("--out-train", tmp_path / "x", "--out-heldout", tmp_path / "y")
  assert call("split", path, *outs, "--heldout", share) == 2
  told = capsys.readouterr().err
  assert message in told
  assert told.count("\n") == 1
  assert not (tmp_path / "x").exists()


def test_both_sides_need_files_of_their_own(tmp_path, capsys):
  path = write_rows(tmp_path / "a.jsonl", crowd(40))
  outs = ("--out-train", tmp_path / "x", "--out-heldout", tmp_path / "x")
  assert call("split", path, *outs) == 2
  assert "is named twice" in capsys.readouterr().err
  assert not (tmp_path / "x").exists()
