"""Who judges in RL: `c.judge`, a checkpoint, a directory or an endpoint.

It reads rubrics, item by item (rollout/rubric.py), and compares replies
(rollout/preference.py).
"""

import functools
from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import origins
from stepaudio_jax.core import levels, seal
from stepaudio_jax.evals.parts import judging
from stepaudio_jax.evals.parts.references import References
from stepaudio_jax.judges import choice, endpoint, worth
from stepaudio_jax.judges.comparing import Comparer
from stepaudio_jax.judges.questions import Judge
from stepaudio_jax.rollout import preference as preferences
from stepaudio_jax.rollout import rubric


def sources(c: ConfigDict) -> dict[str, str]:
  """{"judge": folder} where it is one, to be pinned by origins.pinned."""
  local = c.judge and choice.choice(c.judge).kind == "local"
  return {"judge": c.judge} if local else {}


def judge(
  c: ConfigDict, pinned: Mapping[str, epath.Path], cache: epath.Path
) -> Judge | None:
  """`c.judge`, asked as `c.asking` says; None where it is nobody.

  Raises:
    ValueError: it is none, or a key or setting is of no use to it.
  """
  if c.judge_key and (not c.judge or choice.choice(c.judge).kind != "endpoint"):
    raise ValueError(f"judge_key={c.judge_key!r} is an endpoint's; judge={c.judge!r}")
  settings = judging.Asking(**c.asking)
  if not c.judge:
    settings.check("rule")
    return None
  if "judge" in pinned:
    settings.check("local")
    folder, tokens = pinned["judge"], settings.max_tokens
    return judging.speaking(origins.load_model(folder), str(folder), cache, tokens)
  return judging.judge(c.judge, c.judge_key or None, cache, settings)


def terms(c: ConfigDict, who: Judge | None) -> rubric.Terms:
  """What `c.rewards.rubric` says, with the judge that it needs.

  Raises:
    ValueError: a weight without a judge.
  """
  weights = {name: c.rewards.rubric[name] for name in ("weight", "learned")}
  return rubric.Terms(who and rubric.RubricReader(who), **weights)


def preference(
  c: ConfigDict,
  who: Judge | None,
  pinned: Mapping[str, epath.Path],
  cache: epath.Path,
) -> preferences.Terms:
  """What `c.rewards.preference` says, with judge and reference replies.

  Raises:
    ValueError: a judge that cannot tell its probabilities, a file that holds no φ, or
      a way of asking that comparisons alone have use for.
  """
  settings = preferences.Settings(**c.rewards.preference)
  idle = ["hears"] * (c.asking.hears and not settings.on)
  idle += ["weighs"] * (c.asking.weighs and settings.phi != "expected")
  if idle:
    raise ValueError(
      f"asking.{idle[0]}=True would do nothing with rewards.preference.mode="
      f"{settings.mode!r} and phi={settings.phi!r}: rubrics are read without sound, "
      "and 'expected' alone asks for probabilities"
    )
  if not settings.on:
    return preferences.Terms()
  phi_6 = levels.LINEAR
  if settings.phi == "calibrated":
    phi_6 = worth.load(settings.calibration)
  comparer = Comparer(who, phi_6, expected=settings.phi == "expected")
  folder = pinned["reference"]
  references = References(
    functools.partial(origins.load_model, folder),
    seal.digest(folder) or str(folder),
    c.sampling.max_new_tokens,
    cache,
  )
  reader = preferences.Reader(comparer, settings, references)
  return preferences.Terms(reader, settings.weight, settings.prompts == "all")


def counts(who: Judge | None) -> dict[str, float]:
  """To be logged: what became of an endpoint's questions since this start, and cost."""
  if not isinstance(who, endpoint.Endpoint):
    return {}
  found = {**who.tally._asdict(), "cost": who.cost}
  return {f"judge/{name}": float(value) for name, value in found.items()}
