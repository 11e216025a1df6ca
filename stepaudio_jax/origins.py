"""What a run starts from: other runs' parameters and their size."""

import dataclasses
import json

from etils import epath

from stepaudio_jax import workdirs
from stepaudio_jax.core import files, storage
from stepaudio_jax.models import sizes
from stepaudio_jax.models.sizes import Size

_SOURCES = "sources.json"
# Of a size, what no shape of a parameter depends on.
_UNSEEN = ("norm_eps", "rope_theta", "max_positions")


def pinned(
  workdir: epath.PathLike, folders: dict[str, epath.PathLike]
) -> dict[str, epath.Path]:
  """The step folders that a run reads, the same at every start of the run.

  A folder of another run means its newest step; should that run go on, this one would
  otherwise resume with another reference. The first start writes them down.

  Args:
    folders: {name: a workdir or one of its step folders}.
  """
  workdir = epath.Path(workdir)
  path = workdir / _SOURCES
  # Without config.json no run has begun: the file is that of a start that failed.
  if path.exists() and (workdir / "config.json").exists():
    known = json.loads(path.read_text())
    return {name: epath.Path(known[name]) for name in folders}
  found = {
    name: storage.step_folder(folder).resolve() for name, folder in folders.items()
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.aside(path) as partial:
    partial.write_text(json.dumps({k: str(v) for k, v in found.items()}, indent=1))
  return found


def start_size(name: str, init: epath.PathLike) -> Size:
  """The size that a run trains: the row `name`, with what shapes do not show of `init`.

  Weights go with the rotations and the epsilon that they were trained with, which
  differ between releases of one shape. "init" is `init`'s own size, row or not.
  """
  if name == "init" and init:
    return workdirs.load_size(init)
  row = sizes.size(name)
  if not init:
    return row
  its = workdirs.load_size(init)
  return dataclasses.replace(row, **{key: getattr(its, key) for key in _UNSEEN})
