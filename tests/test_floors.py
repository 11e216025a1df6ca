"""The house's floors (README, "Layout"): a file imports only from lower floors."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "stepaudio_jax"
FLOORS = (
  {"core"},
  {"models", "audio", "text", "rewards", "rl"},
  {"data", "losses", "sampling", "scoring", "optim", "sharding", "checkpoint", "logs"}
  | {"hf"},
  {"steps", "evals"},
  {"train", "train_rl", "generate", "evaluate", "convert", "ablate", "fit", "doctor"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
# Gold truth must never reach training or rewards: only the rooms named here read it.
GOLD_READERS = {"evals"}
# torch lives in the remote code of exports, which nothing here imports.
TORCH_FOLDER = "hf/remote"


def imports(source: str) -> list[str]:
  """Modules named by import statements, wherever they stand."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      found += [f"{base}.{alias.name}" for alias in node.names]
  return found


def problems(relative: str, source: str) -> list[str]:
  """What is wrong with the imports of one file of the package."""
  parts = pathlib.PurePosixPath(relative).with_suffix("").parts
  room = parts[0]
  if room not in LEVEL:
    return [f"{relative}: the room {room!r} stands on no floor"]
  out = []
  for name in imports(source):
    if name.startswith("."):
      out.append(f"{relative}: relative import {name}")
    if name.split(".")[0] in ("torch", "transformers"):
      out.append(f"{relative}: imports {name}")
    if not name.startswith("stepaudio_jax."):
      continue
    target = name.split(".")[1]
    if target in LEVEL and target != room and LEVEL[target] >= LEVEL[room]:
      out.append(f"{relative} (floor {LEVEL[room]}) imports {name}")
    gold = "data.world" in name and (room != "data" or parts[1:2] != ("world",))
    if gold and room not in GOLD_READERS:
      out.append(f"{relative}: only {sorted(GOLD_READERS)} may read {name}")
  return out


def test_no_file_imports_upwards():
  found = []
  for path in sorted(PACKAGE.rglob("*.py")):
    relative = path.relative_to(PACKAGE).as_posix()
    if relative != "__init__.py" and not relative.startswith(TORCH_FOLDER):
      found += problems(relative, path.read_text(encoding="utf-8"))
  assert not found, "\n".join(found)


def test_no_package_file_imports_experiments():
  for path in PACKAGE.rglob("*.py"):
    names = imports(path.read_text(encoding="utf-8"))
    assert not [n for n in names if n.split(".")[0] in ("experiments", "configs")], path


@pytest.mark.parametrize(
  ("relative", "source"),
  [
    ("core/types.py", "from stepaudio_jax.models import sizes"),
    ("models/decoder.py", "import stepaudio_jax.audio.mel"),
    ("models/decoder.py", "def f():\n  from stepaudio_jax import losses"),
    ("losses.py", "from stepaudio_jax import optim"),
    ("train.py", "from stepaudio_jax import generate"),
    ("train_rl.py", "from stepaudio_jax.data.world import gold"),
    ("data/sets/dialogue.py", "from stepaudio_jax.data.world import gold"),
    ("scoring.py", "import stepaudio_jax.data.world.gold"),
    ("models/decoder.py", "from . import layers"),
    ("hf/export.py", "import torch.nn"),
    ("attic/old.py", ""),
  ],
)
def test_offending_lines_are_seen(relative, source):
  assert problems(relative, source)


def test_downward_and_own_room_imports_pass():
  source = "from stepaudio_jax.core import tree\nfrom stepaudio_jax.models import heads"
  assert problems("models/decoder.py", source) == []
  assert problems("evals/world.py", "from stepaudio_jax.data.world import gold") == []
