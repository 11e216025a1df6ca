"""What a run's folder holds for use: a model or a reward model, size and tokenizer."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax.core import storage, tree
from stepaudio_jax.core.types import Params
from stepaudio_jax.models.mixture import NAME as MIXTURE
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.models.step_audio import PARTS
from stepaudio_jax.text import tokenizer as tokenizers
from stepaudio_jax.text.tokenizer import Tokenizer

REWARD_PARTS = (*PARTS, "rewards")
_MODEL = "model.json"
_TOKENIZER = "tokenizer"
_REWARDS = "reward_model.json"


def load_params(
  folder: epath.PathLike,
  *,
  keep_dtype: bool = False,
  place: Callable[[str, np.ndarray], Any] | None = None,
) -> Params:
  """All parameters, trained and frozen, of a workdir's newest step, on the host.

  Args:
    keep_dtype: as they are stored; otherwise as the float32 that training needs.
    place: (path, host array) → what is kept of it, called as each is read; see
      sharding.placer.
  """
  read = storage.Leaves(folder).read(keep_dtype=keep_dtype)
  if place is None:
    return tree.nested(read)
  return tree.nested((path, place(path, leaf)) for path, leaf in read)


@dataclasses.dataclass(frozen=True)
class Model:
  """What a checkpoint holds for use: parameters (host arrays), size, tokenizer."""

  params: Params
  size: Size
  tokenizer: Tokenizer


def describe(workdir: epath.PathLike, size: Size, tokenizer: Tokenizer | None) -> None:
  """Writes model.json and the tokenizer beside the checkpoints, for `load_model`.

  An encoder alone has no tokenizer.
  """
  workdir = epath.Path(workdir)
  text = json.dumps(dataclasses.asdict(size), indent=1)
  (workdir / _MODEL).write_text(text)
  if tokenizer is not None:
    tokenizer.save(workdir / _TOKENIZER)


@dataclasses.dataclass(frozen=True)
class RewardModel:
  """A backbone with heads, `params["rewards"]`, that score replies.

  Attributes:
    params: host arrays.
    dimensions: names, in the order of the heads; "mixture" behind them where there is
      `params["mixture"]`.
    dims_on_thought: those that read the turn with its thought.
    others: parameters of an ensemble's other members, without encoder.
  """

  params: Params
  size: Size
  tokenizer: Tokenizer
  dimensions: tuple[str, ...]
  dims_on_thought: tuple[str, ...]
  others: tuple[Params, ...] = ()

  @property
  def on_thought(self) -> tuple[bool, ...]:
    """Of each dimension, as scoring.rewards takes it."""
    return tuple(name in self.dims_on_thought for name in self.dimensions)


def describe_rewards(
  workdir: epath.PathLike, dimensions: Sequence[str], dims_on_thought: Sequence[str]
) -> None:
  """Writes reward_model.json beside `describe`'s files, for `load_reward_model`."""
  row = {"dimensions": [*dimensions], "dims_on_thought": [*dims_on_thought]}
  (epath.Path(workdir) / _REWARDS).write_text(json.dumps(row, indent=1))


def load_reward_model(folder: epath.PathLike) -> RewardModel:
  """A reward model from a run's workdir (newest step) or one of its step folders.

  Raises:
    FileNotFoundError: no checkpoint is there.
    ValueError: the checkpoint holds no reward model.
  """
  params, row = load_params(folder, keep_dtype=True), reward_dimensions(folder)
  lacking = [part for part in REWARD_PARTS if part not in params]
  if lacking or not row:
    raise ValueError(
      f"{folder} holds no reward model: parameters {sorted(params)}, lacking {lacking}"
      f"; {_REWARDS} is {'there' if row else 'absent'}"
    )
  return reward_model(params, load_size(folder), load_tokenizer(folder), row)


def reward_model(
  params: Params, size: Size, tokenizer: Tokenizer, described: dict[str, list[str]]
) -> RewardModel:
  """Of a checkpoint's parameters and what `reward_dimensions` says."""
  parts = tuple(part for part in (*REWARD_PARTS, MIXTURE) if part in params)
  return RewardModel(
    {part: params[part] for part in parts},
    size,
    tokenizer,
    (*described["dimensions"], *parts[len(REWARD_PARTS) :]),
    tuple(described["dims_on_thought"]),
  )


