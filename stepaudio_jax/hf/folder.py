"""A Hugging Face directory as it lies on disk: config, index, where each tensor is.

Directories come from strangers. A name in the index is a plain file name inside the
folder or a problem, links may not lead out of it, and only .safetensors are opened.
"""

import dataclasses
import json
import pathlib
import stat
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
  """What was found, and everything that is wrong with it."""

  path: epath.Path
  config: dict[str, Any]
  tensors: dict[str, Stored]
  problems: list[str]


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
  return Folder(folder, config, _located(folder, problems), problems)


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


def _located(folder: epath.Path, problems: list[str]) -> dict[str, Stored]:
  """Every tensor of the index; without an index, those of the only file."""
  if (folder / INDEX).exists():
    where = json_of(folder, INDEX, problems).get("weight_map")
    if not isinstance(where, dict) or not all(
      isinstance(name, str) for name in where.values()
    ):
      problems.append(f"{INDEX} has no weight_map from keys to file names")
      return {}
    headers = _headers(folder, sorted(set(where.values())), problems)
    return _indexed(where, headers, problems)
  if (folder / SINGLE).exists():
    return _headers(folder, [SINGLE], problems).get(SINGLE, {})
  others = sorted(
    p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth")
  )
  note = f"; {others} are pickles, which are never opened" if others else ""
  problems.append(f"there is neither {INDEX} nor {SINGLE}{note}")
  return {}


def _headers(
  folder: epath.Path, names: list[str], problems: list[str]
) -> dict[str, dict[str, Stored]]:
  found = {}
  for name in names:
    wrong = refusal(folder, name)
    if not wrong and not name.endswith(".safetensors"):
      wrong = f"{name} is no .safetensors file; others are never opened"
    if wrong:
      problems.append(wrong)
      continue
    found[name], new = safe.header(folder / name)
    problems += new
  return found


def _indexed(
  where: dict[str, str],
  headers: dict[str, dict[str, Stored]],
  problems: list[str],
) -> dict[str, Stored]:
  tensors = {}
  for key, name in where.items():
    if key in headers.get(name, {}):
      tensors[key] = headers[name][key]
    elif name in headers:
      problems.append(f"{name} has no usable tensor {key!r}, which {INDEX} puts there")
  for name, found in headers.items():
    stray = [key for key in found if where.get(key) != name]
    problems += [f"{name} has a tensor {key!r} that {INDEX} does not" for key in stray]
  return tensors
