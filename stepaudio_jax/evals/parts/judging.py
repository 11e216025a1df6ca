"""Who judges the replies of which benchmark."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from etils import epath

from stepaudio_jax import workdirs
from stepaudio_jax.core import seal, storage
from stepaudio_jax.evals.parts import suite
from stepaudio_jax.evals.parts.speaker import Speaker
from stepaudio_jax.judges import choice, endpoint, local
from stepaudio_jax.judges.questions import Judge

LOCAL = {"temperature": 0.0, "max_new_tokens": 4096, "batch_size": 16}


def check(
  modules: Mapping[str, ModuleType], asked: str | None, key_variable: str | None
) -> None:
  """Whether the judge and the key are of any use; the arguments are those of `judges`.

  Raises:
    ValueError: a judge whom no benchmark asks, or a key that nobody wants.
  """
  kind = asked and choice.choice(asked).kind
  if key_variable is not None and kind != "endpoint":
    raise ValueError(f"judge_key={key_variable!r} is an endpoint's; judge={asked!r}")
  if kind in (None, choice.RULE):
    return
  if not any("judge" in module.JUDGES for module in modules.values()):
    raise ValueError(f"judge={asked!r} has nothing to do: all is scored by rule")


def judges(
  modules: Mapping[str, ModuleType],
  asked: str | None,
  key_variable: str | None,
  cache: epath.Path,
) -> dict[str, Judge | None]:
  """By the name of each benchmark its judge; None is its rule.

  Args:
    modules: benchmarks with JUDGES.
    asked: as people write it (judges/choice.py); None is each one's first.
    key_variable: of the environment, with the endpoint's key.

  Raises:
    ValueError: a benchmark needs a judge and none is named, or can use none.
  """
  kind = asked and choice.choice(asked).kind
  nobody = kind in (None, choice.RULE)
  one = None if nobody else judge(asked, key_variable, cache)
  found = {}
  for name, module in modules.items():
    wants_rule = asked is None and module.JUDGES[0] == choice.RULE
    found[name] = None if wants_rule or "judge" not in module.JUDGES else one
    suite.check_judge(module, found[name])
  return found


def judge(asked: str, key_variable: str | None, cache: epath.Path) -> Judge:
  """A checkpoint or an endpoint, as people write it (judges/choice.py).

  Raises:
    ValueError: it is neither.
  """
  chosen = choice.choice(asked)
  if chosen.kind == "endpoint":
    settings = endpoint.Settings(key_variable=key_variable)
    return endpoint.Endpoint(chosen.place, chosen.model, settings)
  if chosen.kind == "rule":
    raise ValueError(f"judge {asked!r}: a checkpoint or an endpoint is wanted")
  step_folder = storage.step_folder(chosen.place)
  described = {"step": int(step_folder.name), "seal": seal.digest(step_folder)}
  return speaking(workdirs.load_model(step_folder), chosen.place, cache, **described)


def speaking(
  model: workdirs.Model, name: str, cache: epath.Path, **known: Any
) -> local.WeighingJudge:
  """A model in this process as judge, which hears; `name` and `known` describe it."""
  speaker = Speaker(model, cache)
  # A small model needs room for the question too.
  half = model.size.max_positions // 2
  drawn = {**LOCAL, "max_new_tokens": min(LOCAL["max_new_tokens"], half)}
  options = suite.Options(**drawn)
  described = {"model": str(name), **known, **drawn}
  return local.WeighingJudge(
    lambda asked: speaker.say(asked, options),
    lambda asked: speaker.weigh(asked, options),
    described,
  )