def members(folders: epath.PathLike) -> list[str]:
  """The folders of "runs/rm-0,runs/rm-1": an ensemble of reward models, or one.

  Raises:
    ValueError: one is named twice, or not at all.
  """
  found = [text.strip() for text in str(folders).split(",")]
  if not all(found) or len(set(found)) < len(found):
    raise ValueError(f"reward models {str(folders)!r}: folders, each named once")
  return found


def check_alike(first: RewardModel, other: RewardModel, names: Sequence[str]) -> None:
  """Whether two reward models can be members of one ensemble.

  Args:
    first, other: encoders are compared where both have theirs in `params`.
    names: of both, for the error.

  Raises:
    ValueError: their dimensions, encoders or tokenizers differ.
  """
  said = {
    "dimensions": lambda model: (model.dimensions, model.dims_on_thought),
    "encoder": lambda model: tree.content_hash(model.params["encoder"]),
    "tokens": lambda model: model.tokenizer.vocabulary_size,
  }
  if any("encoder" not in model.params for model in (first, other)):
    del said["encoder"]
  differing = {
    what: [of(model) for model in (first, other)]
    for what, of in said.items()
    if of(first) != of(other)
  }
  if first.tokenizer.vocabulary != other.tokenizer.vocabulary:
    differing.setdefault("tokens", ["some", "others"])
  if differing:
    raise ValueError(
      f"{names[1]} cannot be in an ensemble with {names[0]}: "
      + "; ".join(f"{what} {a} ≠ {b}" for what, (a, b) in differing.items())
    )


def load_ensemble(folders: Sequence[epath.PathLike]) -> RewardModel:
  """Several reward models of one size as one, whose `others` are all but the first.

  Raises:
    FileNotFoundError, ValueError: see `load_reward_model`; or they are not alike.
  """
  first, others = load_reward_model(folders[0]), []
  for folder in folders[1:]:
    model = load_reward_model(folder)
    names = (str(folders[0]), str(folder))
    check_alike(first, model, names)
    if dataclasses.asdict(model.size) != dataclasses.asdict(first.size):
      raise ValueError(f"{names[1]} is of another size than {names[0]}: {model.size}")
    del model.params["encoder"]
    others.append(model.params)
  return dataclasses.replace(first, others=tuple(others))


def reward_dimensions(folder: epath.PathLike) -> dict[str, list[str]]:
  """{"dimensions", "dims_on_thought"} of a reward model; {} of another."""
  described = _workdir(folder) / _REWARDS
  return json.loads(described.read_text()) if described.exists() else {}


def has_tokenizer(folder: epath.PathLike) -> bool:
  """An encoder alone has none."""
  return (_workdir(folder) / _TOKENIZER).exists()


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
  """The tokenizer of a workdir's model."""
  return tokenizers.load(_workdir(folder) / _TOKENIZER)


def load_size(folder: epath.PathLike) -> Size:
  """The size of a workdir's model."""
  return Size(**json.loads((_workdir(folder) / _MODEL).read_text()))


def load_model(folder: epath.PathLike) -> Model:
  """A model from a run's workdir (newest step) or one of its step folders.

  Raises:
    FileNotFoundError: no checkpoint is there.
    ValueError: the checkpoint is of a stage that trains no whole model, or it is a
      reward model, whose decoder has forgotten how to write.
  """
  params = load_params(folder, keep_dtype=True)
  if (_workdir(folder) / _REWARDS).exists():
    raise ValueError(f"{folder} holds a reward model, which writes no replies")
  lacking = [part for part in PARTS if part not in params]
  if lacking:
    raise ValueError(f"{folder} holds {sorted(params)} and lacks {lacking}")
  return Model(
    {part: params[part] for part in PARTS},
    load_size(folder),
    load_tokenizer(folder),
  )


def _workdir(folder: epath.PathLike) -> epath.Path:
  return storage.step_folder(folder).parent.parent
