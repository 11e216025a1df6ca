"""1 where a thought, closed once, comes before an answer (R1 §4.2), else 0."""

from collections.abc import Mapping
from typing import Any

from stepaudio_jax.core import replies
from stepaudio_jax.rewards.parts import answers

EXAMPLES = [
  ({"id": "x"}, "A deep voice.\n</think>\nLow.", 1.0),
  ({"id": "x"}, "<think>\nA deep voice.\n</think>\nLow.<|EOT|>", 1.0),
  ({"id": "x"}, "\n</think>\nLow.", 0.0),
  ({"id": "x"}, "<think>\n</think>\nLow.", 0.0),
  ({"id": "x"}, "A deep voice.", 0.0),
  ({"id": "x"}, "A deep voice.\n</think>\n", 0.0),
  ({"id": "x"}, "A deep voice.\n</think>\n<|EOT|>", 0.0),
  ({"id": "x"}, "A deep\n</think>\nvoice.\n</think>\nLow.", 0.0),
  ({"id": "x"}, "A deep voice.\n</think>\n<think>\nLow.", 0.0),
]


def score(example: Mapping[str, Any], text: str) -> float:
  """Reads the reply only."""
  thought, answer = replies.split_reply(text)[0], answers.answer_text(text)
  once = text.count("</think>") == 1
  opened = "<think>" in text.strip().removeprefix("<think>")
  return float(bool(thought and answer) and once and not opened)
