r"""How fast import and export are beside a plain copy, and how much memory they take.

  python -m experiments.convert_speed --workdir /tmp/speed

Makes a synthetic checkpoint of at least 3 GB in 4 shards, and times `cp` and `sync` of
its files, `convert import` and `convert export`, each with its source evicted from the
page cache, each until everything is on the disk, Python's start included; a copy before
and one after, for a disk's speed varies. Needs 10 GB of disk; the folders are removed.
The bounds that it judges by: 0.4 of the speed of the fastest copy, every time, and
memory of the model's bytes + one shard + 1 GB.
"""

import argparse
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stepaudio_jax.hf import export, files, folder, safe, table
from stepaudio_jax.models import sizes
from stepaudio_jax.text import tokenizer

# The 7B's vocabulary, and widths that give 3 GB with many layers to stack.
SIZE = dataclasses.replace(
  sizes.size("step_audio_2_mini"),
  name="synthetic",
  width=2048,
  ffn_width=11008,
  heads=16,
  layers=10,
  encoder_layers=8,
)
SHARDS = 4
LEAST_SPEED = 0.4
PIECE_BYTES = 32 << 20


def synthetic(to: Path) -> int:
  """Writes bfloat16 tensors of random bits, all finite; returns their bytes."""
  to.mkdir()
  words = tokenizer.load("tiny")
  words.save(to)
  config = files.config(SIZE, words.special, "bfloat16")
  (to / "config.json").write_text(json.dumps(config))
  shapes = table.their_shapes(SIZE)
  nbytes = {key: 2 * math.prod(shape) for key, shape in shapes.items()}
  total = sum(nbytes.values())
  packed = export.shards(nbytes, cap=round(total / SHARDS * 1.1))
  where, rng = export.weight_map(packed), np.random.default_rng(0)
  for keys in packed:
    tensors = {key: (safe.DTYPES["BF16"], shapes[key]) for key in keys}
    head, _, _ = safe.layout(tensors)
    with (to / where[keys[0]]).open("wb") as file:
      file.write(head)
      left = sum(nbytes[key] for key in keys)
      while left:  # in pieces: what this process held, its children count as theirs
        bits = np.frombuffer(rng.bytes(min(left, PIECE_BYTES)), np.uint16)
        file.write((bits & np.uint16(0xBFFF)).tobytes())  # no exponent is all ones
        left -= bits.nbytes
  index = {"metadata": {"total_size": total}, "weight_map": where}
  (to / folder.INDEX).write_text(json.dumps(index))
  return total


def evict(source: Path) -> None:
  """Drops the files of a folder from the page cache."""
  os.sync()
  for path in source.rglob("*"):
    if path.is_file():
      descriptor = os.open(path, os.O_RDONLY)
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
      os.close(descriptor)


def timed(source: Path, *command: str) -> tuple[float, int]:
  """(seconds until it is on disk, peak bytes of memory) of a process."""
  evict(source)
  clock = time.perf_counter()
  child = subprocess.Popen(command)
  _, status, usage = os.wait4(child.pid, 0)
  child.returncode = os.waitstatus_to_exitcode(status)
  os.sync()
  if child.returncode:
    raise SystemExit(f"{' '.join(command)} ended with status {child.returncode}")
  return time.perf_counter() - clock, usage.ru_maxrss * 1024


def run(workdir: Path, rounds: int) -> dict[str, Any]:
  """Times copy, import, export and copy again, several times; prints a table."""
  workdir.mkdir(parents=True)
  there, ours, back, copy = (workdir / n for n in ("there", "ours", "back", "copy"))
  convert = (sys.executable, "-m", "stepaudio_jax.convert")
  commands = {
    "copy": (there, copy, ("cp", "-r")),
    "import": (there, ours, (*convert, "import", "--from")),
    "export": (ours, back, (*convert, "export", "--shard-gb", "1", "--from")),
  }
  seconds, peaks = {name: [] for name in commands}, {name: [] for name in commands}
  try:
    total = synthetic(there)
    shard = max(path.stat().st_size for path in there.glob("*.safetensors"))
    for _ in range(rounds):
      for name in ("copy", "import", "export", "copy"):
        source, target, command = commands[name]
        to = ("--to",) if name != "copy" else ()
        taken, peak = timed(source, *command, str(source), *to, str(target))
        seconds[name].append(taken)
        peaks[name].append(peak)
        shutil.rmtree(copy, ignore_errors=True)
      shutil.rmtree(ours)
      shutil.rmtree(back)
  finally:
    shutil.rmtree(workdir)
  return report(total, total + shard + 10**9, seconds, peaks)


def report(
  total: int, bound: int, seconds: dict[str, list[float]], peaks: dict[str, list[int]]
) -> dict[str, Any]:
  """Prints every time; speeds are beside the fastest copy and the slowest."""
  fastest, slowest = min(seconds["copy"]), max(seconds["copy"])
  print(f"{total / 1e9:.2f} GB in {SHARDS} shards; memory may be {bound / 1e9:.2f} GB")
  result = {"bytes": total, "memory_bound": bound, "seconds": seconds, "within": True}
  for name, taken in seconds.items():
    speeds, peak = [fastest / max(taken), slowest / min(taken)], max(peaks[name])
    times = " ".join(f"{each:.1f}" for each in taken)
    line = f"{name:6}  {times} s"
    if name != "copy":
      result["within"] &= speeds[0] >= LEAST_SPEED and peak <= bound
      result |= {f"{name}_speed": speeds, f"{name}_peak": peak}
      line += f"  {speeds[0]:.2f} to {speeds[1]:.2f} of a copy's speed"
      line += f"  {peak / 1e9:.2f} GB"
    print(line)
  print("within the bounds" if result["within"] else "OUT OF BOUNDS")
  return result


def main() -> None:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.convert_speed",
    description=__doc__.split("\n")[0],
    allow_abbrev=False,
  )
  parser.add_argument("--workdir", type=Path, required=True, help="new; it is removed")
  parser.add_argument("--rounds", type=int, default=2, metavar="N", help="else 2")
  args = parser.parse_args()
  if not run(args.workdir, args.rounds)["within"]:
    raise SystemExit(1)


if __name__ == "__main__":
  main()
