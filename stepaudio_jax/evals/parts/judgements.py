"""What benchmarks with a judge share."""

from collections.abc import Sequence

# Names of the file with the rows, where a release is a folder of these and of audio.
FILES = ("metadata.jsonl", "*.jsonl", "*.json")


def given(answer: str | None) -> bool:
  """Whether there is an answer to judge: a thought that closed, and text behind it."""
  return answer is not None and bool(answer.strip())


def only(verdicts: Sequence[str | None] | None) -> str | None:
  """The raw reply to an item's one question; None where none was asked or none came.

  Raises:
    ValueError: there are several.
  """
  if not verdicts:
    return None
  (verdict,) = verdicts
  return verdict
