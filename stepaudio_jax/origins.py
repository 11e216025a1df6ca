"""What a run starts from: a checkpoint, or a Hugging Face directory as it is.

A directory is read through the import's table straight to the parameters, as float32,
which loses nothing; no copy of it is left anywhere.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from stepaudio_jax import workdirs
from stepaudio_jax.core import files, processes, storage, tree
from stepaudio_jax.core.types import Params
from stepaudio_jax.hf import folder as folders
from stepaudio_jax.hf import plan as plans
from stepaudio_jax.hf import reading
from stepaudio_jax.models import sizes
from stepaudio_jax.models.sizes import Size
from stepaudio_jax.text.tokenizer import Tokenizer
from stepaudio_jax.workdirs import Model, RewardModel

_SOURCES = "sources.json"
# Of a size, what no shape of a parameter depends on.
_UNSEEN = ("norm_eps", "rope_theta", "max_positions")


def pinned(
  workdir: epath.PathLike, origins: dict[str, epath.PathLike]
) -> dict[str, epath.Path]:
  """The step folders that a run reads, the same at every start of the run.

  A folder of another run means its newest step; should that run go on, this one would
  otherwise resume with another reference. The first start writes them down.

  Args:
    origins: {name: a workdir, one of its step folders, or a Hugging Face directory}.
  """
  workdir = epath.Path(workdir)
  path = workdir / _SOURCES
  # Without config.json no run has begun: the file is that of a start that failed.
  begun = path.exists() and (workdir / "config.json").exists()
  if processes.first() and not begun:
    found = {
      name: str(files.absolute(_found(folder))) for name, folder in origins.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.aside(path) as partial:
      partial.write_text(json.dumps(found, indent=1))
  processes.barrier("sources are pinned")
  known = json.loads(path.read_text())
  return {name: epath.Path(known[name]) for name in origins}


def start_size(name: str, init: epath.PathLike, *, whole: bool = False) -> Size:
  """The size that a run trains: the row `name`, with what shapes do not show of `init`.

  Weights go with the rotations and the epsilon that they were trained with, which
  differ between releases of one shape. "init" is `init`'s own size, row or not.

  Args:
    whole: nothing of the model is begun anew, so that all shapes must be `init`'s.

  Raises:
    ValueError: they are not; both sizes are told.
  """
  if name == "init" and init:
    return _size(init)
  row = sizes.size(name)
  if not init:
    return row
  its = _size(init)
  if whole:
    _check_size(row, its, init)
  return dataclasses.replace(row, **{key: getattr(its, key) for key in _UNSEEN})


def _check_size(row: Size, its: Size, init: epath.PathLike) -> None:
  ours, theirs = (dataclasses.asdict(size) for size in (row, its))
  differing = [
    f"{key} {ours[key]} ≠ {theirs[key]}"
    for key in ours
    if key not in ("name", *_UNSEEN) and ours[key] != theirs[key]
  ]
  if differing:
    raise ValueError(
      f"size={row.name!r}, but init={str(init)!r} is of size {its.name!r}: "
      f"{', '.join(differing)}; size='init' takes its own"
    )


def check_writes(key: str, origin: epath.PathLike) -> None:
  """Whether a recipe's `key` names a model that writes replies.

  Raises:
    ValueError: it is a reward model; its dimensions are told.
  """
  its = reward_dimensions(origin) if origin else {}
  if its:
    raise ValueError(
      f"{key}={str(origin)!r} holds a reward model of {its['dimensions']}, which "
      "writes no replies: name a model that does, such as the one it was trained from"
    )


def check_tokenizer(origin: epath.PathLike, tokenizer: Tokenizer) -> None:
  """Raises where what a run starts from was trained with other tokens than its own.

  Raises:
    ValueError: naming some of the tokens.
  """
  theirs = _tokenizer(origin)
  if theirs is None:  # an encoder alone
    return
  ours, its = tokenizer.vocabulary.items(), theirs.vocabulary.items()
  odd = sorted((number, text) for text, number in ours ^ its)
  if odd:
    raise ValueError(
      f"tokenizer={tokenizer.name!r} is not that of {str(origin)!r}: "
      f"{len(theirs.vocabulary)} tokens there, {len(tokenizer.vocabulary)} here; the "
      f"first that differ are {odd[:3]}"
    )


def _tokenizer(origin: epath.PathLike) -> Tokenizer | None:
  if _is_directory(origin):
    return _plan(origin, "float32").tokenizer
  return workdirs.load_tokenizer(origin) if workdirs.has_tokenizer(origin) else None


def load_params(
  origin: epath.PathLike, *, place: Callable[[str, np.ndarray], Any] | None = None
) -> Params:
  """All parameters as float32; `workdirs.load_params`, or those of a directory.

  Raises:
    FileNotFoundError: `origin` is neither a checkpoint nor a directory.
    ValueError: with everything that is wrong with the directory.
  """
  if not _is_directory(origin):
    return workdirs.load_params(origin, place=place)
  place = place or (lambda _, leaf: leaf)
  made = _plan(origin, "float32")
  return tree.nested(
    (path, place(path, leaf.astype(np.float32, copy=False)))
    for path, leaf in reading.leaves(made)
  )


def load_model(origin: epath.PathLike) -> Model:
  """`workdirs.load_model`, or that of a directory, as float32.

  Raises:
    FileNotFoundError: `origin` is neither a checkpoint nor a directory.
    ValueError: there is no whole model, or something is wrong with it.
  """
  if not _is_directory(origin):
    return workdirs.load_model(origin)
  made = _plan(origin, "float32")
  if made.tokenizer is None:
    raise ValueError(f"{origin} holds no whole model: it has no tokenizer")
  return Model(load_params(origin), made.size, made.tokenizer)


def load_reward_model(origin: epath.PathLike) -> RewardModel:
  """`workdirs.load_reward_model`, or that of a directory with heads, as stored.

  Raises:
    FileNotFoundError: `origin` is neither a checkpoint nor a directory.
    ValueError: there is no reward model, or something is wrong with it.
  """
  if not _is_directory(origin):
    return workdirs.load_reward_model(origin)
  made = _plan(origin, "keep")
  if not made.heads or made.tokenizer is None:
    raise ValueError(f"{origin} holds no reward model: it has no heads.safetensors")
  params = tree.nested(reading.leaves(made))
  return workdirs.reward_model(params, made.size, made.tokenizer, made.described)


def reward_dimensions(origin: epath.PathLike) -> dict[str, list[str]]:
  """`workdirs.reward_dimensions`, or those of a directory."""
  if not _is_directory(origin):
    return workdirs.reward_dimensions(origin)
  return _plan(origin, "keep").described


def _found(origin: epath.PathLike) -> epath.Path:
  return epath.Path(origin) if _is_directory(origin) else storage.step_folder(origin)


def _is_directory(origin: epath.PathLike) -> bool:
  """Whether it is a Hugging Face directory; a checkpoint in it would come first.

  Raises:
    FileNotFoundError: it is neither.
  """
  try:
    storage.step_folder(origin)
  except FileNotFoundError as error:
    names = (folders.INDEX, folders.SINGLE)
    if not any((epath.Path(origin) / name).exists() for name in names):
      raise FileNotFoundError(f"{error}, nor is it a Hugging Face model") from error
    return True
  return False


def _size(origin: epath.PathLike) -> Size:
  if not _is_directory(origin):
    return workdirs.load_size(origin)
  return _plan(origin, "float32").size


def _plan(origin: epath.PathLike, dtype: str) -> plans.Plan:
  made = plans.plan([origin], dtype=dtype)
  made.refuse()
  return made
