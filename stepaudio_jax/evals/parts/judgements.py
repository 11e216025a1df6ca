"""What benchmarks with a judge share."""

from collections.abc import Sequence

from stepaudio_jax.evals.parts import shipped

# Where the rows of a release are: its own name for them first.
FILES = ("metadata.jsonl", *shipped.PARQUET, "*.jsonl", "*.json")


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
