"""The automaton of thoughts against the text of all tokens so far."""

import numpy as np
import pytest

from stepaudio_jax.text import thoughts, tokenizer


@pytest.fixture(scope="module")
def tiny():
  return tokenizer.load("tiny")


def states(found, ids):
  state, out = 0, []
  for i in ids:
    state = int(found.after_SV[state, i])
    out.append(state)
  return out


def slow_state(text):
  """Closed, or how much of the mark the text ends with."""
  mark = "</think>"
  if mark in text:
    return thoughts.CLOSED
  return max(n for n in range(len(mark)) if text.endswith(mark[:n]))


@pytest.mark.parametrize(
  "text",
  [
    "I hear it.\n</think>\nHigh.",
    "a < b </ <</think>",
    "</thin</think> and more </think>",
    "</thinkk> never",
    "<</t<</think",
    "né</think>ü",
    "",
  ],
)
def test_states_are_those_of_the_text_so_far(tiny, text):
  """However it is cut into tokens: as the tokenizer does, and by the character."""
  found = thoughts.thoughts(tiny, 1024)
  by_character = [i for c in text for i in tiny.encode(c)]
  for ids in (tiny.encode(text), by_character):
    want = [slow_state(tiny.decode(ids[: k + 1])) for k in range(len(ids))]
    assert states(found, ids) == want


def test_random_pieces_of_the_mark(tiny):
  found = thoughts.thoughts(tiny, 1024)
  pieces = ["<", "</", "think", ">", ">\n", "th", "ink", "/", "t", "x"]
  rng = np.random.default_rng(0)
  closed = 0
  for _ in range(200):
    ids = [i for k in rng.integers(0, len(pieces), 12) for i in tiny.encode(pieces[k])]
    want = [slow_state(tiny.decode(ids[: k + 1])) for k in range(len(ids))]
    assert states(found, ids) == want
    closed += want[-1] == thoughts.CLOSED
  assert 0 < closed < 200


def test_special_tokens_and_ids_without_text_change_nothing(tiny):
  """As in decoded text, where they leave no trace."""
  found = thoughts.thoughts(tiny, 1030)
  for i in (tiny.special.eot, tiny.special.audio_patch, 1029):
    np.testing.assert_array_equal(found.after_SV[:, i], np.arange(thoughts.CLOSED + 1))


def test_the_closing_tokens_close(tiny):
  found = thoughts.thoughts(tiny, 1024)
  assert tiny.decode(found.closing_ids) == "\n</think>\n"
  assert states(found, found.closing_ids)[-1] == thoughts.CLOSED
