"""Text-only questions: every answer worked out again from the question."""

import collections
import re

from stepaudio_jax.data.world import text_only, words


def mentions(text, label):
  return len(re.findall(rf"\b{label.lower()}\b", text.lower()))


def test_text_rows_are_right():
  rows = text_only.rows(350, seed=1)
  assert rows == text_only.rows(350, seed=1) != text_only.rows(350, seed=2)
  kinds = collections.Counter(row["meta"]["kind"] for row in rows)
  assert set(kinds.values()) == {50}
  for row in rows:
    asked = row["messages"][-2]["content"][0]["text"]
    number = [
      words.DIGITS.index(w) for w in re.findall(r"\w+", asked) if w in words.DIGITS
    ]
    answer = [words.DIGITS.index(w) for w in row["answer"].split() if w in words.DIGITS]
    expected = {
      "sum": lambda n: [sum(n)],
      "difference": lambda n: [n[0] - n[1]],
      "larger": lambda n: [max(n)],
      "last": lambda n: n[-1:],
      "backwards": lambda n: n[::-1],
      "told": lambda n: [],
      "told earlier": lambda n: [],
    }[row["meta"]["kind"]]
    assert answer == expected(number), row
    assert mentions(row["messages"][-1]["content"][0]["text"], row["answer"]) == 1
    if row["meta"]["kind"].startswith("told"):
      human = [m for m in row["messages"] if m["role"] == "human"]
      said = " ".join(message["content"][0]["text"] for message in human)
      assert mentions(said, row["answer"]) == 1
