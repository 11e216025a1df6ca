"""Who judges the replies of which benchmark."""

import dataclasses
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
_SAID = "judgements"  # of a cache, where what endpoints said is kept


@dataclasses.dataclass(frozen=True)
class Asking:
  """How a judge is asked; see judges.endpoint.Settings.

  A checkpoint has `max_tokens` alone; it always hears. Nobody has nothing.
  """

  max_tokens: int = LOCAL["max_new_tokens"]
  concurrency: int = 8
  timeout_s: float = 300.0
  hears: bool = False
  weighs: bool = False
  prompt_price: float = 0.0
  completion_price: float = 0.0

  def check(self, kind: str) -> None:
    """Whether all of it acts on a judge of this kind (judges.choice.Choice).

    Raises:
      ValueError: naming what would do nothing.
    """
    acts = {"endpoint": None, "local": ("max_tokens",), "rule": ()}[kind]
    blank = Asking()
    idle = [
      f"{field.name}={getattr(self, field.name)!r}"
      for field in dataclasses.fields(self)
      if acts is not None
      and field.name not in acts
      and getattr(self, field.name) != getattr(blank, field.name)
    ]
    if idle:
      who = {"local": "a checkpoint as judge", "rule": "no judge"}[kind]
      raise ValueError(f"asking: {', '.join(idle)} would do nothing with {who}")


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


def judge(
  asked: str,
  key_variable: str | None,
  cache: epath.Path,
  how: Asking | None = None,
) -> Judge:
  """A checkpoint or an endpoint, as people write it (judges/choice.py).

  Args:
    cache: of encoder frames; what an endpoint says is kept there too.

  Raises:
    ValueError: it is neither, or cannot be asked so.
  """
  chosen, how = choice.choice(asked), how or Asking()
  how.check(chosen.kind)
  if chosen.kind == "endpoint":
    known = dataclasses.asdict(how)
    settings = endpoint.Settings(key_variable=key_variable, **known)
    kept = epath.Path(cache) / _SAID
    return endpoint.Endpoint(chosen.place, chosen.model, settings, kept)
  if chosen.kind == "rule":
    raise ValueError(f"judge {asked!r}: a checkpoint or an endpoint is wanted")
  step_folder = storage.step_folder(chosen.place)
  described = {"step": int(step_folder.name), "seal": seal.digest(step_folder)}
  return speaking(
    workdirs.load_model(step_folder), chosen.place, cache, how.max_tokens, **described
  )


def speaking(
  model: workdirs.Model,
  name: str,
  cache: epath.Path,
  max_tokens: int | None = None,
  **known: Any,
) -> local.WeighingJudge:
  """A model in this process as judge, which hears; `name` and `known` describe it.

  Args:
    max_tokens: of a reply, and at most half of the model's positions: a small model
      needs room for the question too.
  """
  speaker = Speaker(model, cache)
  most = LOCAL["max_new_tokens"] if max_tokens is None else max_tokens
  half = model.size.max_positions // 2
  drawn = {**LOCAL, "max_new_tokens": min(most, half)}
  options = suite.Options(**drawn)
  described = {"model": str(name), **known, **drawn}
  return local.WeighingJudge(
    lambda asked: speaker.say(asked, options),
    lambda asked: speaker.weigh(asked, options),
    described,
  )
