"""Where a thought ends in a stream of tokens, and the tokens that end one.

"</think>" is no token: pieces spell it in many ways ("</", "think", ">\\n"). So the end
is found as text, by an automaton that reads one token at a time and counts how many
characters of the mark have been read.
"""

import dataclasses
import functools

import numpy as np

from stepaudio_jax.core.replies import THOUGHT_END
from stepaudio_jax.text.tokenizer import Tokenizer

CLOSING = f"\n{THOUGHT_END}\n"  # as chat.py renders it between a thought and its answer
CLOSED = len(THOUGHT_END)  # the automaton's last state


@dataclasses.dataclass(frozen=True, eq=False)
class Thoughts:
  """What a sampler needs to see and to close thoughts.

  Attributes:
    closing_ids: tokens of `CLOSING`.
    after_SV: int8 [CLOSED + 1, V]: the state after a token, by the state before it. A
      thought starts with 0 and is over in the state `CLOSED`, which is never left.
  """

  closing_ids: tuple[int, ...]
  after_SV: np.ndarray


def closing_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
  return tuple(tokenizer.encode(CLOSING))


@functools.lru_cache(maxsize=4)
def thoughts(tokenizer: Tokenizer, vocabulary: int) -> Thoughts:
  """Of a tokenizer, for a model with so many ids (those beyond it have no text).

  What decodes to no text, as special tokens do, changes no state: the state is that of
  `tokenizer.decode` of all tokens so far.
  """
  # UTF-8 has no byte of this mark inside another character, a broken one included.
  texts = [tokenizer.decode([i]).encode() for i in range(vocabulary)]
  return Thoughts(closing_ids(tokenizer), _after(texts))


def _after(texts: list[bytes]) -> np.ndarray:
  """States after texts: all of them read side by side, a byte at a time."""
  length_V = np.asarray([len(text) for text in texts])
  nothing = 256  # stands behind a text's end
  byte_VX = np.full((len(texts), length_V.max(initial=0)), nothing)
  for row, text in enumerate(texts):
    byte_VX[row, : len(text)] = np.frombuffer(text, np.uint8)
  step_SX = _automaton(nothing)
  state_SV = np.repeat(np.arange(CLOSED + 1)[:, None], len(texts), axis=1)
  for byte_V in byte_VX.T:
    state_SV = step_SX[state_SV, byte_V]
  return state_SV.astype(np.int8)


def _automaton(nothing: int) -> np.ndarray:
  """[CLOSED + 1, 257]: the state after a byte; `nothing` is no byte."""
  mark = THOUGHT_END.encode()
  step_SX = np.zeros((CLOSED + 1, nothing + 1), np.int64)
  for state in range(CLOSED):
    for byte in range(nothing):
      read = mark[:state] + bytes([byte])
      # The longest end of what was read that begins the mark.
      fits = (n for n in range(state + 1, 0, -1) if read.endswith(mark[:n]))
      step_SX[state, byte] = next(fits, 0)
  step_SX[CLOSED] = CLOSED
  step_SX[:, nothing] = np.arange(CLOSED + 1)
  return step_SX
