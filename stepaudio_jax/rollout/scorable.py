"""Which prompts a recipe's rewards can score: known before anything is computed."""

from collections.abc import Callable, Mapping

from stepaudio_jax import rewards
from stepaudio_jax.data.schema import Dialogue
from stepaudio_jax.judges import rubric as rubrics
from stepaudio_jax.rollout.scorer import STREAMS


def unfit(
  rules: Mapping[str, Mapping[str, float]],
  *,
  rubric: bool = False,
) -> Callable[[Dialogue], str | None]:
  """Dialogue → why its prompt cannot be scored, None where it can.

  Args:
    rules: {stream: {file of rewards/: weight}}.
    rubric: whether somebody reads the prompts' rubrics.
  """
  of = {
    stream: {name: rewards.load(name) for name in rules.get(stream, {})}
    for stream in STREAMS
  }

  def why(dialogue: Dialogue) -> str | None:
    row, stream = dialogue.row, STREAMS[0 if dialogue.audio else 1]
    for name, rule in of[stream].items():
      for key in getattr(rule, "NEEDS", ()):
        if row.get(key) is None:
          return f"no {key!r}, which the reward {name!r} needs"
      try:
        getattr(rule, "check", lambda row: None)(row)
      except ValueError as error:
        return str(error)
    try:
      if rubric and row.get("rubric"):
        rubrics.highest(row)
    except ValueError as error:
      return str(error)
    return None

  return why
