"""Replies cut into thought and answer."""

import pytest

from stepaudio_jax.core import replies


@pytest.mark.parametrize(
  ("text", "thinking", "expected"),
  [
    ("low pitch\n</think>\nLow.", True, ("low pitch", "Low.")),
    ("<think>\nlow pitch\n</think>\nLow.", True, ("low pitch", "Low.")),
    ("a</think>b</think>c", True, ("a</think>b", "c")),
    ("\n</think>\nLow.", True, ("", "Low.")),
    ("low\n</think>\n", True, ("low", "")),
    ("it goes on and on", True, ("it goes on and on", None)),
    ("<think>\nit goes", True, ("it goes", None)),
    ("", True, ("", None)),
    ("Low.\n", False, ("", "Low.")),
    ("hm</think>Low.", False, ("hm", "Low.")),
  ],
)
def test_split_reply(text, thinking, expected):
  assert replies.split_reply(text, thinking) == expected
