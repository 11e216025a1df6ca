"""How a recipe combines the dimensions of its rewards."""

from collections.abc import Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from stepaudio_jax.core import noise
from stepaudio_jax.rl.parts import veto
from stepaudio_jax.rl.parts.dimensions import CLIP, Combining
from stepaudio_jax.rollout import ensemble
from stepaudio_jax.rollout.drawn import SPREAD

NOISES = ("fixed", "measured")


def check(c: ConfigDict) -> None:
  """Whether what is said of floors and of a veto can act.

  Raises:
    ValueError: it cannot; naming the keys.
  """
  if c.rewards.noise not in NOISES:
    raise ValueError(f"rewards.noise={c.rewards.noise!r}; the choices are {NOISES}")
  if c.rewards.noise == "measured":
    if not _scaled(c):
      raise ValueError(
        f"rewards.noise='measured' with algorithm {c.algorithm.name!r}, which divides "
        "by no spread; grpo, dapo, gspo and cispo do"
      )
    if not any(c.rewards.learned.values()):
      raise ValueError(
        "rewards.noise='measured' is of learned rewards; rewards.learned="
        f"{c.rewards.learned.to_dict()}"
      )
    if len(ensemble.sources(c.reward_model)) > 1:
      raise ValueError(
        f"rewards.noise='measured' with reward_model={c.reward_model!r}: the noise of "
        "one model is kept beside it, that of several nowhere"
      )
  if c.rewards.veto and c.sampling.samples < 2:
    raise ValueError(
      f"rewards.veto={c.rewards.veto.to_dict()} lowers replies to the worst of their "
      f"group, and sampling.samples={c.sampling.samples}"
    )


def combining(
  c: ConfigDict, names: Sequence[str], reward_model: epath.Path | None = None
) -> Combining:
  """Of the recipe's algorithm.

  Args:
    names: of the rewards, in their order.
    reward_model: step folder; its workdir holds the noise of learned rewards, which
      matters where `rewards.noise` is "measured". Other rewards keep
      `algorithm.std_floor`.

  Raises:
    ValueError: a veto of no reward, or a noise that was not measured.
  """
  own = c.algorithm
  floor = own.std_floor if "std_floor" in own else SPREAD
  if c.rewards.noise == "measured":
    learned = [name for name in c.rewards.learned if c.rewards.learned[name]]
    known = _noises(reward_model, learned)
    floor = tuple(known.get(name, floor) for name in names)
  return Combining(
    std_floor=floor,
    normalisation=own.normalisation if "normalisation" in own else "sum",
    clip=own.reward_clip if "reward_clip" in own else CLIP,
    scaled=_scaled(c),
    veto=veto.thresholds(c.rewards.veto, names),
  )


def _noises(step_folder: epath.Path, dimensions: Sequence[str]) -> Mapping[str, float]:
  if not step_folder.name.isdigit():
    raise ValueError(
      f"rewards.noise='measured': {step_folder} is no step of a run; a directory of "
      "another format keeps no measured noise"
    )
  return noise.read(step_folder.parent.parent, int(step_folder.name), dimensions)


def _scaled(c: ConfigDict) -> bool:
  own = c.algorithm
  return "std_floor" in own and ("scale_by_std" not in own or own.scale_by_std)
