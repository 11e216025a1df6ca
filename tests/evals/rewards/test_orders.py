"""Order swaps by hand."""

import json

import numpy as np
import pytest

from stepaudio_jax.evals.rewards import orders, sections
from stepaudio_jax.evals.rewards.orders import Verdicts

# φ > 0: the first-listed is better. Labels > 0: the second of the file is better.
ANSWERS = [
  Verdicts(1.0, -1.0),  # both times the first of the file
  Verdicts(0.2, 0.6),  # whichever is listed first
  Verdicts(-0.6, 1.0),  # both times the second
  Verdicts(0.6, np.nan),
  Verdicts(np.nan, np.nan),
  Verdicts(0.0, 0.0),
]
LABELS = [[-2, -1], [1, None], [-1, 0], [-1], [1], [2]]


def test_an_entry_by_hand():
  told = orders.entry(ANSWERS, LABELS, list("abcdef"))
  assert (told["pairs"], told["calls"], told["unread"]) == (6, 12, 3)
  assert told["failure_rate"]["value"] == pytest.approx(3 / 12)
  assert told["consistency"]["value"] == pytest.approx(3 / 4)
  # Of the 7 verdicts that are not 0: first in 1.0, 0.2, 0.6, 1.0, 0.6
  assert told["first"]["value"] == pytest.approx(5 / 7)
  # r is 1, −0.2, −0.8, 0: right twice; right (second); wrong; ½
  assert told["accuracy"]["value"] == pytest.approx((2 + 1 + 0 + 0.5) / 5)
  # One order: right twice; wrong; wrong; right; –; ½
  assert told["one_order"]["value"] == pytest.approx((2 + 0 + 0 + 1 + 0.5) / 6)


def test_the_reward_is_exactly_antisymmetric():
  rng = np.random.default_rng(0)
  for forward, backward in rng.normal(size=(100, 2)):
    r = orders.antisymmetric(Verdicts(forward, backward))
    assert r == -orders.antisymmetric(Verdicts(backward, forward))
  assert np.isnan(orders.antisymmetric(Verdicts(1.0, np.nan)))


def test_nothing_that_was_read_is_told_so():
  told = orders.entry([Verdicts(np.nan, np.nan)], [[1]], ["a"])
  assert told["failure_rate"]["value"] == 1.0
  assert told["consistency"] is told["accuracy"] is told["first"] is None


def items():
  return [
    {"id": name, "task_id": name, "dimensions": {"overall": {"labels": labels}}}
    for name, labels in zip("abcdef", LABELS, strict=True)
  ]


def write(path, verdicts):
  rows = [
    {"id": name, "ab": {"value": _plain(one[0])}, "ba": {"value": _plain(one[1])}}
    for name, one in verdicts.items()
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def _plain(value):
  return None if np.isnan(value) else value


def test_a_file_of_verdicts_is_told_beside_the_heads(tmp_path):
  named = dict(zip("abcdef", ANSWERS, strict=True))
  path = write(tmp_path / "items.jsonl", {"elsewhere": Verdicts(1.0, 1.0)} | named)
  told = orders.of_items(orders.read(path), items(), "overall")
  assert told == orders.entry(ANSWERS, LABELS, list("abcdef"))
  judge = {"of": "items.jsonl", "dimension": "overall", **told}
  head, table = sections._order({"order": {"judge": judge}})
  assert "6 pairs: 12 calls, 3 unread" in head
  assert "| both orders name one reply | 75.0 % [" in table
  assert "| verdicts that could not be read | 25.0 % [" in table
  assert not [*sections._order({"order": {"judge": None}})]
  some = orders.of_items({"b": named["b"]}, items(), "overall")
  assert (some["pairs"], some["accuracy"]["value"]) == (1, 1.0)


def test_wrong_verdicts_name_the_place(tmp_path):
  with pytest.raises(ValueError, match="none of the 1 verdicts is of the 6 comparis"):
    orders.of_items({"z": Verdicts(1.0, -1.0)}, items(), "overall")
  path = tmp_path / "items.jsonl"
  for row, message in (
    ({"id": "a", "ab": {"value": 1}}, "items.jsonl:1.*'ba'"),
    ({"id": "a", "ab": {"level": 1}, "ba": {"value": 1}}, "'ab' lacks 'value'"),
    ({"id": "a", "ab": {"value": "1"}, "ba": {"value": 1}}, "ab.value is '1', no num"),
  ):
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
      orders.read(path)
