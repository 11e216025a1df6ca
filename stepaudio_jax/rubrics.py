"""Who judges rubrics in RL: `c.judge`, a checkpoint, a directory or an endpoint."""

from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import origins
from stepaudio_jax.evals.parts import judging
from stepaudio_jax.judges import choice
from stepaudio_jax.rollout.rubric import RubricReader, Terms


def sources(c: ConfigDict) -> dict[str, str]:
  """{"judge": folder} where it is one, to be pinned by origins.pinned."""
  local = c.judge and choice.choice(c.judge).kind == "local"
  return {"judge": c.judge} if local else {}


def terms(c: ConfigDict, pinned: Mapping[str, epath.Path], cache: epath.Path) -> Terms:
  """What `c.rewards.rubric` says, with the judge that it needs.

  Raises:
    ValueError: a weight without a judge, a judge that is none, or a key of no use.
  """
  if c.judge_key and (not c.judge or choice.choice(c.judge).kind != "endpoint"):
    raise ValueError(f"judge_key={c.judge_key!r} is an endpoint's; judge={c.judge!r}")
  weights = {name: c.rewards.rubric[name] for name in ("weight", "learned")}
  if not c.judge:
    return Terms(None, **weights)
  if "judge" in pinned:
    folder = pinned["judge"]
    judge = judging.speaking(origins.load_model(folder), str(folder), cache)
  else:
    judge = judging.judge(c.judge, c.judge_key or None, cache)
  return Terms(RubricReader(judge), **weights)
