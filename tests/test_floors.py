"""The house's floors (README, "Layout"): a file imports only from lower floors."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "stepaudio_jax"
FLOORS = (
  {"core"},
  {"models", "audio", "text", "rewards", "rl"},
  {
    "data",
    "losses",
    "sampling",
    "scoring",
    "policy",
    "optim",
    "sharding",
    "meshes",
    "checkpoint",
  }
  | {"workdirs", "hf", "logs", "pricing", "judges", "pages"},
  {"steps", "preference_losses", "mixing", "origins", "evals", "rollout", "preemption"},
  {"learner", "objectives", "rubrics"},
  {"train", "train_rl", "generate", "evaluate", "convert", "ablate", "fit", "doctor"}
  | {"report", "inspect", "preferences"},
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


# Must never see the truth behind the synthetic world, however far they reach.
BLIND = ("rl", "rewards", "scoring", "policy", "rollout", "steps", "train", "train_rl")


def reached(start: str) -> set[str]:
  """Modules of the package that importing `start` imports, folders with all files."""
  found, waiting = set(), [start]
  while waiting:
    name = waiting.pop()
    path = PACKAGE.parent / name.replace(".", "/")
    files = sorted(path.rglob("*.py")) if path.is_dir() and name == start else []
    files += [path / "__init__.py"] if path.is_dir() else [path.with_suffix(".py")]
    if name in found or not files[-1].exists():  # the name of a thing in a module
      continue
    found.add(name)
    for file in files:
      names = imports(file.read_text(encoding="utf-8"))
      waiting += [n for n in names if n.startswith(PACKAGE.name)]
      waiting += [n.rpartition(".")[0] for n in names if n.startswith(PACKAGE.name)]
  return found


@pytest.mark.parametrize("room", BLIND)
def test_training_cannot_reach_the_truth_of_the_world(room):
  found = reached(f"{PACKAGE.name}.{room}")
  assert len(found) > 1 or room == "rewards"
  assert not [name for name in found if name.startswith("stepaudio_jax.data.world")]


def test_evaluation_does_reach_it():
  """So the search above would see it."""
  assert "stepaudio_jax.data.world.gold" in reached("stepaudio_jax.evals.world")


def test_a_training_process_has_not_loaded_the_world():
  """By another road: what Python really imports for all recipes."""
  names = "train_rl, train, rewards, rl"
  code = (
    f"import sys; from stepaudio_jax import {names}; "
    "[m.load(n) for m in (rewards, rl) for n in m.names()]; "
    "print([n for n in sys.modules if n.startswith('stepaudio_jax.data.world')])"
  )
  run = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=PACKAGE.parent,
  )
  assert run.stdout.strip() == "[]"
