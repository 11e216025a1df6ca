"""What every format is read as before it becomes rows."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rating:
  """What one rater said of two replies, in the order of the replies.

  Attributes:
    overall: −3…+3, negative where the first is better; so are `dims`.
    scores: of each reply, 1…5; empty where nobody scored.
  """

  rater: str
  overall: int
  dims: dict[str, int | None] = dataclasses.field(default_factory=dict)
  scores: tuple[dict[str, int], dict[str, int]] = ({}, {})


@dataclasses.dataclass(frozen=True)
class Compared:
  """Two replies to one context.

  Attributes:
    at: the place in the source.
    folder: relative paths start here.
    shown: whether the source's order is that in which raters saw the replies.
  """

  at: str
  folder: str
  context: list[dict[str, Any]]
  replies: tuple[str, str]
  ratings: tuple[Rating, ...]
  shown: bool = False


@dataclasses.dataclass(frozen=True)
class LeftOut:
  """A part of the source that makes no comparison.

  Attributes:
    kind: the reason in a word or two, for counting.
    why: in full.
  """

  at: str
  kind: str
  why: str


def unusable(at: str, replies: tuple[str, str]) -> LeftOut | None:
  """Why two replies cannot be compared; None where they can."""
  if not all(reply.strip() for reply in replies):
    return LeftOut(at, "empty", "one of the replies is empty")
  if replies[0].strip() == replies[1].strip():
    return LeftOut(at, "equal", f"both replies are {replies[0]!r:.60}")
  return None
