"""A Hugging Face directory as it lies on disk: config, index, where each tensor is.

Directories come from strangers. A name in the index is a plain file name inside the
folder or a problem, links may not lead out of it, and only .safetensors are opened.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import stat
from collections.abc import Callable
from typing import Any

from etils import epath

from stepaudio_jax.core import files
from stepaudio_jax.core.disk import Stored
from stepaudio_jax.hf import safe

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_CONFIGS = ("config.json", "config_origin.json")
_MAX_JSON_BYTES = 100_000_000


@dataclasses.dataclass(frozen=True)
class Folder:
  """What was found, and everything that is wrong with it.

  Attributes:
    told: whether the problems say already why there is no tensor of a key.
  """

  path: epath.Path
  config: dict[str, Any]
  tensors: dict[str, Stored]
  problems: list[str]
  told: Callable[[str], bool]


def opened(path: str | epath.PathLike) -> Folder:
  """Reads config, index and headers; no tensor.

  Raises:
    FileNotFoundError: there is no such folder.
  """
  folder, problems = epath.Path(path), []
  if not folder.is_dir():
    raise FileNotFoundError(f"there is no folder {folder}")
  name = next((name for name in _CONFIGS if (folder / name).exists()), _CONFIGS[0])
  config = json_of(folder, name, problems)
  tensors, told = _located(folder, problems)
  return Folder(folder, config, tensors, problems, told)


def json_of(folder: epath.Path, name: str, problems: list[str]) -> dict[str, Any]:
  """The object in a file; {} with a problem noted where there is none."""
  wrong = refusal(folder, name)
  if not wrong and (folder / name).stat().length > _MAX_JSON_BYTES:
    wrong = f"{name} is larger than {_MAX_JSON_BYTES} bytes"
  if not wrong:
    try:
      found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
      found, wrong = None, f"{name} is no JSON: {error}"
    if not wrong and not isinstance(found, dict):
      wrong = f"{name} is no JSON object"
  if wrong:
    problems.append(wrong)
    return {}
  return found


def refusal(folder: epath.Path, name: str) -> str:
  """Why the file of that name may not be opened; "" if it may."""
  if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
    return f"{name!r} is no plain file name; files lie in the folder itself"
  path = folder / name
  if not path.exists():
    return f"{name} is not there"
  if files.is_remote(folder):  # object stores have no links
    return ""
  real = pathlib.Path(path).resolve()
  if not stat.S_ISREG(real.stat().st_mode):
    return f"{name} is no file"
  if real.parent not in _homes(pathlib.Path(folder)):
    return f"{name} is a link out of the folder, to {real}"
  return ""


def _homes(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The folder; for a snapshot in the hub's cache also the blobs that it links to."""
  folder = folder.resolve()
  if folder.parent.name == "snapshots":
    return folder, folder.parent.parent / "blobs"
  return (folder,)


def _located(
  folder: epath.Path, problems: list[str]
) -> tuple[dict[str, Stored], Callable[[str], bool]]:
  """(every tensor of the index, `Folder.told`); without an index, of the only file."""
  if (folder / INDEX).exists():
    where = json_of(folder, INDEX, problems).get("weight_map")
    if not isinstance(where, dict) or not all(
      isinstance(name, str) for name in where.values()
    ):
      if not any(problem.startswith(INDEX) for problem in problems):
        problems.append(f"{INDEX} has no weight_map from keys to file names")
      return {}, lambda _: True
    return _indexed(folder, where, problems)
  if (folder / SINGLE).exists():
    tensors, new = _header(folder, SINGLE)
    problems += new
    return tensors, functools.partial(_among, problems=new)
  others = sorted(
    p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth")
  )
  note = f"; {others} are pickles, which are never opened" if others else ""
  parts = sum(path.suffix == ".safetensors" for path in folder.iterdir())
  note += f"; only an index tells what {parts} .safetensors files hold" if parts else ""
  problems.append(f"there is neither {INDEX} nor {SINGLE}{note}")
  return {}, lambda _: True


def _header(folder: epath.Path, name: str) -> tuple[dict[str, Stored], list[str]]:
  """(tensors, problems) of a file."""
  wrong = refusal(folder, name)
  if not wrong and not name.endswith(".safetensors"):
    wrong = f"{name} is no .safetensors file; others are never opened"
  return ({}, [wrong]) if wrong else safe.header(folder / name)


def _indexed(
  folder: epath.Path, where: dict[str, str], problems: list[str]
) -> tuple[dict[str, Stored], Callable[[str], bool]]:
  """What is wrong with a file is told once, with how many tensors depend on it."""
  tensors, wrong, keys = {}, {}, collections.defaultdict(list)
  for key, name in where.items():
    keys[name].append(key)
  for name in sorted(keys):
    found, new = _header(folder, name)
    lost = [key for key in keys[name] if key not in found]
    if new and not found:
      new = [f"{problem} ({len(lost)} tensors depend on it)" for problem in new]
    new += [
      f"{name} has no usable tensor {key!r}, which {INDEX} puts there"
      for key in lost
      if not _among(key, new)
    ]
    stray = [key for key in found if where.get(key) != name]
    new += [f"{name} has a tensor {key!r} that {INDEX} does not" for key in stray]
    tensors |= {key: found[key] for key in keys[name] if key in found}
    problems += new
    wrong[name] = new
  return tensors, lambda key: _among(key, wrong.get(where.get(key), []))


def _among(key: str, problems: list[str]) -> bool:
  """Whether one of a file's problems tells why it has no such tensor."""
  whole = (" depend on it)", "a header", "the header", ": truncated: ")
  return any(repr(key) in each or any(map(each.count, whole)) for each in problems)
