"""The keys of an ablation's recipe, and what their values may be."""

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax import rl, workdirs
from stepaudio_jax.ablate import arms
from stepaudio_jax.ablate import questions as questions_lib
from stepaudio_jax.ablate.questions import CONTROL, Question
from stepaudio_jax.ablate.saved import normalisations
from stepaudio_jax.core import files, recipe
from stepaudio_jax.rollout import keys as run_keys

_KEYS = (
  *("stage", "base", "overrides", "init", "reward_model", "prompts", "cache"),
  *("total_steps", "questions", "seeds", "parallel", "devices", "device_variable"),
  *("world.data", "world.limit", "world.batch_size", "world.max_new_tokens"),
  *("offline.runs", "offline.questions", "offline.draws", "offline.blocks"),
  "offline.gradient_steps",
)
# What may change between two starts in one folder: more questions, more seeds.
FREE = ("questions", "seeds", "parallel", "devices", "device_variable", "offline.")


def checked(c: ConfigDict, workdir: epath.Path) -> ConfigDict:
  """The config, if every key is one that is read and none is missing.

  Every run's own config is made and checked, too: nothing is found out after hours.

  Raises:
    ValueError: naming the keys or values that are wrong, and the choices.
  """
  if c.get("stage") != "ablate":
    raise ValueError(f"a recipe of the stage {c.get('stage')!r} is no ablation's")
  recipe.check_keys(c, _KEYS, free=("weights.",))
  if files.is_remote(workdir):
    raise ValueError(f"workdir={workdir}: processes and their logs want a local disk")
  recipe.check_counts(c, ("world.batch_size", "world.max_new_tokens"))
  recipe.check_counts(c, ("offline.draws",))
  least = {"offline.blocks": 2, "offline.gradient_steps": 0, "parallel": 0}
  flat = recipe.flat(c)
  low = [
    f"{key}={flat[key]} (at least {n})" for key, n in least.items() if flat[key] < n
  ]
  low += [
    f"{k}={flat[k]} (0: all)" for k in ("total_steps", "world.limit") if flat[k] < 0
  ]
  if low:
    raise ValueError("; ".join(low))
  _check_what_is_asked(c)
  for name in ("questions", "offline.questions"):
    questions_lib.check_names(name, flat[name])
  trained(c, workdir)
  offline(c)
  return c


def _check_what_is_asked(c: ConfigDict) -> None:
  if not c.questions and not c.offline.questions:
    raise ValueError("questions=() and offline.questions=(): nothing is asked")
  if c.questions and (not c.seeds or len({*c.seeds}) < len(c.seeds)):
    raise ValueError(f"seeds={c.seeds}: training wants some, each once")
  if not c.questions and not c.offline.runs:
    raise ValueError("offline.runs=() without questions: there is no run to read")
  if c.devices and c.parallel:
    raise ValueError(
      f"parallel={c.parallel} with devices={c.devices}: each device has one run"
    )


def check_folders(c: ConfigDict) -> None:
  """Whether what every run reads is there.

  Raises:
    ValueError: naming all that is not.
  """
  named = {"init": c.init, "world.data": c.world.data}
  lacking = [
    f"{key}={path}"
    for key, path in named.items()
    if path and not epath.Path(path).exists()
  ]
  if lacking:
    raise ValueError(f"there is no {' and no '.join(lacking)}")


def trained(c: ConfigDict, workdir: epath.Path) -> list[Question]:
  """The control and the questions that runs are made for; [] if there are none.

  Raises:
    ValueError: a question or a run's config that cannot be.
  """
  if not c.questions:
    return []
  run = arms.base(c, workdir)
  known = normalisations(rl.load(run.algorithm.name))
  weights = c.weights.to_dict()
  found = [
    questions_lib.question(name, weights, known) for name in (CONTROL, *c.questions)
  ]
  for arm in arms.arms(c, workdir, found)[: len(found)]:  # other seeds are alike
    run_keys.checked(arms.config(c, arm))
  first = c.reward_model.partition(",")[0]  # of an ensemble, whose members are alike
  has = workdirs.reward_dimensions(first).get("dimensions", [])
  unknown = sorted({*weights} - {*has})
  if unknown:
    raise ValueError(f"unknown reward dimensions {unknown}; {c.reward_model} has {has}")
  return found


def offline(c: ConfigDict) -> list[Question]:
  """The control and the questions asked of saved replies; [] if there are none."""
  if not c.offline.questions:
    return []
  names, weights = (CONTROL, *c.offline.questions), c.weights.to_dict()
  return [questions_lib.question(name, weights, ("sum", "gdpo")) for name in names]
