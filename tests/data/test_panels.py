"""Raters' rows as arrays: the sign is right whichever reply is shown first."""

import numpy as np

from stepaudio_jax.data import panels, schema
from stepaudio_jax.data.jsonl import Row
from tests.data.rows import pair_row

NAN = np.nan


def panel(*rows) -> panels.Panel:
  return panels.Panel([schema.preference(Row(row, "f:1", "/data")) for row in rows])


def row(task, rater, order, **changes):
  """`order` names the replies as they are shown, "ab" or "ba"."""
  candidates = [{"cid": cid, "text": cid * 3, "model": "m"} for cid in order]
  plain = {"candidates": candidates, "scores": None, "task_id": task, "rater": rater}
  return pair_row(**plain | changes)


def found() -> panels.Panel:
  return panel(
    row("t1", "r1", "ab", overall=-2, dims={"wit": 3}, scores={"a": {"wit": 1}}),
    row("t1", "r2", "ba", overall=-1, dims={"mood": None, "wit": 1},
        scores={"a": {"wit": 2, "ease": 1}, "b": {"wit": 5}}),
    row("t2#1", "r2", "ba", overall=3, dims={}, scores={"b": {"wit": 4}}),
    row("t2#1", "r2", "ab", overall=3, dims={}),
  )  # fmt: skip


def test_what_is_there():
  one = found()
  assert (one.raters, one.dialogues) == (("r1", "r2"), ("t1", "t2"))
  assert (one.dimensions, one.scored) == (("overall", "wit", "mood"), ("wit", "ease"))
  assert one.repeated == 1


def test_labels_are_turned_to_one_order():
  one = found()
  sign = 1 if not one.judged[0].turned else -1  # of "a" before "b"
  np.testing.assert_array_equal(one.labels("overall") * sign, [[-2, 1], [NAN, -3]])
  np.testing.assert_array_equal(one.labels("wit") * sign, [[3, -1], [NAN, NAN]])
  assert np.isnan(one.labels("mood")).all()


def test_scores_lie_with_their_replies():
  one = found()
  wit_2NJ = one.scores("wit").reshape(2, 2, 2)
  first, second = (0, 1) if not one.judged[0].turned else (1, 0)  # places of a and b
  np.testing.assert_array_equal(wit_2NJ[first], [[1, 2], [NAN, NAN]])
  np.testing.assert_array_equal(wit_2NJ[second], [[NAN, 5], [NAN, 4]])


def test_the_order_is_a_coin_and_not_that_of_the_rows():
  pairs = [(f"reply {k}", f"other {k}") for k in range(400)]
  rows = [
    row("t", "r", "ab", candidates=[
      {"cid": cid, "text": text, "model": "m"}
      for cid, text in zip("ab", pair, strict=True)
    ])
    for pair in pairs
  ]  # fmt: skip
  turned = [one.turned for one in panel(*rows).judged]
  assert 160 < sum(turned) < 240  # four standard deviations
  back = [r | {"candidates": r["candidates"][::-1]} for r in rows]
  assert [one.turned for one in panel(*back[::-1]).judged] == [not t for t in turned][
    ::-1
  ]


def test_a_turn_is_of_its_dialogue():
  names = {"a": "a", "a#2": "a", "a#2#3": "a#2", "a#": "a#", "a#b": "a#b", "#1": "#1"}
  assert {name: panels.dialogue_of(name) for name in names} == names
